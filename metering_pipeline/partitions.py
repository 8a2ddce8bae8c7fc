"""Landing hours as Dagster partitions, and half-open windows of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.settings import HOUR, hour_of

HOUR_FORMAT = "%Y-%m-%dT%H"

PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
"""The tags by which Dagster says which partitions a run is for."""


class LandingHours(dg.HourlyPartitionsDefinition):
    """Hourly partitions that list their keys once an hour.

    A run asks for all of them again for each input of its steps and checks. Dagster walks through the
    hours by a cron schedule: with three years of hours that was two CPU seconds a run.
    """

    def get_partition_keys(
        self,
        current_time: datetime | None = None,
        dynamic_partitions_store: Any = None,
    ) -> Sequence[str]:
        if current_time is not None:
            return super().get_partition_keys(current_time, dynamic_partitions_store)
        last = self.get_last_partition_key()
        return _hours_from_to(self.start, settings.parse_hour(last)) if last else []


@lru_cache(maxsize=2)
def _hours_from_to(first: datetime, last: datetime) -> Sequence[str]:
    return [hour.strftime(HOUR_FORMAT) for hour in Window(first, last + HOUR).starts()]


_configured = settings.load()
_stands_at = _configured.clock

landing_hours = LandingHours(
    start_date=_configured.first_hour,
    end_date=hour_of(_stands_at) + HOUR if _stands_at else None,
    fmt=HOUR_FORMAT,
    end_offset=1,
)
"""One partition a landing hour, UTC, the one now running included. With a fixed clock they end where it stands: what has
not begun by it is not missing."""

billing_dates = dg.DailyPartitionsDefinition(start_date=_configured.first_hour.date().isoformat())
"""One partition a billing date, UTC. Issuing itself refuses one that has not ended, and says so."""

_overdue = timedelta(minutes=settings.load().overdue_minutes)
hourly_freshness = dg.FreshnessPolicy.time_window(
    warn_window=HOUR + _overdue, fail_window=2 * HOUR + 2 * _overdue
)
"""How old what is materialized every hour may be: Dagster's page shows whether it is."""


@dataclass(frozen=True)
class Window:
    """Landing hours from start up to, not including, end."""

    start: datetime
    end: datetime

    def days(self) -> Iterator["Window"]:
        """The window cut at UTC midnights, so that long work commits and reports day by day."""
        start = self.start
        while start < self.end:
            midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
            end = min(midnight + timedelta(days=1), self.end)
            yield Window(start, end)
            start = end

    def cut(self, parts: int) -> list["Window"]:
        """The window in at most so many parts of about as many hours."""
        starts = [*self.starts()]
        cuts = sorted(
            {self.start, *(starts[len(starts) * part // parts] for part in range(1, parts))}
        )
        return [Window(*each) for each in pairwise([*cuts, self.end])]

    def hours(self) -> Iterator["Window"]:
        """The window hour by hour."""
        for start in self.starts():
            yield Window(start, start + HOUR)

    def starts(self) -> Iterator[datetime]:
        """The hours' first instants."""
        start = self.start
        while start < self.end:
            yield start
            start += HOUR

    def __str__(self) -> str:
        last = self.end - HOUR
        if self.start == last:
            return self.start.strftime(HOUR_FORMAT)
        return f"{self.start.strftime(HOUR_FORMAT)} to {last.strftime(HOUR_FORMAT)}"


def run_window(context: dg.AssetExecutionContext) -> Window:
    """The landing hours that this step was asked for."""
    partitions = context.partition_time_window
    return Window(partitions.start, partitions.end)


def tagged_window(tags: Mapping[str, str]) -> Window | None:
    """The landing hours of a run with these tags; None for a run without partitions."""
    first = tags.get(PARTITION) or tags.get(RANGE_START)
    last = tags.get(PARTITION) or tags.get(RANGE_END)
    if first is None or last is None:
        return None
    return Window(settings.parse_hour(first), settings.parse_hour(last) + HOUR)
