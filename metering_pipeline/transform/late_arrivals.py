"""Late arrivals: pending usage beyond the lookback, rolled up by a run for exactly it."""

from collections.abc import Sequence

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.costs import measured
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import END_OF_TIME
from metering_pipeline.transform.archived import run_models


def release_late_arrivals(database: Database) -> int:
    """Release what is pending beyond the lookback; the number of keys. A crash leaves them released."""
    with database.locked() as connection:
        released = connection.execute(
            """
            update ledger.pending
            set released = true
            where not released
                and landed_hour - event_hour > catalog.setting_hours('lookback_hours')
            """
        )
    return released.rowcount


@dg.asset(
    key=["rollups", "late_arrivals"],
    group_name="rollups",
    kinds={"dbt", "postgres"},
    owners=["team:metering"],
    deps=[["rollups", "usage_hourly"]],
    description=(
        "Pending usage that is later than the lookback. Materializing it releases exactly this usage "
        "and rolls it up; ordinary runs leave it alone. No event is dropped for being late."
    ),
)
def late_arrivals(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    configured = settings.load()
    database = open_database(configured)
    models: Sequence[str] = ("usage_contributions", "usage_hourly")
    with measured(context, database, "rollups"):
        released = release_late_arrivals(database)
        run_models(database, models, Window(configured.first_hour, END_OF_TIME))
    context.log.info("rolled up %s late keys", released)
    return dg.MaterializeResult(metadata={"late keys rolled up": released})
