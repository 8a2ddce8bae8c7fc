"""The proof of everything that is kept: L1 to L3 for every landing hour, and L3 for every day of usage.

What a run proves of its own landing hours says nothing of a row that changes afterwards, and no landing hour
accounts for a bucket that none contributed to. It goes UTC day by day, each in a transaction of its own, takes
no lock, and may so run beside the pipeline: what a queue names meanwhile is left out, as ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

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
    with database.connect(autocommit=True) as connection:
        connection.prepare_threshold = None  # a general plan would read every day for each of them
        hours = {"first_hour": first_hour, "end_hour": end_hour}
        landed = [
            row.day.astimezone(UTC) for row in rows(connection, PACKAGE, "proof_landed_days", hours)
        ]
        for number, day in enumerate(landed, start=1):
            red = tally.red_windows
            tally.add(evaluate(connection, law, day, day + DAY, now))
            progress(_line(law, "landing", number, len(landed), day, tally.red_windows - red))
        if law != "L3":
            return tally
        used = [row.day.astimezone(UTC) for row in rows(connection, PACKAGE, "proof_usage_days")]
        for number, day in enumerate(used, start=1):
            red = tally.red_windows
            tally.add(evaluate_day_of_usage(connection, day, now))
            progress(_line(law, "usage", number, len(used), day, tally.red_windows - red))
    return tally


def _line(law: str, of: str, number: int, days: int, day: datetime, red: int) -> str:
    state = f"{red} windows FAIL" if red else "holds"
    return f"{law}, day of {of} {number} of {days}: {day:%Y-%m-%d} {state}"
