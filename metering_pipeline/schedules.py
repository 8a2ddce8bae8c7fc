"""When the pipeline runs by itself."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.jobs import billing, hourly, nightly, provider, weekly
from metering_pipeline.partitions import HOUR_FORMAT
from metering_pipeline.settings import HOUR, hour_of


@dg.schedule(cron_schedule="12 * * * *", job=hourly, execution_timezone="UTC")
def every_hour(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """The hour that has closed, and for freshness the one now running."""
    tick = context.scheduled_execution_time
    closed = hour_of(tick) - HOUR
    for hour in (closed, hour_of(tick)):
        key = hour.strftime(HOUR_FORMAT)
        yield dg.RunRequest(run_key=f"{key} at {tick.isoformat()}", partition_key=key)


@dg.schedule(cron_schedule="30 1 * * *", job=billing, execution_timezone="UTC")
def every_day(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Issues what was due by the end of yesterday (UTC); catching up is one run of the newest date."""
    yesterday = (context.scheduled_execution_time - timedelta(days=1)).date()
    return dg.RunRequest(run_key=yesterday.isoformat(), partition_key=yesterday.isoformat())


@dg.schedule(cron_schedule="40 21 * * *", job=nightly, execution_timezone="UTC")
def every_night(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Proves everything that is kept, early enough that what it finds holds the invoices of the night."""
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())


@dg.schedule(cron_schedule="20 0 * * *", job=provider, execution_timezone="UTC")
def before_billing(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Compares with the billing provider, if there is one, before the day's invoices are issued."""
    if settings.load().provider_usage is None:
        return dg.SkipReason("No billing provider is configured (METERING_PROVIDER_USAGE).")
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())


@dg.schedule(cron_schedule="20 3 * * 0", job=weekly, execution_timezone="UTC")
def every_week(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Builds the week's sample of days anew: on Sunday, between the night's invoices and its proof."""
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())


schedules = [every_hour, before_billing, every_day, every_night, every_week]
