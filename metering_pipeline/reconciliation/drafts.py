"""The drafts against the rated lines: what has been billed of a line, and what its drafts would bill, are the line."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.differences import LINES, Differences, differing_rows
from metering_pipeline.reconciliation.statements import rows, statement

PACKAGE = "metering_pipeline.reconciliation"

LOOK_AHEAD = timedelta(days=400)
"""Slices of so long before the first landing hour and after now are looked at: a year, and some."""


def compare_all(database: Database, first_hour: datetime, now: datetime) -> Differences:
    """Every rated line with its documents and drafts; the first that differ."""
    with database.connect() as connection:
        found = _differing(connection, first_hour, now)
        if found.rows:
            connection.execute(statement(PACKAGE, "keep_unchecked"))
    return found


def compare_unchecked(database: Database, first_hour: datetime, now: datetime) -> Differences:
    """The lines of the subscriptions whose drafts were drawn up anew or had differed; the first that differ.

    While any differs, all of them are compared again the next time.
    """
    with database.locked() as connection:
        unchecked = [row.subscription_id for row in rows(connection, PACKAGE, "take_unchecked")]
        found = _differing(connection, first_hour, now, unchecked)
        if found.rows:
            raise psycopg.Rollback
    return found


def _differing(
    connection: psycopg.Connection,
    first_hour: datetime,
    now: datetime,
    subscriptions: Sequence[str] | None = None,
) -> Differences:
    start, end = first_hour - LOOK_AHEAD, now + LOOK_AHEAD
    return differing_rows(connection, LINES, start, end, subscriptions=subscriptions)
