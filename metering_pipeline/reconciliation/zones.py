"""The clock rules of time zones as PostgreSQL knows them: periods were cut by these.

Python's own rules come with the machine or a package, and need not be of the same release.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import psycopg

from metering_pipeline.reconciliation.statements import rows

PACKAGE = "metering_pipeline.reconciliation"
FIRST_YEAR, LAST_YEAR = 2000, 2060
"""Years whose rules are read; before and after the nearest offset holds."""


class Zone(tzinfo):
    """A zone by its offsets, each from an instant on; the first also before it. Instants ascend."""

    def __init__(self, name: str, offsets: Sequence[tuple[datetime, timedelta]]) -> None:
        self._name = name
        self._starts = [start.astimezone(UTC).replace(tzinfo=None) for start, _ in offsets]
        self._offsets = [offset for _, offset in offsets]

    def fromutc(self, dt: datetime) -> datetime:
        instant = dt.replace(tzinfo=None)
        number = self._number_at(instant)
        wall = instant + self._offsets[number]
        # The second time that the clock shows it, if it went back to it.
        again = number > 0 and wall - self._offsets[number - 1] < self._starts[number]
        return wall.replace(tzinfo=self, fold=int(again))

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """Of a wall time; one that comes twice, or never, by its fold: the offset before, or after."""
        if dt is None:
            return None
        wall = dt.replace(tzinfo=None, fold=0)
        before = max(self._number_at(wall - timedelta(days=1)), 0)
        after = self._number_at(wall + timedelta(days=1))
        for number in range(before, after):
            later, earlier = self._offsets[number + 1], self._offsets[number]
            changes_at = self._starts[number + 1] + (min if dt.fold else max)(earlier, later)
            if wall < changes_at:
                return earlier
        return self._offsets[after]

    def dst(self, dt: datetime | None) -> timedelta | None:
        return None

    def tzname(self, dt: datetime | None) -> str:
        return self._name

    def _number_at(self, instant: datetime) -> int:
        return max(bisect_right(self._starts, instant) - 1, 0)


def read_zones(connection: psycopg.Connection, names: Collection[str]) -> Mapping[str, Zone]:
    """The zones of these names, by the rules of the connection's server."""
    parameters = {
        "names": sorted(names),
        "starts_at": datetime(FIRST_YEAR, 1, 1, tzinfo=UTC),
        "ends_at": datetime(LAST_YEAR, 1, 1, tzinfo=UTC),
    }
    offsets: defaultdict[str, list[tuple[datetime, timedelta]]] = defaultdict(list)
    for row in rows(connection, PACKAGE, "zone_offsets", parameters):
        offsets[row.name].append((row.starts_at, row.utc_offset))
    return {name: Zone(name, known) for name, known in offsets.items()}
