"""What it costs to rate and draft the month of so many subscriptions, in one dbt run each time.

The catalog is loaded as any company's would be, into the staging tables, and validated; the usage is written
into the hourly rollups by SQL. Five charges a subscription: a fee in advance, one metric per unit, one in
graduated tiers, one by volume, one in packages.
"""

from pathlib import Path

import psutil
import psycopg

from benchmarks import history
from benchmarks.measure import Report, cost_of
from benchmarks.workload import FIRST_DAY
from metering_pipeline import settings
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.reconciliation.drafts import compare_all, compare_unchecked
from metering_pipeline.settings import HOUR
from metering_pipeline.transform.dbt import run_dbt
from metering_pipeline.transform.posting import RATING

CHARGES = 5
BUCKETS = 8
"""Hours with usage, for each subscription and metric."""

LATE_SHARE = 100
"""One in so many subscriptions has late usage after it has been rated."""

CATALOG = """
truncate staging.legal_entities, staging.currencies, staging.tenants, staging.metrics, staging.plans,
    staging.charges, staging.charge_tiers, staging.percentage_terms, staging.subscriptions, staging.tax_rates,
    staging.coupons, staging.corrections;
insert into staging.legal_entities (legal_entity, name, series) values ('us', 'Benchmark, Inc.', 'US');
insert into staging.currencies (currency, minor_digits) values ('USD', '2');
insert into staging.metrics (metric, event_type, aggregation, dimensions, unit, filter, description)
select metric, metric, 'sum', '[]', 'units', '{}', metric
from unnest(array['per_unit', 'graduated', 'volume', 'package']) as metric;
insert into staging.plans (plan_id, name, currency, billing_interval, minimum_document_amount)
values ('plan', 'Plan', 'USD', 'month', '0');
insert into staging.charges (
    charge_id, version, plan_id, component, metric, dimension_route, charge_model, timing, description,
    effective_from, package_size
)
select
    model, '1', 'plan', case model when 'flat' then 'flat' else 'usage' end, nullif(model, 'flat'), '{}', model,
    case model when 'flat' then 'advance' else 'arrears' end, model, '2020-01-01',
    case model when 'package' then '100' end
from unnest(array['flat', 'per_unit', 'graduated', 'volume', 'package']) as model;
insert into staging.charge_tiers (charge_id, version, tier, up_to, unit_amount, flat_amount)
values
('flat', '1', '1', null, '0', '49'),
('per_unit', '1', '1', null, '0.002', '0'),
('graduated', '1', '1', '1000', '0', '0'),
('graduated', '1', '2', '5000', '0.0018', '1.5'),
('graduated', '1', '3', null, '0.0012', '0'),
('volume', '1', '1', '2000', '0.003', '0'),
('volume', '1', '2', null, '0.001', '0'),
('package', '1', '1', null, '0', '0.15');
"""

SUBSCRIPTIONS = """
insert into staging.tenants (tenant_id, name, legal_entity, billable)
select format('tenant-%%s', number), 'Tenant', 'us', 'true'
from generate_series(1, %(count)s) as number;
insert into staging.subscriptions (
    subscription_id, version, tenant_id, plan_id, time_zone, anchor_date, anchor_time, started_at, recorded_at,
    recorded_by
)
select
    format('subscription-%%s', number), '1', format('tenant-%%s', number), 'plan',
    (array['UTC', 'America/New_York', 'Asia/Kolkata', 'Europe/Berlin'])[number %% 4 + 1],
    '2026-01-01', '00:00', '2026-01-01T00:00:00Z', '2025-12-01T00:00:00Z', 'benchmark'
from generate_series(1, %(count)s) as number
"""

USAGE = """
insert into rollups.usage_hourly (
    tenant_id, metric, hour, dimensions, event_count, value_sum, value_min, value_max, event_digest, payload_digest
)
select
    format('tenant-%%s', number), metric, %(first)s + (number + 83 * bucket) %% 700 * interval '1 hour', '{}',
    10, 10 * (number %% 97 + bucket), 1, 100, number, bucket
from generate_series(1, %(count)s) as number
cross join unnest(array['per_unit', 'graduated', 'volume', 'package']) as metric
cross join generate_series(1, %(buckets)s) as bucket
on conflict do nothing
"""

LATE = """
with late as (
    update rollups.usage_hourly
    set value_sum = value_sum + 1, event_digest = event_digest + 1
    where (tenant_id, hour) in (
        select tenant_id, min(hour)
        from rollups.usage_hourly
        where metric = 'graduated' and hashtext(tenant_id) %% %(share)s = 0
        group by tenant_id
    )
    returning tenant_id, metric, hour::date as day
)

insert into rating.touched (tenant_id, metric, day)
select tenant_id, metric, day
from late
on conflict do nothing
"""


def measure_rating(report: Report, home: Path, subscriptions: int) -> None:
    """Publish the catalog of so many subscriptions, rate and draft their month; again; and after late usage."""
    server = EmbeddedServer(home, {"autovacuum": "off"})
    server.start()
    try:
        database = open_database(settings.load())
        process = server.process()
        assert process is not None  # noqa: S101  (started above)
        run_dbt(database, "seed", ["path:seeds"])
        with history.owned(server).connect(autocommit=True) as connection:
            _load(report, connection, subscriptions)
            _measure(report, process, database, connection, subscriptions)
    finally:
        server.stop()


def _load(report: Report, connection: psycopg.Connection, subscriptions: int) -> None:
    report.note(f"loading {subscriptions:,} subscriptions and their usage")
    connection.execute(CATALOG)
    for statement in SUBSCRIPTIONS.split(";\n"):
        connection.execute(statement.encode(), {"count": subscriptions})
    connection.execute(
        "insert into landing.hours (landed_hour, file_count, listed_at, sealed) values (%s, 0, now(), true)",
        (FIRST_DAY + 33 * 24 * HOUR,),
    )


def _measure(
    report: Report,
    process: psutil.Process,
    database: Database,
    connection: psycopg.Connection,
    subscriptions: int,
) -> None:
    size = f"{subscriptions:,} subscriptions"
    lines = subscriptions * CHARGES
    window = Window(FIRST_DAY, FIRST_DAY + HOUR)

    def run(*models: str) -> None:
        for result in run_dbt(database, "run", models, window):
            report.note(f"{result.unique_id.rpartition('.')[2]}: {result.seconds:.1f} s")

    def measure(step: str, events: int, *models: str) -> None:
        report.add(size, step, events, cost_of(process, lambda: run(*models)))

    measure("the catalog, validated and published", lines, "catalog_problems", "catalog_versions")
    connection.execute(USAGE, {"first": FIRST_DAY, "count": subscriptions, "buckets": BUCKETS})
    connection.execute("analyze")
    connection.execute("checkpoint")
    measure("periods, usage, lines and drafts of a month", lines, *RATING)
    connection.execute("analyze")
    measure("the same again", lines, *RATING)
    connection.execute("delete from invoices.unchecked_subscriptions")  # as their check would
    touched = connection.execute(LATE, {"share": LATE_SHARE}).rowcount
    measure("after late usage of one in 100", touched, *RATING)
    run("lines_to_documents")
    now = FIRST_DAY + 35 * 24 * HOUR
    for step, compare in (
        ("lines compared with drafts, of the late ones", compare_unchecked),
        ("lines compared with drafts, all", compare_all),
    ):
        cost = cost_of(process, lambda compare=compare: compare(database, FIRST_DAY, now))
        report.add(size, step, lines, cost)
