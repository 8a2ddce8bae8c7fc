"""Runs of the pipeline through Dagster in this process: one run for whatever range is asked for."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError
from metering_pipeline.partitions import HOUR_FORMAT, RANGE_END, RANGE_START
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import PROJECT_ROOT
from metering_pipeline.transform.dbt import seeds_digest

EVENT_BATCH_SIZE = "1000"
"""Dagster writes a planned and a materialized event per asset and partition; one by one, a month of
hours would spend most of its time there."""


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The run's log is in Dagster's event log; the terminal gets progress and, in the end, what failed."""

STATEMENT_TIMEOUT_MS = 600_000
"""Longest statement on Dagster's own tables."""


class RunFailed(MeteringError):
    """A Dagster run that did not succeed; the message names the steps and what went wrong in them."""


def prepare_dagster(database: Database, home: Path) -> None:
    """Point this process, and those it starts, at the home's Dagster instance."""
    dagster_home = home.resolve() / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT_ROOT / "dagster.yaml", dagster_home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ["DAGSTER_POSTGRES_URL"] = database.dagster_url
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE)


@contextmanager
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """The home's Dagster instance, its storage in PostgreSQL."""
    configured = settings.load()
    prepare_dagster(open_database(configured), configured.home)
    with dg.DagsterInstance.get() as instance:
        # connections kept open: without, Dagster opens two or three anew for each event it stores
        instance.optimize_for_webserver(
            statement_timeout=STATEMENT_TIMEOUT_MS, pool_recycle=3600, max_overflow=10
        )
        yield instance


def catalog_has_changed(database: Database) -> bool:
    """Whether the catalog's seeds differ from what was published last."""
    with database.connect() as connection:
        published = connection.execute(
            "select value from catalog.settings where name = 'seeds_sha256'"
        ).fetchone()
    return published is None or published[0] != seeds_digest()


def publish_catalog_if_changed(instance: dg.DagsterInstance) -> bool:
    """Publish the catalog if its seeds differ from what was published last; whether they did."""
    if not catalog_has_changed(open_database(settings.load())):
        return False
    run_job(instance, "catalog")
    return True


def run_hours(instance: dg.DagsterInstance, first: datetime, last: datetime) -> None:
    """Materialize the landing hours from first to last (inclusive), landing to drafts, as one run."""
    tags = {RANGE_START: first.strftime(HOUR_FORMAT), RANGE_END: last.strftime(HOUR_FORMAT)}
    run_job(instance, "hourly", tags)


def run_billing(instance: dg.DagsterInstance, billing_date: date) -> None:
    """Draw up the drafts and issue what is due by the end of the billing date, as one run."""
    day = billing_date.isoformat()
    run_job(instance, "billing", {RANGE_START: day, RANGE_END: day})


def run_job(instance: dg.DagsterInstance, name: str, tags: Mapping[str, str] | None = None) -> None:
    """Run a job of the definitions in this process. Raises RunFailed."""
    from metering_pipeline.definitions import defs

    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance, tags=dict(tags or {}), raise_on_error=False, run_config=QUIET
    )
    if result.success:
        return
    failures = [
        f"{event.step_key}: {_root_cause(event.step_failure_data.error)}"
        for event in result.all_events
        if event.is_step_failure
    ]
    raise RunFailed(
        f"run {result.run_id} of job {name} failed.\n"
        + "\n".join(failures or ["see the run's log"])
    )


def _root_cause(error: object) -> str:
    cause = getattr(error, "cause", None)
    return (
        _root_cause(cause) if cause is not None else str(getattr(error, "message", error)).strip()
    )
