"""A month of landing hours as one Dagster run, and hour by hour as the schedule takes them: the same rows."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from metering_pipeline import settings
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.sources import Source
from metering_pipeline.landing.store import Store
from metering_pipeline.partitions import Window
from metering_pipeline.settings import END_OF_TIME, HOUR
from metering_pipeline.transform.posting import RATING
from tests.soak.posting import DAILY, LEDGER, ROLLUPS, RecordedModels
from tests.soak.rows import snapshot
from tests.soak.servers import Place, own_server

DAY = date(2026, 1, 1)
Progress = Callable[[str], None]


def compare(hours: int, events: int, folder: Path, progress: Progress) -> str:
    """Let sample events land in each of so many hours, run them both ways, compare; what was seen.

    Raises AssertionError for the first table that differs.
    """
    first = datetime.combine(DAY, datetime.min.time(), UTC)
    last = first + (hours - 1) * HOUR
    os.environ |= {
        "METERING_LANDING_URL": str(folder),
        "METERING_FIRST_HOUR": f"{first:%Y-%m-%dT%H}",
        "METERING_CLOCK": (last + 100 * HOUR).isoformat(),
    }
    from metering_pipeline.generate import generate  # reads the settings of the environment

    totals = generate(folder, DAY, -(-hours // 24), range(24), events=events, seed=1)
    with _finished() as (place, found):
        from metering_pipeline.execution import dagster_instance, run_hours

        started = time.monotonic()
        with dagster_instance() as instance:
            run_hours(instance, first, last)
        took = time.monotonic() - started
        progress(f"{hours} hours as one run")
    as_one = found[0]
    with _finished() as (place, found):
        _one_by_one(place, first, hours, progress)
    one_by_one = found[0]
    assert as_one.keys() == one_by_one.keys()
    for table, rows in as_one.items():
        only = [*(one_by_one[table] - rows), *(rows - one_by_one[table])]
        assert not only, (
            f"{table}: {only[0]} is not in both, and so are {len(only) - 1} further rows"
        )
    return (
        f"{totals.lines:,} records in {hours} landing hours, as one run of {took:.0f} s and hour by hour: the same"
        f" {sum(rows.total() for rows in as_one.values()):,} rows in {len(as_one)} tables"
    )


@contextmanager
def _finished() -> Iterator[tuple[Place, list[dict[str, Counter[str]]]]]:
    """A server of its own, with the catalog; afterwards late usage is rolled up, all is rated, and the list has the rows."""
    from tests.conftest import CARELESS

    found: list[dict[str, Counter[str]]] = []
    with own_server(CARELESS) as place:
        os.environ["METERING_DAGSTER_DATABASE_URL"] = place.database.dagster_url
        from metering_pipeline.execution import dagster_instance, run_job

        with dagster_instance() as instance:
            run_job(instance, "catalog")
            yield place, found
            run_job(instance, "late_arrivals")
        with place.database.connect() as connection:
            found.append(snapshot(connection))


def _one_by_one(place: Place, first: datetime, hours: int, progress: Progress) -> None:
    """What an hourly run does, without Dagster and dbt around it."""
    configured = settings.load()
    post = RecordedModels(place.database)
    with (
        closing(post),
        Store(place.database.url, configured, Source(configured.landing_root)) as store,
    ):
        for number in range(hours):
            hour = first + number * HOUR
            store.land_hour(hour, configured.now())
            post([LEDGER], Window(hour, hour + HOUR))
            post([*ROLLUPS, DAILY], Window(hour, END_OF_TIME))
            if number % 24 == 23:
                list_hours(place.database.url, configured, configured.now())
                post(RATING, Window(hour, END_OF_TIME))
            progress(f"hour {number + 1} of {hours}")
