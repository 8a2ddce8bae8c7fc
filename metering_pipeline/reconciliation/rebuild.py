"""The ledger built anew from landing, by a second piece of code, and compared row for row.

The models are not run again: the rules (the smallest copy owns an event; what the others and voids are; what
only superseded file versions held) are written once more, as set-based SQL over all landed copies.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import IsolationLevel

from metering_pipeline.errors import MeteringError
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.laws import keep_days
from metering_pipeline.reconciliation.statements import rows, statement

PACKAGE = "metering_pipeline.reconciliation"
TABLES = ("usage_events", "duplicates", "conflicts", "voids", "withdrawn")
DAY = timedelta(days=1)

log = logging.getLogger(__name__)


class RebuildError(MeteringError):
    """A rebuild that cannot be made now, or a repair that was not made; the message says why."""


@dataclass(frozen=True)
class TableComparison:
    """A table of the ledger against its rebuilt rows. Modified: the row is there, but says something else."""

    table: str
    rebuilt: int
    missing: int
    extra: int
    modified: int

    @property
    def identical(self) -> int:
        return self.rebuilt - self.missing - self.modified

    @property
    def differing(self) -> int:
        return self.missing + self.extra + self.modified


@dataclass(frozen=True)
class Sample:
    """A row that differs, by where it landed: landing's word, or the ledger's for an extra row.

    file_key is None for a file that landing does not know; the columns are those in which a modified row
    differs. What the row says of quantity and properties is its customer's, and not shown.
    """

    table: str
    difference: str
    file_key: str | None
    file_id: int
    line_number: int
    tenant_id: str
    event_type: str
    occurred_at: datetime
    correlation_id: str
    fingerprint: UUID
    differing_columns: list[str]


@dataclass(frozen=True)
class Repair:
    """What a repair did: rows taken out and put in, keys that the rollups owe for it."""

    deleted: int
    inserted: int
    pending: int


@dataclass(frozen=True)
class Comparison:
    """A rebuild's outcome. Waiting hours are landed, but not posted since: the events that they hold a
    copy of (left_out of them) were not compared; nor were the days of usage of which landing is archived."""

    tables: tuple[TableComparison, ...]
    samples: tuple[Sample, ...]
    days: int
    waiting_hours: int
    left_out: int
    repair: Repair | None
    archived_days: int = 0

    @property
    def differing(self) -> int:
        return sum(table.differing for table in self.tables)


def rebuild_ledger(
    database: Database,
    start: datetime | None,
    end: datetime | None,
    now: datetime,
    repair: bool = False,
    samples: int = 5,
) -> Comparison:
    """Build the ledger anew from landing, in the schema ledger_rebuilt, and compare.

    Without start and end: everything. With them: every event that occurred on a UTC day of which the landing
    hours in [start, end) hold a copy. Such a day is compared as a whole, with all copies, wherever they
    landed; all copies of an event have the same time, so nothing of it lies outside.

    One snapshot, and nothing is left of the schema, whatever happens: all is one transaction. With repair
    that transaction holds the pipeline's locks from its beginning, replaces the differing rows, writes
    ledger.pending, and is committed. Raises RebuildError.
    """
    with _one_transaction(database, keep=repair) as connection:
        _prepare(connection)
        parameters = {"window_start": start, "window_end": end}
        days = [
            row.day.astimezone(UTC) for row in rows(connection, PACKAGE, "rebuild_days", parameters)
        ]
        landed = rows(connection, PACKAGE, "rebuild_landed_days")
        return _rebuild(connection, days, landed, repair, now, samples)


def rebuild_ledger_day(
    database: Database, day: datetime, reach: timedelta, samples: int
) -> Comparison:
    """Build one UTC day of usage anew from landing and compare; nothing changes, no lock is taken.

    Copies are looked for where they can be at the cost of a few days of landing: from the day before to ``reach``
    after the day, and wherever the ledger names one. A later copy that the ledger does not know breaks L2.
    """
    with _one_transaction(database, keep=False) as connection:
        _prepare(connection)
        landed = rows(
            connection, PACKAGE, "rebuild_landed_days_of", {"day": day, "reach": DAY + reach}
        )
        return _rebuild(connection, [day], landed, False, day, samples)


def _prepare(connection: psycopg.Connection) -> None:
    if connection.execute(statement(PACKAGE, "rebuild_lock")).fetchone() != (True,):
        raise RebuildError("Another rebuild is running.")
    connection.execute("set local work_mem = '192MB'")  # for the days' sorts; they spill beyond
    connection.execute(statement(PACKAGE, "rebuild_schema"))


def _rebuild(
    connection: psycopg.Connection,
    days: Sequence[datetime],
    landed: Sequence[Any],
    repair: bool,
    now: datetime,
    samples: int,
) -> Comparison:
    asked = len(days)
    days = _kept(connection, days)
    _read_landing(connection, days, landed)
    compared = _compare(connection, days)
    found = [
        Sample(*row) for row in rows(connection, PACKAGE, "rebuild_samples", {"samples": samples})
    ]
    mended = None
    if repair and any(table.differing for table in compared):
        mended = _repair(connection, now)
    (left_out,) = rows(connection, PACKAGE, "rebuild_left_out")
    connection.execute("drop schema ledger_rebuilt cascade")
    return Comparison(
        tables=tuple(compared),
        samples=tuple(found),
        days=len(days),
        waiting_hours=left_out.waiting_hours,
        left_out=left_out.events,
        repair=mended,
        archived_days=asked - len(days),
    )


def _kept(connection: psycopg.Connection, days: Sequence[datetime]) -> Sequence[datetime]:
    """Those of the days of usage of which landing has every copy."""
    if not days:
        return days
    parameters = {"window_start": min(days), "window_end": max(days) + DAY}
    archived = {
        row.day.astimezone(UTC)
        for row in rows(connection, PACKAGE, "rebuild_archived_days", parameters)
    }
    return [day for day in days if day not in archived]


@contextmanager
def _one_transaction(database: Database, keep: bool) -> Iterator[psycopg.Connection]:
    """One transaction with one snapshot; undone at its end, or kept and under the pipeline's locks."""
    if keep:
        with database.locked(IsolationLevel.REPEATABLE_READ) as connection:
            connection.prepare_threshold = None
            yield connection
        return
    with database.connect(autocommit=True) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        # a plan is made for each day and table: a general one would read every day for each of them
        connection.prepare_threshold = None
        with connection.transaction(force_rollback=True):
            keep_days(connection)
            yield connection


