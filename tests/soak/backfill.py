"""A month of landing hours as one run, and hour by hour as the schedule runs them: the same rows."""

import os
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tests.soak.rows import snapshot
from tests.soak.servers import own_server

DAY = date(2026, 1, 1)
HOUR = timedelta(hours=1)


def compare(hours: int, events: int, folder: Path, progress: Callable[[str], None]) -> str:
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
    as_one, one_took = _run([(first, last)], progress)
    singly = [(first + number * HOUR, first + number * HOUR) for number in range(hours)]
    one_by_one, each_took = _run(singly, progress)
    assert as_one.keys() == one_by_one.keys()
    for table, rows in as_one.items():
        assert one_by_one[table] == rows, f"{table} differs"
    count = sum(rows.total() for rows in as_one.values())
    return (
        f"{hours} landing hours of {totals.lines:,} records: as one run in {one_took:.0f} s, hour by hour in"
        f" {each_took:.0f} s; the same {count:,} rows in {len(as_one)} tables"
    )


def _run(
    runs: list[tuple[datetime, datetime]], progress: Callable[[str], None]
) -> tuple[dict[str, Counter[str]], float]:
    """The rows after these runs, late arrivals included, on a server of their own; and the seconds it took."""
    from tests.conftest import CARELESS

    with own_server(CARELESS) as place:
        os.environ["METERING_DAGSTER_DATABASE_URL"] = place.database.dagster_url
        from metering_pipeline.execution import dagster_instance, run_hours, run_job

        with dagster_instance() as instance:
            run_job(instance, "catalog")
            started = time.monotonic()
            for number, (first, last) in enumerate(runs, start=1):
                run_hours(instance, first, last)
                progress(f"run {number} of {len(runs)}")
            run_job(instance, "late_arrivals")
            took = time.monotonic() - started
        with place.database.connect() as connection:
            return snapshot(connection), took
