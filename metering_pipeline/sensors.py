"""What makes the pipeline run between its schedules: files and usage that come late, a new catalog. And what watches it."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.jobs import catalog, hourly
from metering_pipeline.jobs import late_arrivals as late_arrivals_job
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.partitions import HOUR_FORMAT
from metering_pipeline.postgres import open_database
from metering_pipeline.settings import HOUR, hour_of
from metering_pipeline.transform.dbt import seeds_digest
from metering_pipeline.watch.assets import described, evaluation
from metering_pipeline.watch.looking import look


@dg.sensor(job=hourly, minimum_interval_seconds=300)
def late_files(_: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Files that appeared or changed in the hours of the last METERING_LANDING_RESCAN_HOURS."""
    configured = settings.load()
    reach = timedelta(hours=configured.landing_rescan_hours)
    yield from _runs_for_waiting_hours(configured, hour_of(configured.now()) - reach)


@dg.sensor(job=hourly, minimum_interval_seconds=86_400)
def older_files(_: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Once a day: files that appeared or changed in any hour since the first."""
    configured = settings.load()
    yield from _runs_for_waiting_hours(configured, configured.first_hour)


def _runs_for_waiting_hours(
    configured: settings.Settings, since: datetime
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """A run for each closed hour with files not landed, or landed and never posted to the ledger."""
    now = configured.now()
    listing = list_hours(open_database(configured).url, configured, now, since)
    waiting = sorted({*listing.unlanded_hours, *listing.unposted_hours})
    hours = [hour for hour in waiting if since <= hour < hour_of(now) - HOUR]
    if not hours:
        yield dg.SkipReason("No file waits in an hour that has passed.")
    for hour in hours:
        key = hour.strftime(HOUR_FORMAT)
        # with the present hour in it: what a failed run left waiting is tried again an hour later
        run_key = f"{key} {listing.digest_of(hour)} {now.strftime(HOUR_FORMAT)}"
        yield dg.RunRequest(run_key=run_key, partition_key=key)


@dg.sensor(job=late_arrivals_job, minimum_interval_seconds=300)
def late_arrivals(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Usage later than the lookback: a run for exactly it."""
    with open_database(settings.load()).connect() as connection:
        keys = connection.execute(
            """
            select landed_hour, tenant_id, event_type, event_hour
            from rollups.late_arrivals
            order by landed_hour, tenant_id, event_type, event_hour
            """
        ).fetchall()
    if not keys:
        return dg.SkipReason("No usage is later than the lookback.")
    # the same hours can be late again after they were rolled up: that is another run
    done = context.instance.get_latest_materialization_event(
        dg.AssetKey(["rollups", "late_arrivals"])
    )
    since = done.timestamp if done else None
    hour = settings.load().now().strftime(HOUR_FORMAT)  # a failed run is tried again an hour later
    return dg.RunRequest(run_key=hashlib.sha256(repr((since, hour, keys)).encode()).hexdigest())


@dg.sensor(job=catalog, minimum_interval_seconds=60)
def catalog_changes(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A change of the catalog's seeds publishes it anew."""
    digest = seeds_digest()
    if context.cursor == digest:
        return dg.SkipReason("The catalog's seeds are unchanged.")
    context.update_cursor(digest)
    return dg.RunRequest()  # without a key: a change that is taken back is published too


@dg.sensor(minimum_interval_seconds=120)
def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Looks for what is wrong, tells whom METERING_ALERT_URLS names, and reports a change as a check's result."""
    assert context.repository_def is not None  # noqa: S101  (the daemon gives it)
    found = look(context.instance, context.repository_def, settings.load())
    if found is None:
        return dg.SkipReason("Somebody else is looking.")
    if not found.changed:
        return dg.SkipReason(described(found.troubles))
    return dg.SensorResult(
        asset_events=[evaluation(found.troubles)], skip_reason=described(found.troubles)
    )


sensors = [late_files, older_files, late_arrivals, catalog_changes, watch]
