"""The landing assets: raw usage events by landing hour, and what is known of the hours."""

import logging

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.costs import measured
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import LandedHour, land_hours
from metering_pipeline.partitions import HOUR_FORMAT, hourly_freshness, landing_hours, run_window
from metering_pipeline.postgres import open_database
from metering_pipeline.settings import HOUR

log = logging.getLogger(__name__)


@dg.asset(
    key=["landing", "usage_events"],
    group_name="landing",
    kinds={"python", "arrow", "postgres"},
    owners=["team:metering"],
    partitions_def=landing_hours,
    backfill_policy=dg.BackfillPolicy.single_run(),
    freshness_policy=hourly_freshness,
    description=(
        "Raw usage events as received, with file and line. One transaction an hour; the same files "
        "again change nothing; every record that is not a valid event is in landing.rejected_events."
    ),
)
def usage_events(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    configured = settings.load()
    window = run_window(context)
    database = open_database(configured)
    with measured(context, database, "landing", window) as cost:
        landed = land_hours(
            database.url,
            configured,
            window.start,
            window.end - HOUR,
            configured.now(),
            progress=log.info,
        )
        cost.records = sum(hour.accepted + hour.rejected for hour in landed)
    by_hour = {each.landed_hour: each for each in landed}
    for hour in window.starts():  # each hour's own figures, also of a run over many
        each = by_hour.get(hour, LandedHour(hour))
        figures = {
            "files landed": each.files_landed,
            "files unchanged": each.files_unchanged,
            "manifests landed": each.manifests_landed,
            "records accepted": each.accepted,
            "records rejected": each.rejected,
        }
        context.add_asset_metadata(figures, partition_key=hour.strftime(HOUR_FORMAT))
    accepted, rejected = (
        sum(getattr(hour, each) for hour in landed) for each in ("accepted", "rejected")
    )
    return dg.MaterializeResult(
        metadata={
            "this run": f"{window}: {len(landed):,} hours with files, {accepted:,} records accepted, "
            f"{rejected:,} rejected"
        }
    )


@dg.asset(
    key=["landing", "hours"],
    group_name="landing",
    kinds={"python", "postgres"},
    owners=["team:metering"],
    deps=[usage_events],
    description=(
        "Every landing hour from the first on, empty ones too, as the newest listing of the landing root "
        "found it, and which landed files are missing there. Sealed: its end and the settle time have passed and every file seen there is landed. "
        "Invoices wait until the hours up to their cut-off are sealed."
    ),
)
def hours(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    configured = settings.load()
    database = open_database(configured)
    with measured(context, database, "landing"):
        listing = list_hours(database.url, configured, configured.now())
    with database.connect() as connection:
        [(expired,)] = connection.execute(
            "select landing.expire_rejected(%s)", (configured.now(),)
        ).fetchall()
        states = connection.execute(
            "select state, count(*) from reconciliation.source_hours group by state order by state"
        ).fetchall()
    waiting = [hour.strftime(HOUR_FORMAT) for hour in listing.unlanded_hours]
    unknown = [f"{each.path}: {each.problem}" for each in listing.unknown]
    return dg.MaterializeResult(
        metadata={
            "hours": listing.hours,
            "hours sealed": listing.sealed,
            "hours with files not landed yet": ", ".join(waiting) or "none",
            "what cannot be landed": "\n".join(unknown) or "none",
            "sources' hours": ", ".join(f"{count:,} {state}" for state, count in states) or "none",
            "files landed and missing now": listing.missing,
            "of these": "\n".join(listing.missing_sample) or "none",
            "rejected records whose bytes are too old to keep": expired,
        }
    )
