"""The proof of everything that is kept: L1 to L3 for every landing hour, and L3 for every day of usage.

What a run proves of its own landing hours says nothing of a row that changes afterwards, and no landing hour
accounts for a bucket that none contributed to. It goes UTC day by day, each in a transaction of its own, takes
no lock, and may so run beside the pipeline: what a queue names meanwhile is left out, as ever.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue

import psycopg

from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.buckets import bucket_count
from metering_pipeline.reconciliation.laws import (
    DAY,
    LawResult,
    evaluate,
    evaluate_day_of_usage,
)
from metering_pipeline.reconciliation.statements import rows

PACKAGE = "metering_pipeline.reconciliation"
PROVED = ("L1", "L2", "L3")
SHOWN = 20
"""Failing rows that a tally keeps to show."""
SESSIONS = 2
"""Spans that are evaluated at the same time. What one statement does over a span is only partly shared by PostgreSQL's
workers; two statements over two spans are two cores' work."""

Evaluate = Callable[[psycopg.Connection, datetime, datetime], list[LawResult]]
"""Evaluates a law for a span, in a transaction of its own."""


@dataclass
class Tally:
    """What evaluations of a law came to: windows, red ones, and the first failing rows, tenants' first.

    Buckets are those that differ, counted in every window in which they were found.
    """

    law: str
    windows: int = 0
    red_windows: int = 0
    buckets: int = 0
    failing: list[LawResult] = field(default_factory=list)

    def add(self, results: list[LawResult]) -> None:
        """Add the rows of one evaluation."""
        whole = [each for each in results if each.tenant_id is None]
        failing = [each for each in results if not each.passed]
        named = {each.window_start for each in failing if each.tenant_id is not None}
        self.windows += len(whole)
        self.red_windows += sum(not each.passed for each in whole)
        self.buckets += sum(bucket_count(each) for each in failing)
        telling = [each for each in failing if each.tenant_id or each.window_start not in named]
        self.failing += telling[: SHOWN - len(self.failing)]


def prove(
    database: Database,
    law: str,
    first_hour: datetime,
    end_hour: datetime,
    now: datetime,
    progress: Callable[[str], None],
) -> Tally:
    """Evaluate a law of PROVED for every landing hour from first_hour up to, not including, end_hour, and
    for any beyond that holds rows; with L3 every day of usage. A red day does not stop the others.
    """
    tally = Tally(law)
    landed = _days(database, "proof_landed_days", first_hour=first_hour, end_hour=end_hour)
    _prove_days(tally, database, "landing", landed, by_hour(law, now), progress)
    if law == "L3":
        used = _days(database, "proof_usage_days")
        _prove_days(tally, database, "usage", used, _by_day_of_usage(now), progress)
    return tally


def by_hour(law: str, now: datetime) -> Evaluate:
    """The evaluation of a law for the landing hours of a span."""
    return lambda connection, start, end: evaluate(connection, law, start, end, now)


def _by_day_of_usage(now: datetime) -> Evaluate:
    return lambda connection, day, _: evaluate_day_of_usage(connection, day, now)


def evaluated(
    database: Database, spans: Sequence[tuple[datetime, datetime]], evaluate_span: Evaluate
) -> Iterator[list[LawResult]]:
    """What the evaluation of each span found, in order; SESSIONS of them run at the same time.

    Each is a transaction of its own. Whatever ends it early cancels those that run; the others are not begun.
    """
    with ExitStack() as stack:
        count = min(SESSIONS, len(spans))
        connections = [stack.enter_context(database.connect(autocommit=True)) for _ in range(count)]
        idle: SimpleQueue[psycopg.Connection] = SimpleQueue()
        for connection in connections:
            # a general plan would read every day for each of them
            connection.prepare_threshold = None
            if count > 1:
                connection.execute("set max_parallel_workers_per_gather = 0")
            idle.put(connection)

        def evaluate_one(span: tuple[datetime, datetime]) -> list[LawResult]:
            connection = idle.get()
            try:
                return evaluate_span(connection, *span)
            finally:
                idle.put(connection)

        pool = stack.enter_context(ThreadPoolExecutor(count or 1, thread_name_prefix="proof"))
        evaluations = [pool.submit(evaluate_one, span) for span in spans]
        try:
            for evaluation in evaluations:
                yield evaluation.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            begun = [each for each in evaluations if not each.cancelled()]
            # again and again: a statement that begins at this moment is not there to be cancelled yet
            while wait(begun, timeout=0.1).not_done:
                for connection in connections:
                    connection.cancel_safe()


def _days(database: Database, name: str, **parameters: datetime) -> list[datetime]:
    with database.connect() as connection:
        return [row.day.astimezone(UTC) for row in rows(connection, PACKAGE, name, parameters)]


def _prove_days(
    tally: Tally,
    database: Database,
    of: str,
    days: Sequence[datetime],
    evaluate_day: Evaluate,
    progress: Callable[[str], None],
) -> None:
    found = evaluated(database, [(day, day + DAY) for day in days], evaluate_day)
    for number, (day, results) in enumerate(zip(days, found, strict=True), start=1):
        red = tally.red_windows
        tally.add(results)
        progress(_line(tally.law, of, number, len(days), day, tally.red_windows - red))


def _line(law: str, of: str, number: int, days: int, day: datetime, red: int) -> str:
    state = f"{red} windows FAIL" if red else "holds"
    return f"{law}, day of {of} {number} of {days}: {day:%Y-%m-%d} {state}"
