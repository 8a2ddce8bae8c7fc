"""The laws L1 to L5: evaluated for windows, each evaluation kept as rows.

L1 to L3 have one window a landing hour, and L3 one a UTC day of usage for what no landing hour accounts
for; L4 has one a UTC month of usage; L5 one a billing date.
Every evaluation adds a row for the window (tenant_id null) and one for each tenant that failed.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from metering_pipeline.reconciliation.documents import document_findings
from metering_pipeline.reconciliation.statements import rows, statement

PACKAGE = "metering_pipeline.reconciliation"
DAY = timedelta(days=1)
LAWS = ("L1", "L2", "L3", "L4", "L5")
MEANINGS = {
    "L1": "records of a file version = accepted + rejected",
    "L2": "accepted rows of current file versions = owned + duplicates + conflicts + voids",
    "L3": "digests of landing = ledger = contributions = hourly = daily usage",
    "L4": "hourly usage = rated + unrated; tier slices = lines",
    "L5": "lines = document; the chain verifies; issued = rated independently",
}


@dataclass(frozen=True)
class LawResult:
    """One row of ``reconciliation.law_results``: a window as a whole (tenant_id None), or a tenant
    that failed in it. The window is half-open; the figures depend on the law."""

    law: str
    window_start: datetime
    window_end: datetime
    tenant_id: str | None
    passed: bool
    figures: dict[str, Any]
    evaluated_at: datetime


@dataclass(frozen=True)
class LawState:
    """Where a law stands, by the newest evaluation of each of its windows."""

    law: str
    meaning: str
    windows: int
    red_windows: int
    red_tenants: list[str]
    last_evaluated_at: datetime | None
    sample_window_start: datetime | None
    sample_figures: dict[str, Any] | None


def evaluate(
    connection: psycopg.Connection,
    law: str,
    window_start: datetime,
    window_end: datetime,
    now: datetime,
) -> list[LawResult]:
    """Evaluate a law for every window of it in [window_start, window_end) and keep the results.

    Windows are those that hold something, or that were evaluated before: a red one turns green by
    an evaluation only. Landing hours that are archived are left out: they were proved when they were. ``now`` is the clock written as evaluated_at. Each window's row comes before
    its tenants'. A connection outside of a transaction gets one of its own (REPEATABLE READ,
    committed at the end); inside of one the caller's snapshot counts. Raises ValueError for an
    unknown law.
    """
    if law not in LAWS:
        raise ValueError(f"{law!r} is not a law. Laws: {', '.join(LAWS)}.")
    with one_snapshot(connection):
        if law == "L5":
            return _evaluate_documents(connection, window_start, window_end, now)
        if law == "L4":
            return _evaluate(connection, law, window_start, window_end, now)
        return [
            result
            for start, end in _spans_kept(connection, window_start, window_end)
            for result in _evaluate(connection, law, start, end, now)
        ]


def evaluate_day_of_usage(
    connection: psycopg.Connection, day: datetime, now: datetime
) -> list[LawResult]:
    """Evaluate L3 for the usage of a UTC day, given by its first instant, and keep the results.

    Compares every bucket of the day, whichever landing hours contributed to it, or none: contributions
    with hourly and hourly with daily usage. Otherwise as ``evaluate``.
    """
    with one_snapshot(connection):
        return _evaluate(connection, "L3_day", day, day + DAY, now)


def _evaluate(
    connection: psycopg.Connection, name: str, start: datetime, end: datetime, now: datetime
) -> list[LawResult]:
    # A query that only reads may use more than one process; one that inserts may not.
    found = rows(connection, PACKAGE, name, {"window_start": start, "window_end": end})
    return _keep(connection, name.partition("_")[0], found, now)


def _spans_kept(
    connection: psycopg.Connection, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """The span of landing hours, cut around the UTC days that are archived."""
    for row in rows(
        connection, PACKAGE, "archived_days", {"window_start": start, "window_end": end}
    ):
        if start < row.day:
            yield start, row.day
        start = row.day + DAY
    if start < end:
        yield start, end


def law_state(connection: psycopg.Connection) -> list[LawState]:
    """One state a law, in order, laws never evaluated included."""
    known = {row.law: row for row in rows(connection, PACKAGE, "law_state")}
    return [
        LawState(
            law=law,
            meaning=MEANINGS[law],
            windows=known[law].windows if law in known else 0,
            red_windows=known[law].red_windows if law in known else 0,
            red_tenants=known[law].red_tenants if law in known else [],
            last_evaluated_at=known[law].last_evaluated_at if law in known else None,
            sample_window_start=known[law].window_start if law in known else None,
            sample_figures=known[law].figures if law in known else None,
        )
        for law in LAWS
    ]


def _evaluate_documents(
    connection: psycopg.Connection, start: datetime, end: datetime, now: datetime
) -> list[LawResult]:
    found = [
        _Finding(window_start, window_end, tenant_id, passed, json.dumps(figures))
        for window_start, window_end, tenant_id, passed, figures in document_findings(
            connection, start, end
        )
    ]
    return _keep(connection, "L5", found, now)


class _Finding(NamedTuple):
    """What is found of a window, or of a tenant that failed in it; the figures as JSON text, which keeps them exact."""

    window_start: datetime
    window_end: datetime
    tenant_id: str | None
    passed: bool
    figures: str


def _keep(
    connection: psycopg.Connection, law: str, found: Sequence[_Finding], now: datetime
) -> list[LawResult]:
    parameters = {
        "evaluation_id": _next_evaluation(connection),
        "law": law,
        "now": now,
        "window_starts": [each.window_start for each in found],
        "window_ends": [each.window_end for each in found],
        "tenant_ids": [each.tenant_id for each in found],
        "passed": [each.passed for each in found],
        "figures": [each.figures for each in found],
    }
    with connection.cursor(row_factory=class_row(LawResult)) as cursor:
        return cursor.execute(statement(PACKAGE, "keep_results"), parameters).fetchall()


def _next_evaluation(connection: psycopg.Connection) -> int:
    row = connection.execute("select nextval('reconciliation.evaluation_ids')").fetchone()
    assert row is not None  # noqa: S101 - a select without a table gives a row
    return int(row[0])


def keep_days(connection: psycopg.Connection) -> None:
    """From here to the transaction's end no day is archived. Before its snapshot: else the snapshot might have what
    says that a day is there, and the tables not."""
    connection.execute(
        "lock table only landing.usage_events, only ledger.usage_events in access share mode"
    )


@contextmanager
def one_snapshot(connection: psycopg.Connection) -> Iterator[None]:
    """A transaction that sees one moment (REPEATABLE READ); inside of another one the caller's snapshot counts."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        yield
        return
    isolation = connection.isolation_level
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            keep_days(connection)
            yield
    finally:
        connection.isolation_level = isolation
