"""Landing hours from the file to the rollups as Dagster runs them: so many runs, one after another or side by side.

The server is the embedded one as it is, with autovacuum: without it, successive hours become slower.
All files are there before the first run, so that the server has no rest between the runs. Runs that stand side by
side have a process each, as Dagster's daemon gives them, which has imported everything beforehand.
"""

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path

import dagster as dg
import psutil

from benchmarks import history, workload
from benchmarks.measure import Cost, Report, Run, cost_of
from benchmarks.workload import FIRST_DAY, HOUR
from metering_pipeline import settings
from metering_pipeline.definitions import defs
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.execution import QUIET, dagster_instance, run_job
from metering_pipeline.jobs import LANDING_TO_HOURLY
from metering_pipeline.partitions import HOUR_FORMAT, RANGE_END, RANGE_START, Window
from metering_pipeline.postgres import Database

STAGES = """
select schemas.nspname, sum(pg_total_relation_size(tables.oid))
from pg_class as tables
inner join pg_namespace as schemas on schemas.oid = tables.relnamespace
where schemas.nspname in ('landing', 'ledger', 'rollups') and tables.relkind = 'r'
group by schemas.nspname
order by schemas.nspname
"""

STEPS = {"landing__usage_events": "landing", "ledger": "ledger", "rollups": "rollups"}
"""The steps that write; the others are checks."""

READY_SECONDS = 300
"""So long the processes wait for each other; one that could not begin must not keep the others for ever."""


def measure_hours(
    report: Report,
    home: Path,
    events_per_day: int,
    hours: int,
    runs: int,
    at_once: int,
    apart: float,
) -> None:
    """Run so many consecutive landing hours in so many runs; the hour before, which is empty, is not measured.

    Apart: seconds between the starts of those that run at once.
    """
    server = EmbeddedServer(home)
    try:
        configured = settings.load()
        with dagster_instance() as instance:
            run_job(instance, "catalog")
        history.publish_catalog(history.owned(server))
        events = _write_hours(report, Path(configured.landing_root), events_per_day, hours)
        process = server.process()
        assert process is not None  # noqa: S101  (the instance was in it)
        whole = Window(FIRST_DAY, FIRST_DAY + hours * HOUR)
        by_hour = dict(zip(whole.starts(), events, strict=True))
        windows = {
            window: sum(by_hour[hour] for hour in window.starts()) for window in whole.cut(runs)
        }
        if at_once == 1:
            _begin()
            for window, count in windows.items():
                report.add_run(_run_alone(process, window, count))
        else:
            _side_by_side(report, process, windows, at_once, apart)
        report.disk = _disk(history.owned(server), sum(events))
    finally:
        server.stop()


def _run_alone(server: psutil.Process, window: Window, events: int) -> Run:
    """A run, at the cost of all that the server does meanwhile."""
    done: list[Run] = []
    cost = cost_of(server, lambda: done.append(_run(window, events)))
    [run] = done
    beside = run.steps["Dagster"] + cost.wall - run.cost.wall
    return replace(run, cost=cost, steps={**run.steps, "Dagster": beside})


def _side_by_side(
    report: Report,
    server: psutil.Process,
    windows: Mapping[Window, int],
    at_once: int,
    apart: float,
) -> None:
    """The runs, so many at a time. What the server does cannot be told apart: a run's CPU is its process's.

    Windows: with the records in each.
    """
    waits = [apart * number for number in range(at_once)]
    waits += [0.0] * (len(windows) - at_once)
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(at_once + 1, timeout=READY_SECONDS)
    with ProcessPoolExecutor(at_once, spawn, _begin, (ready,)) as pool:
        runs: list[Run] = []
        for _ in range(at_once):  # a task that finds nobody idle has a process made
            pool.submit(time.sleep, 0)
        ready.wait()
        cost = cost_of(
            server, lambda: runs.extend(pool.map(_run_after, waits, windows, windows.values()))
        )
    for run in runs:
        report.add_run(run)
    report.at_once = at_once
    report.all_runs = Cost(cost.wall, cost.cpu + sum(run.cost.cpu for run in runs))


def _write_hours(report: Report, root: Path, events_per_day: int, hours: int) -> list[int]:
    """A file an hour, with copies; the lines in each."""
    report.note(f"writing the files of {hours} hours")
    counts = []
    before = workload.hour_of_events(FIRST_DAY - HOUR, events_per_day // 24, seed=0)
    for number in range(hours):
        landed_hour = FIRST_DAY + number * HOUR
        hour = workload.hour_of_events(landed_hour, events_per_day // 24, seed=number + 1)
        events = workload.with_copies(hour, before, seed=number + 1)
        workload.write(events, root, landed_hour, "ndjson")
        counts.append(len(events))
        before = hour
    return counts


def _begin(ready: Barrier | None = None) -> None:
    """Run the hour before in this process, so that everything is imported; then wait for the others."""
    _run(Window(FIRST_DAY - HOUR, FIRST_DAY), 0)
    if ready is not None:
        ready.wait()


def _run_after(seconds: float, window: Window, events: int) -> Run:
    time.sleep(seconds)
    return _run(window, events)


def _run(window: Window, events: int) -> Run:
    """Run the window's hours, with the checks; its CPU is that of this process. Raises what a step raised."""
    first, last = window.start, window.end - HOUR
    cpu, started = time.process_time(), time.perf_counter()
    with dagster_instance() as instance:
        done = _landing_to_hourly().execute_in_process(
            instance=instance,
            tags={
                RANGE_START: first.strftime(HOUR_FORMAT),
                RANGE_END: last.strftime(HOUR_FORMAT),
            },
            run_config=QUIET,
        )
    cost = Cost(time.perf_counter() - started, time.process_time() - cpu)
    steps = dict.fromkeys([*STEPS.values(), "checks"], 0.0)
    for event in done.all_events:
        if event.is_step_success:
            step = STEPS.get(str(event.step_key), "checks")
            steps[step] += event.step_success_data.duration_ms / 1000
    return Run(events, cost, {**steps, "Dagster": cost.wall - sum(steps.values())})


def _disk(database: Database, events: int) -> Mapping[str, float]:
    """The bytes on disk an event, tables with their indexes, of each stage that keeps something of it."""
    with database.connect() as connection:
        return {
            stage: float(size) / events for stage, size in connection.execute(STAGES).fetchall()
        }


@cache
def _landing_to_hourly() -> dg.JobDefinition:
    """The schedule's job without what follows the hourly usage."""
    job = dg.define_asset_job("landing_to_hourly", LANDING_TO_HOURLY)
    return dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def(job.name)
