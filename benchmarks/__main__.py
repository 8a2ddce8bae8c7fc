"""``python -m benchmarks``: what landing, ledger, rollups and reading cost, beside baselines in the same run.

Each size is a number of events a day and a day: the ledger then holds that many days of history, and the
last hour of that day is measured. README.md of this folder says what was measured, and how to repeat it.
A server of its own is started in a temporary folder and removed again.
"""

import os
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import psutil
from rich.console import Console

from benchmarks import baselines, workload
from benchmarks.measure import Cost, Result, cost_of, report
from benchmarks.workload import HOUR

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
FORMAT_HOUR = FIRST_DAY - HOUR
READS = 200
LEDGER_BYTES = 270
SINGLE_TABLE_BYTES = 340
"""A history row's bytes on disk with its index, to see beforehand whether it fits."""


@click.command()
@click.option("--events-per-day", default=1_000_000, show_default=True)
@click.option("--day", "days", type=int, multiple=True, default=(1, 30), show_default=True)
@click.option("--single-table-rows", default=10_000_000, show_default=True, help="0 leaves it out.")
@click.option(
    "--repeat", default=3, show_default=True, help="Times that a file is landed; the best counts."
)
def main(events_per_day: int, days: tuple[int, ...], single_table_rows: int, repeat: int) -> None:
    """Measure an hour of so many events a day, on each of the days."""
    console = Console(width=max(Console().width, 120))  # one line a step, in a file too
    wanted = events_per_day * max(days) * LEDGER_BYTES + single_table_rows * SINGLE_TABLE_BYTES
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if wanted > free * 0.9:
        raise click.UsageError(
            f"That takes about {wanted / 2**30:.0f} GiB in {tempfile.gettempdir()}, {free / 2**30:.0f} are free."
            " Choose an earlier --day, fewer --events-per-day, or another TMPDIR."
        )
    with tempfile.TemporaryDirectory(prefix="metering-bench-") as folder:
        Path(folder).chmod(0o755)
        os.environ |= {
            "METERING_HOME": folder,
            "METERING_FIRST_HOUR": "2025-12-25T00",
            "METERING_CLOCK": (FIRST_DAY + timedelta(days=max(days) + 1)).isoformat(),
        }
        bench = Bench(console, Path(folder), events_per_day)
        try:
            bench.measure_formats(repeat)
            for day in sorted(days):
                bench.measure_day(day)
            bench.measure_reading()
            if single_table_rows:
                bench.measure_single_table(single_table_rows)
        finally:
            bench.server.stop()
        report(console, bench.results)