def _read_landing(
    connection: psycopg.Connection, days: Sequence[datetime], landed_days: Sequence[Any]
) -> None:
    for number, landed in enumerate(landed_days, start=1):
        log.info(
            "landing day %d of %d: %s, %s copies",
            number, len(landed_days), f"{landed.day:%Y-%m-%d}", f"{landed.copies:,}",
        )  # fmt: skip
        parameters = {"day": landed.day, "days": days}
        connection.execute(statement(PACKAGE, "rebuild_copies"), parameters)
    connection.execute("create index on ledger_rebuilt.copies (occurred_at)")
    connection.execute("analyze ledger_rebuilt.copies")


def _compare(connection: psycopg.Connection, days: Sequence[datetime]) -> list[TableComparison]:
    """The owned events day by day, kept no longer than they are compared; then what lies beside them."""
    owned = 0
    for number, day in enumerate(days, start=1):
        log.info("day of occurrence %d of %d: %s", number, len(days), f"{day:%Y-%m-%d}")
        one_day = {
            "relation": TABLES[0],
            "window_start": day,
            "window_end": day + DAY,
            "days": [day],
        }
        connection.execute(statement(PACKAGE, "rebuild_day"), one_day)
        connection.execute(statement(PACKAGE, "rebuild_compare"), one_day)
        owned += _counts(connection, TABLES[0]).rebuilt
        connection.execute("truncate ledger_rebuilt.owned")
    (superseded,) = rows(connection, PACKAGE, "rebuild_superseded_hours")
    parameters = {"days": days, "superseded_hours": superseded.hours}
    connection.execute(statement(PACKAGE, "rebuild_withdrawn"), parameters)
    connection.execute("analyze ledger_rebuilt.further")
    for table in TABLES[1:] if days else ():
        log.info("ledger.%s", table)
        all_days = {
            "relation": table,
            "window_start": days[0],
            "window_end": days[-1] + DAY,
            "days": days,
        }
        connection.execute(statement(PACKAGE, "rebuild_compare"), all_days)
    counted = [_counts(connection, table) for table in TABLES]
    return [
        TableComparison(table, each.rebuilt + owned * (table == TABLES[0]), *each[1:])
        for table, each in zip(TABLES, counted, strict=True)
    ]


def _counts(connection: psycopg.Connection, table: str) -> Any:
    (counts,) = rows(connection, PACKAGE, "rebuild_counts", {"relation": table})
    return counts


def _repair(connection: psycopg.Connection, now: datetime) -> Repair:
    """Replace the rows that differ. What the rollups owe is written for the ledger before and after."""
    expected: Mapping[str, int] = dict(
        connection.execute(
            "select side, count(*) from ledger_rebuilt.differences group by side"
        ).fetchall()
    )
    connection.execute(statement(PACKAGE, "repair_partitions"))
    owed = connection.execute(statement(PACKAGE, "repair_pending")).rowcount
    try:
        (deleted,) = rows(connection, PACKAGE, "repair_delete")
        (inserted,) = rows(connection, PACKAGE, "repair_insert", {"now": now})
    except psycopg.errors.UniqueViolation as error:
        raise RebuildError(
            f"Nothing was repaired: a row that is not compared stands in the way ({error.diag.message_detail}) "
            "Repair without a range, when no landed hour waits to be posted."
        ) from error
    owed += connection.execute(statement(PACKAGE, "repair_pending")).rowcount
    done = Repair(deleted.deleted, inserted.inserted, owed)
    if (done.deleted, done.inserted) != (expected.get("ledger", 0), expected.get("landing", 0)):
        raise RebuildError(
            f"Nothing was repaired: {done} instead of {dict(expected)} rows. This is a fault of the rebuild."
        )
    return done
