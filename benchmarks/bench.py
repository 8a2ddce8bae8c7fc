"""A server with a history, and what is measured on it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import dagster as dg
import psutil

from benchmarks import baselines, history, reading, workload
from benchmarks.measure import Cost, Ratio, Report, Result, cost_of
from benchmarks.workload import FIRST_DAY, HOUR
from metering_pipeline import settings
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.execution import run_job
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import open_database
from metering_pipeline.transform.dbt import run_dbt
from metering_pipeline.transform.posting import LEDGER

FORMAT_HOUR = FIRST_DAY - HOUR
PENDING_EVENTS = 1_000
"""Events that are posted and not rolled up while the real-time view is read."""


class Bench:
    """Its database has the catalog, and as many days as were filled."""

    def __init__(self, report: Report, home: Path, events_per_day: int) -> None:
        self.report = report
        self.events_per_day = events_per_day
        self.size = f"{events_per_day / 1e6:g}M a day"
        # Only what is measured shall run; after each filling statistics are made by hand.
        self.server = EmbeddedServer(home, {"autovacuum": "off"})
        self.server.start()
        self.settings = settings.load()
        self.root = Path(self.settings.landing_root)
        self.root.mkdir()
        self.database = open_database(self.settings)
        self.owned = history.owned(self.server)
        self.connection = self.owned.connect(autocommit=True)
        with dg.DagsterInstance.ephemeral() as instance:
            run_job(instance, "catalog")
        history.publish_catalog(self.owned)
        self.filled_days = 0
        self.hour_before = self.make_hour(FORMAT_HOUR - HOUR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.stop()

    @property
    def process(self) -> psutil.Process:
        process = self.server.process()
        assert process is not None  # noqa: S101  (started above)
        return process

    def make_hour(self, landed_hour: datetime) -> workload.Events:
        seed = int(landed_hour.timestamp())
        return workload.hour_of_events(landed_hour, self.events_per_day // 24, seed)

    def measure_all(
        self, days: tuple[int, ...], single_table_rows: int, repeat: int, late: tuple[int, ...]
    ) -> None:
        """An hour from each format, an hour of each day with all that follows, and the single table."""
        self.measure_formats(repeat)
        for day in sorted(days):
            self.measure_day(day)
            self.measure_late(day, late)
            self.measure_reading(day)
        if single_table_rows:
            self.measure_single_table(single_table_rows)

    # Landing

    def measure_formats(self, repeat: int) -> None:
        """The same hour in each format, landed again and again; the best time of each counts."""
        hour = self.make_hour(FORMAT_HOUR)
        events = workload.with_copies(hour, self.hour_before, seed=1)
        for kind in workload.FORMATS:
            path = workload.write(events, self.root, FORMAT_HOUR, kind)
            costs = [self.land_anew(FORMAT_HOUR) for _ in range(repeat)]
            best = min(costs, key=lambda cost: cost.wall)
            self.report.add(self.size, f"landing, {kind}", len(events), best)
            path.unlink()
        path = workload.write(events, self.root, FORMAT_HOUR, "ndjson")
        costs = []
        for _ in range(repeat):
            baselines.prepare_floor(self.connection)
            self.connection.execute("checkpoint")
            costs.append(cost_of(self.process, lambda: baselines.floor(self.owned.url, path)))
        best = min(costs, key=lambda cost: cost.cpu)
        self.report.add(self.size, "floor: parse, COPY, hash, write", len(events), best)
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
        url = self.database.url
        land_hours(url, self.settings, landed_hour, landed_hour, self.settings.now())

    # Ledger and rollups

    def measure_day(self, day: int) -> None:
        """Landing to rollups of the last hour of a day, with all days before it in the ledger."""
        self.fill_until(day)
        last = FIRST_DAY + timedelta(days=day) - HOUR
        before, hour = self.make_hour(last - HOUR), self.make_hour(last)
        workload.write(before, self.root, last - HOUR, "ndjson")
        events = workload.with_copies(hour, before, seed=day)
        workload.write(events, self.root, last, "ndjson")
        self.land(last - HOUR)
        self.post(last - HOUR, LEDGER)
        self.post(last - HOUR, *history.ROLLUPS, "usage_daily")
        self.settle()
        landing = cost_of(self.process, lambda: self.land(last))
        ledger = cost_of(self.process, lambda: self.post(last, LEDGER))
        rollups = cost_of(self.process, lambda: self.post(last, *history.ROLLUPS))
        daily = cost_of(self.process, lambda: self.post(last, "usage_daily"))
        again = cost_of(self.process, lambda: self.post(last, LEDGER))
        for step, cost in (
            ("landing, ndjson", landing),
            ("ledger", ledger),
            ("file to ledger", landing + ledger),
            ("contributions and hourly", rollups),
            ("file to rollup", landing + ledger + rollups),
            ("daily", daily),
            ("ledger, the same hour again", again),
        ):
            self.report.add(self.sized(day), step, len(events), cost)

    def measure_late(self, day: int, batches: tuple[int, ...]) -> None:
        """Late batches, each in a landing hour of its own after the day, beside a rebuild of the lookback."""
        end = FIRST_DAY + timedelta(days=day)
        late = [
            self.measure_batch(day, end + hours * HOUR, count)
            for hours, count in enumerate(batches, start=1)
        ]
        self.settle()
        start = end - timedelta(hours=self.settings.lookback_hours)
        events, cost = baselines.window_rebuild(self.connection, self.process, start, end)
        rebuilt = self.report.add(self.sized(day), "rebuild of the lookback window", events, cost)
        self.report.ratios += [Ratio(rebuilt, each) for each in late]

    def measure_batch(self, day: int, landed_hour: datetime, count: int) -> Result:
        """A late batch from the file to the rollups; what rolling it up cost."""
        self.write_late(landed_hour, count)
        self.settle()
        landing = cost_of(self.process, lambda: self.land(landed_hour))
        ledger = cost_of(self.process, lambda: self.post(landed_hour, LEDGER))
        rollups = cost_of(self.process, lambda: self.post(landed_hour, *history.ROLLUPS))
        size, name = self.sized(day), f"{count:,} late events"
        rolled_up = self.report.add(size, f"{name}: contributions and hourly", count, rollups)
        self.report.add(size, f"{name}: file to rollup", count, landing + ledger + rollups)
        return rolled_up

    def write_late(self, landed_hour: datetime, count: int) -> None:
        events = workload.late_events(landed_hour, count, seed=count)
        workload.write(events, self.root, landed_hour, "ndjson")

    def fill_until(self, day: int) -> None:
        """Fill the days before the last two hours of the given day."""
        for number in range(self.filled_days, day):
            self.report.note(f"filling day {number + 1} of {day}")
            start = FIRST_DAY + timedelta(days=number)
            hours = 22 if number == day - 1 else 24
            count = self.events_per_day * hours // 24
            window = Window(start, start + hours * HOUR)
            history.fill(
                self.database, self.connection, number * self.events_per_day, count, window
            )
        self.filled_days = day
        self.connection.execute("vacuum (analyze)")

    def settle(self) -> None:
        """Statistics, and a checkpoint, so that what follows pays its full page images."""
        self.connection.execute("analyze")
        self.connection.execute("checkpoint")

    def post(self, landed_hour: datetime, *models: str) -> None:
        run_dbt(self.database, "run", models, Window(landed_hour, landed_hour + HOUR))

    def sized(self, day: int) -> str:
        return f"{self.size}, day {day}"

    # Reading

    def measure_reading(self, day: int) -> None:
        """What an analyst asks most, from the rollups and from the ledger, while a small hour is pending."""
        hour = FIRST_DAY + timedelta(days=day)
        self.post(hour, "usage_daily")  # nothing else is owed
        self.write_late(hour, PENDING_EVENTS)
        self.land(hour)
        self.post(hour, LEDGER)
        self.connection.execute("vacuum (analyze)")
        reading.measure(self.report, self.process, self.connection, self.sized(day), day)

    # The usual design

    def measure_single_table(self, rows: int) -> None:
        """The hour's file into a single table that holds so many rows already."""
        hour = FIRST_DAY + timedelta(days=40)
        events = workload.with_copies(self.make_hour(hour), self.make_hour(hour - HOUR), seed=2)
        path = workload.write(events, self.root.parent, hour, "ndjson")
        self.add_single_table(rows, "single table, file to ledger", len(events), [path])

    def add_single_table(self, rows: int, step: str, events: int, paths: list[Path]) -> Result:
        """Fill the single table with so many rows, and measure the files one after another into it."""
        self.report.note(f"filling the single table with {rows:,} rows")
        baselines.prepare_single_table(
            self.connection, FIRST_DAY, rows, 86_400 / self.events_per_day
        )
        self.connection.execute("vacuum (analyze) single_ledger")
        self.connection.execute("checkpoint")

        def insert() -> None:
            for path in paths:
                baselines.single_table(self.connection, path)

        size = f"{self.size}, {rows / 1e6:g}M rows"
        return self.report.add(size, step, events, cost_of(self.process, insert))

    # Hour after hour

    def measure_in_a_row(self, day: int, count: int, single_table_rows: int) -> None:
        """So many hours one after another, the next landed while the last is posted; beside the single table."""
        self.fill_until(day)
        first = FIRST_DAY + timedelta(days=day) - 2 * HOUR
        before = self.make_hour(first)
        workload.write(before, self.root, first, "ndjson")
        self.land(first)
        self.post(first, LEDGER)
        hours = [first + number * HOUR for number in range(1, count + 1)]
        paths, written = [], 0
        for hour in hours:
            its_own = self.make_hour(hour)
            events = workload.with_copies(its_own, before, seed=hour.hour)
            paths.append(workload.write(events, self.root, hour, "ndjson"))
            before, written = its_own, written + len(events)
        self.settle()
        step = f"{count} hours in a row, file to ledger"
        cost = cost_of(self.process, lambda: self.land_and_post(hours))
        self.check_posted(hours)
        ours = self.report.add(self.sized(day), step, written, cost)
        if single_table_rows:
            single = self.add_single_table(
                single_table_rows, f"single table, {step}", written, paths
            )
            self.report.ratios.append(Ratio(single, ours))

    def check_posted(self, hours: list[datetime]) -> None:
        """Raises RuntimeError if an hour was not: then something else was measured."""
        query = "select count(*) from landing.hours where landed_hour = any(%s) and posted_at is not null"
        row = self.connection.execute(query, (hours,)).fetchone()
        if row != (len(hours),):
            raise RuntimeError(f"of {len(hours)} hours so many were posted: {row}")

    def land_and_post(self, hours: list[datetime]) -> None:
        with ThreadPoolExecutor(1) as lander:
            landings = [lander.submit(self.land, hour) for hour in hours]
            for hour, landing in zip(hours, landings, strict=True):
                landing.result()
                self.post(hour, LEDGER)
