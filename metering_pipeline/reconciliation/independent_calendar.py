"""The calendar of billing in plain Python, sharing no code with the rating models."""

from calendar import monthrange
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fractions import Fraction
from itertools import count

_MONTHS = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}
_DAYS = {"day": 1, "week": 7}


@dataclass(frozen=True)
class Calendar:
    """Boundaries of billing periods: the anchor plus k times the interval, in a zone's wall time."""

    zone: tzinfo
    anchor: datetime
    """Local wall time, without an offset."""
    billing_interval: str
    interval_count: int

    def period_around(self, instant: datetime) -> tuple[datetime, datetime]:
        """The full period that holds the instant, [start, end) in UTC."""
        number = self._number_before(instant)
        for later in count(number + 1):
            end = self._boundary(later)
            if end > instant:
                return self._boundary(later - 1), end
        raise AssertionError  # pragma: no cover  (count has no end)

    def periods(self, started_at: datetime, ended_at: datetime) -> list[tuple[datetime, datetime]]:
        """The periods of [started_at, ended_at), the first and the last cut by it."""
        periods = []
        while started_at < ended_at:
            end = min(self.period_around(started_at)[1], ended_at)
            periods.append((started_at, end))
            started_at = end
        return periods

    def share(self, start: datetime, end: datetime) -> Fraction:
        """The local days of a slice over those of the full period that it starts in; from 0 to 1."""
        full_start, full_end = self.period_around(start)
        days = Fraction(
            (self.local_day(end) - self.local_day(start)).days,
            (self.local_day(full_end) - self.local_day(full_start)).days,
        )
        return min(max(days, Fraction(0)), Fraction(1))

    def local_day(self, instant: datetime) -> date:
        """The calendar day of an instant in the zone."""
        return instant.astimezone(self.zone).date()

    def midnight(self, day: date) -> datetime:
        """When the day begins in the zone, in UTC."""
        return self._instant(datetime.combine(day, time()))

    def _number_before(self, instant: datetime) -> int:
        """The number of a boundary that is not after the instant, and not far before it."""
        local = instant.astimezone(self.zone)
        if self.billing_interval in _DAYS:
            apart = (local.date() - self.anchor.date()).days
            return apart // (_DAYS[self.billing_interval] * self.interval_count) - 2
        apart = (local.year - self.anchor.year) * 12 + local.month - self.anchor.month
        return apart // (_MONTHS[self.billing_interval] * self.interval_count) - 2

    def _boundary(self, number: int) -> datetime:
        if self.billing_interval in _DAYS:
            days = number * _DAYS[self.billing_interval] * self.interval_count
            return self._instant(self.anchor + timedelta(days=days))
        months = number * _MONTHS[self.billing_interval] * self.interval_count
        year, month = divmod(self.anchor.year * 12 + self.anchor.month - 1 + months, 12)
        day = min(self.anchor.day, monthrange(year, month + 1)[1])
        return self._instant(self.anchor.replace(year=year, month=month + 1, day=day))

    def _instant(self, wall: datetime) -> datetime:
        """A wall time that the clock shows twice is the first, one that it leaves out moves with it."""
        return wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)


def starts_a_slice(
    start: datetime,
    calendar: Calendar,
    started_at: datetime,
    trial_ends_at: datetime | None = None,
    cut_days: Collection[date] = (),
) -> bool:
    """Whether a charge may have a slice that starts at the instant.

    It does where the subscription or its trial lets charging begin, at each later boundary, and
    on each of the days on which a version takes effect at once.
    """
    charged_from = max(started_at, trial_ends_at or started_at)
    if start <= charged_from:
        return start == charged_from
    return start == calendar.period_around(start)[0] or any(
        start == calendar.midnight(day) for day in cut_days
    )
