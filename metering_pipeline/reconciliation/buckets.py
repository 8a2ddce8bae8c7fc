"""The buckets in which L3 found the rollups differing, as its figures name them: for checks and status."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from metering_pipeline.reconciliation.laws import LawResult
from metering_pipeline.reconciliation.statements import statement
from metering_pipeline.settings import HOUR

PACKAGE = "metering_pipeline.reconciliation"
SHOWN = 5
"""Buckets that the status shows."""

SIDES = {
    "ledger_to_contributions": ("ledger", "contributed"),
    "contributions_to_hourly": ("contributed", "hourly"),
    "hourly_to_daily": ("hourly", "daily"),
}
"""What L3 compares bucket by bucket, and how its figures call the two sides."""

NAMES = {
    "ledger": "ledger",
    "contributed": "contributions",
    "hourly": "hourly usage",
    "daily": "daily usage",
}


@dataclass(frozen=True)
class Side:
    """A bucket's figures on one side of a comparison; all None where that side has no such bucket."""

    name: str
    event_count: int | None
    value_sum: str | None
    event_digest: str | None

    def __str__(self) -> str:
        if self.event_count is None:
            return f"{self.name}: none"
        return (
            f"{self.name}: count {self.event_count:,}, sum {self.value_sum}, "
            f"digest {self.event_digest}"
        )


@dataclass(frozen=True)
class Bucket:
    """A differing bucket, and the columns that differ where that is known."""

    tenant_id: str
    metric: str
    hour_or_day: str
    dimensions: str
    sides: tuple[Side, Side]
    differs_in: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Which bucket, and what was compared."""
        names = (side.name for side in self.sides)
        return (self.tenant_id, self.metric, self.hour_or_day, self.dimensions, *names)

    def __str__(self) -> str:
        name = " ".join((self.tenant_id, self.metric, self.hour_or_day, self.dimensions))
        known = f" (differ in {', '.join(self.differs_in)})" if self.differs_in else ""
        return f"{name}\n  {self.sides[0]}; {self.sides[1]}{known}"


@dataclass
class RedBuckets:
    """Buckets that differ: how many, the first of them, and the landing hours that a rebuild has to read.

    A bucket found in several windows counts in each. ``unlanded``: to how many nothing contributed.
    """

    count: int = 0
    unlanded: int = 0
    first: list[Bucket] = field(default_factory=list)
    landed_from: datetime | None = None
    landed_to: datetime | None = None

    def add(self, result: LawResult) -> None:
        """Add a tenant's row."""
        self.count += bucket_count(result)
        known = {bucket.key for bucket in self.first}
        new = [bucket for bucket in sampled_buckets(result) if bucket.key not in known]
        self.first += new[: SHOWN - len(self.first)]
        self.unlanded += result.figures.get("unlanded_buckets", 0)
        landed = _landed(result)
        if landed is not None:
            self.landed_from = min(landed[0], self.landed_from or landed[0])
            self.landed_to = max(landed[1], self.landed_to or landed[1])


def _landed(result: LawResult) -> tuple[datetime, datetime] | None:
    """The first and last landing hour of a tenant's differing buckets; None where none contributed."""
    if result.window_end - result.window_start == HOUR:
        return result.window_start, result.window_start
    if "landed_from" not in result.figures:
        return None
    first, last = (
        datetime.fromisoformat(result.figures[f"landed_{edge}"]) for edge in ("from", "to")
    )
    return first, last


def bucket_count(result: LawResult) -> int:
    """How many buckets differ in a tenant's row of L3; 0 in any other row."""
    return sum(int(compared["buckets"]) for _, compared in _compared(result))


def red_buckets(connection: psycopg.Connection) -> "RedBuckets":
    """What stands: the buckets that differ by the newest evaluation of each window of L3."""
    red = RedBuckets()
    with connection.cursor(row_factory=class_row(LawResult)) as cursor:
        for result in cursor.execute(statement(PACKAGE, "red_buckets")):
            red.add(result)
    return red


def sampled_buckets(result: LawResult) -> list[Bucket]:
    """Those of them that the row names: a few of each comparison."""
    return [
        _bucket(str(result.tenant_id), SIDES[name], sample)
        for name, compared in _compared(result)
        for sample in compared["samples"]
    ]


def _compared(result: LawResult) -> Iterator[tuple[str, dict[str, Any]]]:
    if result.law == "L3" and result.tenant_id is not None:
        yield from ((name, result.figures[name]) for name in SIDES if name in result.figures)


def _bucket(tenant_id: str, sides: tuple[str, str], sample: dict[str, Any]) -> Bucket:
    one, other = (
        Side(
            NAMES[side], *(sample.get(f"{side}_{figure}") for figure in ("count", "sum", "digest"))
        )
        for side in sides
    )
    return Bucket(
        tenant_id=tenant_id,
        metric=sample["metric"],
        hour_or_day=_hour(sample["hour"]) if "hour" in sample else sample["day"],
        dimensions=sample["dimensions"],
        sides=(one, other),
        differs_in=tuple(sample.get("differs_in", ())),
    )


def _hour(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%dT%H}"