class Bench:
    """A server with a history, and what was measured on it."""

    def __init__(self, console: Console, home: Path, events_per_day: int) -> None:
        import dagster as dg

        from metering_pipeline import settings
        from metering_pipeline.embedded_server import EmbeddedServer
        from metering_pipeline.execution import run_job
        from metering_pipeline.postgres import open_database

        self.console = console
        self.results: list[Result] = []
        self.events_per_day = events_per_day
        self.size = f"{events_per_day / 1e6:g}M a day"
        # Only what is measured shall run; after each filling statistics are made by hand.
        self.server = EmbeddedServer(home, {"autovacuum": "off"})
        self.server.start()
        self.settings = settings.load()
        self.root = Path(self.settings.landing_root)
        self.root.mkdir()
        self.database = open_database(self.settings)
        self.connection = self.database.connect(autocommit=True)
        with dg.DagsterInstance.ephemeral() as instance:
            run_job(instance, "catalog")
        self.filled_days = 0
        self.hour_before = self.make_hour(FORMAT_HOUR - HOUR)

    @property
    def process(self) -> psutil.Process:
        process = self.server.process()
        assert process is not None  # noqa: S101  (started above)
        return process

    def note(self, text: str) -> None:
        self.console.print(f"[dim]{datetime.now():%H:%M:%S}[/dim] {text}")  # noqa: DTZ005  (for the reader's watch)

    def make_hour(self, landed_hour: datetime) -> workload.Events:
        seed = int(landed_hour.timestamp())
        return workload.hour_of_events(landed_hour, self.events_per_day // 24, seed)

    def add(self, size: str, step: str, events: int, cost: Cost) -> None:
        self.results.append(Result(size, step, events, cost))
        self.note(f"{size}: {step}: {cost.wall:.2f} s, {cost.cpu:.2f} CPU s")

    # Landing

    def measure_formats(self, repeat: int) -> None:
        """The same hour in each format, landed again and again; the best time of each counts."""
        hour = self.make_hour(FORMAT_HOUR)
        events = workload.with_copies(hour, self.hour_before, seed=1)
        for kind in workload.FORMATS:
            path = workload.write(events, self.root, FORMAT_HOUR, kind)
            costs = [self.land_anew(FORMAT_HOUR) for _ in range(repeat)]
            best = min(costs, key=lambda cost: cost.wall)
            self.add(self.size, f"landing, {kind}", len(events), best)
            path.unlink()
        path = workload.write(events, self.root, FORMAT_HOUR, "ndjson")
        costs = []
        for _ in range(repeat):
            baselines.prepare_floor(self.connection)
            self.connection.execute("checkpoint")
            costs.append(cost_of(self.process, lambda: baselines.floor(self.database.url, path)))
        self.add(
            self.size,
            "floor: parse, COPY, hash, write",
            len(events),
            min(costs, key=lambda c: c.cpu),
        )
        path.unlink()
        self.forget_landing()

    def land_anew(self, landed_hour: datetime) -> Cost:
        self.forget_landing()
        self.connection.execute("checkpoint")
        return cost_of(self.process, lambda: self.land(landed_hour))

    def forget_landing(self) -> None:
        self.connection.execute(
            "truncate landing.usage_events, landing.rejected_events, landing.files cascade"
        )

    def land(self, landed_hour: datetime) -> None:
        from metering_pipeline.landing.store import land_hours

        url = self.database.url
        land_hours(url, self.settings, landed_hour, landed_hour, self.settings.now())

    # Ledger and rollups

    def measure_day(self, day: int) -> None:
        """Landing to rollups of the last hour of a day, with all days before it in the ledger."""
        self.fill_until(day)
        last = FIRST_DAY + timedelta(days=day) - HOUR
        size = f"{self.size}, day {day}"
        before, hour = self.make_hour(last - HOUR), self.make_hour(last)
        workload.write(before, self.root, last - HOUR, "ndjson")
        path = workload.write(
            workload.with_copies(hour, before, seed=day), self.root, last, "ndjson"
        )
        events = sum(1 for _ in path.open("rb"))
        self.land(last - HOUR)
        self.post(last - HOUR, "metering.ledger.usage_events")
        self.post(last - HOUR, "usage_contributions", "usage_hourly")
        self.connection.execute("analyze")
        self.connection.execute("checkpoint")
        landing = cost_of(self.process, lambda: self.land(last))
        ledger = cost_of(self.process, lambda: self.post(last, "metering.ledger.usage_events"))
        rollups = cost_of(
            self.process, lambda: self.post(last, "usage_contributions", "usage_hourly")
        )
        again = cost_of(self.process, lambda: self.post(last, "metering.ledger.usage_events"))
        self.add(size, "landing, ndjson", events, landing)
        self.add(size, "ledger", events, ledger)
        both = Cost(landing.wall + ledger.wall, landing.cpu + ledger.cpu)
        self.add(size, "file to ledger", events, both)
        self.add(size, "contributions and hourly", events, rollups)
        self.add(size, "ledger, the same hour again", events, again)

    def fill_until(self, day: int) -> None:
        """Fill the ledger's days before the last two hours of the given day."""
        for number in range(self.filled_days, day):
            start = FIRST_DAY + timedelta(days=number)
            self.note(f"filling day {number + 1} of {day}")
            hours = 22 if number == day - 1 else 24
            count = self.events_per_day * hours // 24
            self.connection.execute(_ENSURE, {"day": start.date()})
            self.connection.execute(
                _HISTORY,
                {
                    "start": start,
                    "first": number * self.events_per_day,
                    "last": number * self.events_per_day + count - 1,
                    "seconds_apart": 86_400 / self.events_per_day,
                },
            )
        self.filled_days = day
        self.connection.execute("vacuum (analyze) ledger.usage_events")

    def post(self, landed_hour: datetime, *models: str) -> None:
        from metering_pipeline.partitions import Window
        from metering_pipeline.transform.dbt import run_dbt

        run_dbt(self.database, "run", models, Window(landed_hour, landed_hour + HOUR))

    # Reading

    def measure_reading(self) -> None:
        """What an analyst asks most, from the rollups and from the ledger."""
        self.post(FIRST_DAY, "usage_daily")
        self.connection.execute("vacuum analyze")
        for step, query, times in READINGS:
            started = time.process_time()
            walls = []
            for _ in range(times):
                begun = time.perf_counter()
                self.connection.execute(query.encode()).fetchall()
                walls.append(time.perf_counter() - begun)
            spent = time.process_time() - started
            self.add(self.size, step, 1, Cost(statistics.median(walls), spent / times))

    # The usual design

    def measure_single_table(self, rows: int) -> None:
        """The hour's file into a single table that holds so many rows already."""
        self.note(f"filling the single table with {rows:,} rows")
        baselines.prepare_single_table(
            self.connection, FIRST_DAY, rows, 86_400 / self.events_per_day
        )
        self.connection.execute("vacuum (analyze) single_ledger")
        hour = FIRST_DAY + timedelta(days=40)
        events = workload.with_copies(self.make_hour(hour), self.make_hour(hour - HOUR), seed=2)
        path = workload.write(events, self.root.parent, hour, "ndjson")
        self.connection.execute("checkpoint")
        cost = cost_of(self.process, lambda: baselines.single_table(self.connection, path))
        self.add(
            f"{self.size}, {rows / 1e6:g}M rows", "single table, file to ledger", len(events), cost
        )


_ENSURE = "select catalog.ensure_day_partitions('ledger', 'usage_events', array[%(day)s::date])"

_HISTORY = """
insert into ledger.usage_events
select
    'tenant-' || lpad((event %% 1200)::text, 4, '0'),
    'api.request',
    %(start)s::timestamptz + (event - %(first)s) * %(seconds_apart)s * interval '1 second',
    md5(event::text)::uuid::text,
    md5(event::text)::uuid,
    md5('payload' || event)::uuid,
    event %% 100000,
    '{"model": "small", "region": "eu-west-1", "tokens": 1234}',
    date_bin(
        '1 hour', %(start)s::timestamptz + (event - %(first)s) * %(seconds_apart)s * interval '1 second', '2000-01-01Z'
    ),
    0,
    event,
    %(start)s
from generate_series(%(first)s::bigint, %(last)s::bigint) as event
"""

READINGS = [
    (
        "read a tenant's month by day",
        "select day, sum(value_sum) from rollups.usage_daily where tenant_id = 'tenant-0001'"
        " and metric = 'requests' and day between '2026-01-01' and '2026-01-31' group by day",
        READS,
    ),
    (
        "read a tenant's day by hour",
        "select hour, metric, sum(value_sum) from rollups.usage_hourly where tenant_id = 'tenant-0001'"
        " and hour >= '2026-01-01 00:00+00' and hour < '2026-01-02 00:00+00' group by hour, metric",
        READS,
    ),
    (
        "the same from the ledger, a scan",
        "select date_bin('1 hour', occurred_at, '2000-01-01 00:00+00'), count(*) from ledger.usage_events"
        " where tenant_id = 'tenant-0001' and occurred_at >= '2026-01-01 00:00+00'"
        " and occurred_at < '2026-01-02 00:00+00' group by 1",
        3,
    ),
]


if __name__ == "__main__":
    main()
