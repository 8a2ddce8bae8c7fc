"""Landing hours from the file to the rollups as Dagster runs them, one hour a run or all in one run, in one process.

The server is the embedded one as it is, with autovacuum: without it, successive hours become slower.
All files are there before the first run, so that the server has no rest between the runs.
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import psutil

from benchmarks import history, workload
from benchmarks.measure import Report, Run, cost_of
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


def measure_hours(
    report: Report, home: Path, events_per_day: int, hours: int, *, as_one_run: bool
) -> None:
    """Run so many consecutive landing hours; the hour before, which is empty, is not measured."""
    server = EmbeddedServer(home)
    try:
        configured = settings.load()
        with dagster_instance() as instance:
            run_job(instance, "catalog")
            history.publish_catalog(history.owned(server))
            events = _write_hours(report, Path(configured.landing_root), events_per_day, hours)
            process = server.process()
            assert process is not None  # noqa: S101  (the instance is in it)
            job = _landing_to_hourly()
            _run(job, instance, process, Window(FIRST_DAY - HOUR, FIRST_DAY), 0)
            window = Window(FIRST_DAY, FIRST_DAY + hours * HOUR)
            if as_one_run:
                report.add_run(_run(job, instance, process, window, sum(events)))
            else:
                for hour, count in zip(window.hours(), events, strict=True):
                    report.add_run(_run(job, instance, process, hour, count))
            report.disk = _disk(history.owned(server), sum(events))
    finally:
        server.stop()


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


def _run(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    server: psutil.Process,
    window: Window,
    events: int,
) -> Run:
    """Run the window's hours, with the checks. Raises what a step raised."""
    first, last = window.start, window.end - HOUR
    done: list[dg.ExecuteInProcessResult] = []
    cost = cost_of(
        server,
        lambda: done.append(
            job.execute_in_process(
                instance=instance,
                tags={
                    RANGE_START: first.strftime(HOUR_FORMAT),
                    RANGE_END: last.strftime(HOUR_FORMAT),
                },
                run_config=QUIET,
            )
        ),
    )
    steps = dict.fromkeys([*STEPS.values(), "checks"], 0.0)
    for event in done[0].all_events:
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


def _landing_to_hourly() -> dg.JobDefinition:
    """The schedule's job without what follows the hourly usage."""
    job = dg.define_asset_job("landing_to_hourly", LANDING_TO_HOURLY)
    return dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def(job.name)
