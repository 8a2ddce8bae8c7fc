"""From a difference to its cause: the records, buckets or days of a window that are not what they should be."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from metering_pipeline.reconciliation.statements import rows
from metering_pipeline.settings import HOUR, within_reach

PACKAGE = "metering_pipeline.reconciliation"
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Span:
    """The window of a law: a landing hour, a UTC day of usage or of billing, or a UTC month of usage; half-open."""

    kind: str
    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> "Span":
        """2026-01-31T13, 2026-01-31 or 2026-01. Raises ValueError."""
        for kind, pattern in (("hour", "%Y-%m-%dT%H"), ("day", "%Y-%m-%d"), ("month", "%Y-%m")):
            try:
                start = datetime.strptime(text, pattern).replace(tzinfo=UTC)
            except ValueError:
                continue
            return cls(kind, within_reach(start), _end(kind, start))
        raise ValueError(
            "write a landing hour as 2026-01-31T13, a day as 2026-01-31, a month as 2026-01"
        )

    def __str__(self) -> str:
        match self.kind:
            case "hour":
                return f"landing hour {self.start:%Y-%m-%dT%H}"
            case "day":
                return f"{self.start:%Y-%m-%d}"
            case _:
                return f"{self.start:%Y-%m}"


@dataclass(frozen=True)
class Difference:
    """Rows that differ between two stages, as text, and what to do about them."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    hint: str


@dataclass(frozen=True)
class Causes:
    """What the laws found when they were last evaluated for the window, and what differs in it now."""

    results: list[Any]
    differences: list[Difference]


def find_causes(
    connection: psycopg.Connection, span: Span, law: str | None, tenant_id: str | None, at_most: int
) -> Causes:
    """The causes in a window, of one tenant or all; at most so many rows of each kind."""
    results = rows(
        connection,
        PACKAGE,
        "explain_window",
        {"window_start": span.start, "window_end": span.end, "law": law},
    )
    parameters = {
        "window_start": span.start,
        "day": span.start.date(),
        "tenant_id": tenant_id,
        "at_most": at_most,
    }
    differences = [
        difference
        for name in _LOOKED_AT[span.kind]
        for difference in _EXPLAINED[name](rows(connection, PACKAGE, name, parameters))
    ]
    return Causes(results, differences)


def _landing(found: list[Any]) -> Iterator[Difference]:
    if found:
        yield Difference(
            "Landing and ledger: records that are not there, or not as they landed",
            ("law", "tenant", "file, line", "state", "what"),
            [
                (
                    each.law,
                    each.tenant_id or "",
                    f"{each.file_key or 'unknown file'}"
                    + (f"\nline {each.line_number}" if each.line_number is not None else ""),
                    each.state,
                    each.detail,
                )
                for each in found
            ],
            "If landing is right: metering rebuild --stage ledger --repair for this hour. If a file's rows are not, "
            "the file itself says what they were.",
        )


def _rollups(found: list[Any]) -> Iterator[Difference]:
    if found:
        yield Difference(
            "Ledger and contributions: buckets to which the hour contributed another amount",
            ("tenant, metric", "hour of usage, dimensions", "ledger", "contributed", "state"),
            [
                (
                    f"{each.tenant_id}\n{each.metric}",
                    f"{each.hour.astimezone(UTC):%Y-%m-%dT%H}\n{_dimensions(each.dimensions)}",
                    f"{each.ledger_count:,} events\n{each.ledger_sum:,f}",
                    f"{each.contributed_count:,} events\n{each.contributed_sum:,f}",
                    each.state,
                )
                for each in found
            ],
            "To mend: metering rebuild --stage rollups for this hour.",
        )


def _buckets(found: list[Any]) -> Iterator[Difference]:
    if found:
        contributed = [each for each in found if each.landed_from]
        landed = ""
        if contributed:
            first = min(each.landed_from for each in contributed).astimezone(UTC)
            last = max(each.landed_to for each in contributed).astimezone(UTC)
            landed = f" of the landing hours {first:%Y-%m-%dT%H} to {last:%Y-%m-%dT%H}"
        yield Difference(
            "Contributions, hourly and daily usage: buckets that are not what adds up to them",
            ("table", "tenant, metric", "hour, dimensions", "should be", "is", "state"),
            [
                (
                    each.table_name,
                    f"{each.tenant_id}\n{each.metric}",
                    (f"{each.hour.astimezone(UTC):%Y-%m-%dT%H}" if each.hour else "the day")
                    + f"\n{_dimensions(each.dimensions)}",
                    f"{each.wanted_count:,} events\n{each.wanted_sum:,f}",
                    f"{each.found_count:,} events\n{each.found_sum:,f}",
                    each.state,
                )
                for each in found
            ],
            f"To mend: metering rebuild --stage rollups{landed}.",
        )


def _charges(found: list[Any]) -> Iterator[Difference]:
    if found:
        yield Difference(
            "Hourly usage and rating: days that charges and reasons do not account for",
            ("tenant, metric", "day", "hourly", "rated or unrated", "by", "state"),
            [
                (
                    f"{each.tenant_id}\n{each.metric}",
                    str(each.day),
                    f"{each.hourly_count:,} events\n{each.hourly_sum:,f}",
                    f"{each.assigned_count:,} events\n{each.assigned_sum:,f}",
                    each.places or "nothing",
                    each.state,
                )
                for each in found
            ],
            "To mend: insert tenant, metric and day into rating.touched; the next run rates them anew.",
        )


_EXPLAINED: Mapping[str, Callable[[list[Any]], Iterator[Difference]]] = {
    "explain_landing_differences": _landing,
    "explain_rollup_differences": _rollups,
    "explain_bucket_differences": _buckets,
    "explain_charge_differences": _charges,
}
_LOOKED_AT = {
    "hour": ("explain_landing_differences", "explain_rollup_differences"),
    "day": ("explain_bucket_differences",),
    "month": ("explain_charge_differences",),
}
"""What to look at in a window, by its kind."""


def _end(kind: str, start: datetime) -> datetime:
    match kind:
        case "hour":
            return start + HOUR
        case "day":
            return start + DAY
    return (start + 31 * DAY).replace(day=1)


def _dimensions(dimensions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(dimensions.items()))
