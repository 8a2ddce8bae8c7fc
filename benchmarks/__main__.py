"""``python -m benchmarks``: what landing, ledger, rollups and reading cost, beside baselines in the same run.

Each size is a number of events a day and a day: the database then holds that many days of history, and the
last hour of that day is measured. README.md of this folder says what was measured, and how to repeat it.
A server of its own is started in a temporary folder and removed again.
"""

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Console

from benchmarks import workload
from benchmarks.measure import Report
from benchmarks.workload import FIRST_DAY

EVENT_BYTES = 300
"""A history event's bytes on disk, in the ledger with its index and, late, in the contributions."""

BUCKET_BYTES = 900
"""A tenant's, metric's and hour's bytes on disk, in the rollups with their indexes."""

LANDED_BYTES = 900
"""The same of an event that lands: its line in the file, its row in landing, and in the ledger."""

SINGLE_TABLE_BYTES = 340
"""A row's bytes on disk with its index: all these say beforehand whether it fits."""

BUCKETS_A_DAY = workload.TENANTS * workload.BUCKETS_A_TENANT_HOUR * 24


@click.command()
@click.option("--events-per-day", default=1_000_000, show_default=True)
@click.option("--day", "days", type=int, multiple=True, default=(1, 30), show_default=True)
@click.option("--single-table-rows", default=10_000_000, show_default=True, help="0 leaves it out.")
@click.option(
    "--repeat", default=3, show_default=True, help="Times that a file is landed; the best counts."
)
@click.option(
    "--late",
    type=int,
    multiple=True,
    default=(1_000, 100_000),
    show_default=True,
    help="Events of a late batch over 48 past hours.",
)
@click.option(
    "--in-a-row",
    type=click.IntRange(1, 24),
    help="Measure, instead of the rest, so many hours from file to ledger, the next landed while the last is posted.",
)
@click.option(
    "--through-dagster",
    "hours",
    default=0,
    show_default=True,
    help="Measure, instead of the rest, so many hours from file to rollup as Dagster runs.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    help="With --through-dagster: the hours in so many runs; without it a run an hour. 1 is a backfill.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --through-dagster: so many of the runs side by side, each in a process of its own.",
)
@click.option(
    "--apart",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="With --at-once: seconds between the first starts.",
)
@click.option(
    "--rating",
    "subscriptions",
    type=int,
    multiple=True,
    help="Measure, instead of the rest, rating and drafting the month of so many subscriptions.",
)
def main(
    events_per_day: int,
    days: tuple[int, ...],
    single_table_rows: int,
    repeat: int,
    late: tuple[int, ...],
    in_a_row: int | None,
    hours: int,
    runs: int | None,
    at_once: int,
    apart: float,
    subscriptions: tuple[int, ...],
) -> None:
    """Measure an hour of so many events a day, on each of the days."""
    console = Console(width=max(Console().width, 150))  # one line a step, in a file too
    wanted = max(days) * (events_per_day * EVENT_BYTES + BUCKETS_A_DAY * BUCKET_BYTES)
    wanted += single_table_rows * SINGLE_TABLE_BYTES
    wanted += (in_a_row or 0) * events_per_day * (LANDED_BYTES + SINGLE_TABLE_BYTES) // 24
    if hours:
        wanted = (events_per_day * LANDED_BYTES + BUCKETS_A_DAY * BUCKET_BYTES) * hours // 24
    _check_disk(wanted)
    report = Report(console)
    for count in subscriptions:
        _measure_rating(report, count)
    if subscriptions:
        report.print()
        return
    with tempfile.TemporaryDirectory(prefix="metering-bench-") as folder:
        Path(folder).chmod(0o755)
        end = timedelta(hours=hours) if hours else timedelta(days=max(days))
        os.environ |= {
            "METERING_HOME": folder,
            "METERING_FIRST_HOUR": "2025-12-25T00",
            "METERING_CLOCK": (FIRST_DAY + end + timedelta(days=1)).isoformat(),
        }
        if hours:
            # reads the settings of the environment
            from benchmarks.through_dagster import measure_hours

            measure_hours(
                report, Path(folder), events_per_day, hours, runs or hours, at_once, apart
            )
        else:
            from benchmarks.bench import Bench  # reads the settings of the environment

            with Bench(report, Path(folder), events_per_day) as bench:
                if in_a_row:
                    bench.measure_in_a_row(max(days), in_a_row, single_table_rows)
                else:
                    bench.measure_all(days, single_table_rows, repeat, late)
    report.print()


def _check_disk(wanted: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if wanted > free * 0.9:
        raise click.UsageError(
            f"That takes about {wanted / 2**30:.0f} GiB in {tempfile.gettempdir()}, {free / 2**30:.0f} are free."
            " Choose an earlier --day, fewer --events-per-day, or another TMPDIR."
        )


def _measure_rating(report: Report, subscriptions: int) -> None:
    with tempfile.TemporaryDirectory(prefix="metering-bench-") as folder:
        Path(folder).chmod(0o755)
        os.environ |= {
            "METERING_HOME": folder,
            "METERING_FIRST_HOUR": "2025-12-25T00",
            "METERING_CLOCK": (FIRST_DAY + timedelta(days=35)).isoformat(),
        }
        from benchmarks.rating import measure_rating  # reads the settings of the environment

        measure_rating(report, Path(folder), subscriptions)


if __name__ == "__main__":
    main()
