"""The history that the measured hours find: the catalog, and days of usage rolled up by the real models."""

import json
from datetime import timedelta

import psycopg
from psycopg.types.json import Jsonb

from benchmarks import workload
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import DATABASE_NAME, Database
from metering_pipeline.transform.dbt import run_dbt

ROLLUPS = ("usage_contributions", "usage_hourly")


def owned(server: EmbeddedServer) -> Database:
    """The database as its owner has it, who may write a history by hand. What is measured runs as the pipeline."""
    return Database(url=server.start().url(DATABASE_NAME), dagster_url="")


def publish_catalog(database: Database) -> None:
    """Publish the five metrics in place of the sample's, with a charge, since a catalog needs one; make the view."""
    with database.connect() as connection:
        connection.execute(_NO_SAMPLE)
        for metric in workload.METRICS:
            connection.execute(
                _METRIC,
                {
                    "metric": metric.name,
                    "event_type": metric.event_type,
                    "aggregation": metric.aggregation,
                    "value_property": metric.value_property,
                    "dimensions": json.dumps([metric.dimension] if metric.dimension else []),
                },
            )
        connection.execute(_CHARGE)
    run_dbt(
        database,
        "run",
        ["catalog_problems", "catalog_versions", "usage_in_ledger", "usage_realtime"],
    )


def fill(
    database: Database, connection: psycopg.Connection, first_event: int, count: int, window: Window
) -> None:
    """Write so many events, numbered, evenly over the landing hours, and roll them up."""
    late = timedelta(hours=workload.LATE_HOURS)
    days = [each.start.date() for each in Window(window.start - late, window.end).days()]
    connection.execute(_ENSURE, {"days": days})
    values = {
        "start": window.start,
        "end": window.end,
        "first": first_event,
        "last": first_event + count - 1,
        "seconds_apart": (window.end - window.start).total_seconds() / count,
        "tenants": workload.TENANTS,
        "event_types": list(workload.EVENT_TYPES),
        "properties": [
            Jsonb({"region": region, "model": model, "tokens": 1234})
            for model in workload.MODELS
            for region in workload.REGIONS
        ],
        "late_every": round(1 / workload.LATE_SHARE),
        "late_hours": workload.LATE_HOURS,
    }
    connection.execute(_EVENTS, values)
    connection.execute(_PENDING, values)
    # Only what is measured shall run, so what autovacuum would do is done by hand.
    connection.execute("analyze")
    run_dbt(database, "run", [*ROLLUPS, "usage_daily"], window)
    connection.execute(
        "vacuum (analyze) ledger.pending, rollups.touched_buckets, rollups.touched_days, rollups.usage_daily"
    )


_NO_SAMPLE = """
delete from staging.metrics;
delete from staging.charges;
delete from staging.charge_tiers
"""

_METRIC = """
insert into staging.metrics (metric, event_type, aggregation, value_property, dimensions, unit, filter, description)
values (
    %(metric)s, %(event_type)s, %(aggregation)s, %(value_property)s, %(dimensions)s, 'units', '{}', 'measured'
)
"""

_CHARGE = """
insert into staging.charges (
    charge_id, version, plan_id, component, metric, dimension_route, charge_model, timing, description, effective_from
)
select 'requests', '1', min(plan_id), 'usage', 'requests', '{}', 'per_unit', 'arrears', 'Requests', '2025-01-01'
from staging.plans;
insert into staging.charge_tiers (charge_id, version, tier, up_to, unit_amount, flat_amount)
values ('requests', '1', '1', null, '0.001', '0')
"""

_ENSURE = "select catalog.ensure_day_partitions('ledger', 'usage_events', %(days)s::date[])"

_EVENTS = """
insert into ledger.usage_events
select
    'tenant-' || lpad((event %% %(tenants)s)::text, 4, '0'),
    (%(event_types)s::text[])[1 + event / %(tenants)s %% cardinality(%(event_types)s::text[])],
    arrived_at - late_hours * interval '1 hour',
    md5(event::text)::uuid::text,
    md5(event::text)::uuid,
    md5('payload' || event)::uuid,
    event %% 100000,
    (%(properties)s::jsonb[])[1 + event / %(tenants)s / 5 %% cardinality(%(properties)s::jsonb[])],
    date_bin('1 hour', arrived_at, '2000-01-01Z'),
    0,
    event,
    %(start)s
from generate_series(%(first)s::bigint, %(last)s::bigint) as event
cross join lateral (
    select
        %(start)s::timestamptz + (event - %(first)s) * %(seconds_apart)s * interval '1 second' as arrived_at,
        case
            when event %% %(late_every)s = 0 then 1 + event / %(late_every)s %% %(late_hours)s
            else 0
        end as late_hours
) as arrival
"""

_PENDING = """
insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour)
select distinct
    landed_hour,
    tenant_id,
    event_type,
    date_bin('1 hour', occurred_at, '2000-01-01Z')
from ledger.usage_events
where
    landed_hour >= %(start)s
    and landed_hour < %(end)s
    and occurred_at >= %(start)s::timestamptz - %(late_hours)s * interval '1 hour'
    and occurred_at < %(end)s
on conflict do nothing
"""
