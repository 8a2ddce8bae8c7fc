"""A look at everything that can go wrong, in the figures and in what Dagster keeps: what the sensor does."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from metering_pipeline.partitions import PARTITION, RANGE_START
from metering_pipeline.postgres import LOOK_LOCK, Database, open_database
from metering_pipeline.reconciliation.laws import LAWS
from metering_pipeline.settings import Settings
from metering_pipeline.watch.alerts import tell
from metering_pipeline.watch.figures import Figures, read_figures, reading
from metering_pipeline.watch.troubles import (
    Found,
    Trouble,
    found_in_figures,
    grave,
    keep,
    off_on_purpose,
)

KEY = dg.AssetKey(["reconciliation", "troubles"])
CHECK = "nothing_is_wrong"

RUNS_LOOKED_AT = 200
"""The newest finished runs that a look asks for: those of four days of an hourly schedule."""

LOOK_BACK = timedelta(days=7)
"""A run that failed longer ago is no news."""


class Look:
    """What a look found: the figures, what is grave, and whether that is another than at the last look."""

    def __init__(self, figures: Figures, troubles: Sequence[Trouble], changed: bool) -> None:
        self.figures = figures
        self.troubles = troubles
        self.changed = changed


def look(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, configured: Settings
) -> Look | None:
    """Look, keep what was found, and tell whom it concerns; None while somebody else looks.

    A crash at any moment leaves either what was known before or all of what was found; what was not noted as told
    is told again.
    """
    now = configured.now()
    database = open_database(configured)
    with reading(database, configured) as connection:
        figures = read_figures(connection, configured)
    found = [
        *(
            each
            for each in found_in_figures(figures, configured, now)
            if each.kind != "not_watched"
        ),
        *found_by_dagster(instance, repository, configured),
    ]
    return _keep_and_tell(database, configured, figures, found, now)


def _keep_and_tell(
    database: Database,
    configured: Settings,
    figures: Figures,
    found: Sequence[Found],
    now: datetime,
) -> Look | None:
    with database.connect() as connection:
        if connection.execute("select pg_try_advisory_lock(%s)", (LOOK_LOCK,)).fetchone() != (
            True,
        ):
            return None
        changed = keep(connection, found, now)
        connection.commit()
        tell(connection, configured, now)
    with reading(database, configured) as connection:
        figures = read_figures(connection, configured)
        return Look(figures, grave(connection, figures, configured, now), changed)


def found_by_dagster(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, configured: Settings
) -> Iterator[Found]:
    """What Dagster's own record of ticks, runs and checks shows to be wrong."""
    yield from _automation(instance, repository, configured)
    yield from _runs(instance)
    yield from _checks(instance, repository)


def _automation(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, configured: Settings
) -> Iterator[Found]:
    """Schedules and sensors that are off, or whose last finished tick failed."""
    names = {each.name for each in repository.schedule_defs}
    names |= {each.name for each in repository.sensor_defs}
    running = {
        state.instigator_name: state
        for state in instance.all_instigator_state()
        if state.is_running
    }
    patience = timedelta(minutes=configured.tick_minutes)
    for name in sorted(names - off_on_purpose(configured)):
        state = running.get(name)
        if state is None:
            yield Found("automation_off", name, "turn it on under Automation", patience)
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2)
        finished = [tick for tick in ticks if tick.status.value != "STARTED"]
        if finished and finished[0].is_failure:
            at = datetime.fromtimestamp(finished[0].timestamp, UTC)
            detail = f"the tick of {at:%Y-%m-%dT%H:%M}Z failed; its error is under Automation"
            yield Found("tick_failed", name, detail, patience)


def _runs(instance: dg.DagsterInstance) -> Iterator[Found]:
    """Jobs whose newest finished run, of some partition, failed. One trouble a job, whatever its partitions."""
    finished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
        updated_after=datetime.now(UTC) - LOOK_BACK,
    )
    newest: dict[tuple[str, str], dg.DagsterRun] = {}
    for run in instance.get_runs(finished, limit=RUNS_LOOKED_AT):
        newest.setdefault((run.job_name, _partition(run.tags)), run)
    failed: defaultdict[str, list[str]] = defaultdict(list)
    for (job, partition), run in newest.items():
        if run.status == dg.DagsterRunStatus.FAILURE:
            failed[job].append(f"{partition or 'run'} ({run.run_id.split('-')[0]})")
    for job, runs in sorted(failed.items()):
        shown = ", ".join(runs[:3]) + (f" and {len(runs) - 3:,} more" if runs[3:] else "")
        yield Found("run_failed", job, f"failed: {shown}")


def _partition(tags: Mapping[str, str]) -> str:
    return tags.get(PARTITION) or tags.get(RANGE_START) or ""


def _checks(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> Iterator[Found]:
    """Checks whose newest result is an error. The laws are told by their rows; a warning is only shown."""
    keys = [
        key for key in repository.asset_graph.asset_check_keys if key.name not in (*LAWS, CHECK)
    ]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, record in sorted(records.items()):
        event = record.event and record.event.dagster_event
        if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        result = event.asset_check_evaluation_data
        if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR:
            name = f"{key.asset_key.to_user_string()} {key.name}"
            yield Found("check_failed", name, "its rows are shown with the asset's checks")
