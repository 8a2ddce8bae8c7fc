"""The hot queries keep their index, on tables that are big enough to be worth one.

The questions are those that the benchmarks time; the plans of the models are those with which PostgreSQL
ran them, out of the server's log.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from benchmarks.reading import QUESTIONS
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.transform.dbt import run_dbt
from tests.conftest import TEMPLATE

Plan = Mapping[str, Any]

FIRST_HOUR = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 5
LATE = Window(FIRST_HOUR + timedelta(days=DAYS), FIRST_HOUR + timedelta(days=DAYS, hours=1))
"""The landing hour after the history: what landed in it is up to 48 hours late, and owed."""

VALUES = {
    "tenant": "tenant-7",
    "metric": "metric-3",
    "event_type": "type-3",
    "month_first": date(2026, 1, 1),
    "month_next": date(2026, 2, 1),
    "month_start": datetime(2026, 1, 1, tzinfo=UTC),
    "month_end": datetime(2026, 2, 1, tzinfo=UTC),
    "day_start": datetime(2026, 1, 5, tzinfo=UTC),
    "day_end": datetime(2026, 1, 6, tzinfo=UTC),
}
ASKED = {
    f"{question.name} from {source}": query
    for question in QUESTIONS
    for source, query in question.sources.items()
}

CATALOG = """
insert into catalog.metrics (metric, event_type, aggregation, value_property, dimensions, unit, filter, description)
select 'metric-' || number, 'type-' || number, 'sum', null, '{}', 'units', '{}', 'A metric.'
from generate_series(1, 5) as number
"""

# Of 100 tenants and five metrics, in the order in which they are written: each bucket has one contribution,
# and in the ledger, for its last days, two events.
CONTRIBUTIONS = """
insert into rollups.usage_contributions (
    landed_hour, tenant_id, metric, hour, dimensions, event_type, event_count, voided_count, value_sum,
    latest_at, latest_fingerprint, event_digest, payload_digest
)
select
    hour, 'tenant-' || tenant, 'metric-' || metric, hour, '{}', 'type-' || metric, 2, 0, 2,
    hour, md5('a')::uuid, 0, 0
from generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 hour', '1 hour') as hour
cross join generate_series(1, 100) as tenant
cross join generate_series(1, 5) as metric
"""
HOURLY = """
insert into rollups.usage_hourly (
    tenant_id, metric, hour, dimensions, event_count, value_sum, latest_at, latest_fingerprint, event_digest,
    payload_digest
)
select
    tenant_id, metric, hour, dimensions, event_count, value_sum, latest_at, latest_fingerprint, event_digest,
    payload_digest
from rollups.usage_contributions
"""
DAILY = """
insert into rollups.usage_daily (
    tenant_id, metric, day, dimensions, event_count, value_sum, event_digest, payload_digest
)
select 'tenant-' || tenant, 'metric-' || metric, day, '{}', 48, 48, 0, 0
from generate_series(%(end)s::timestamptz - interval '60 days', %(end)s, '1 day') as day
cross join generate_series(1, 100) as tenant
cross join generate_series(1, 5) as metric
"""
PARTITIONS = "select catalog.ensure_day_partitions('ledger', 'usage_events', %(days)s::date[])"
EVENTS = """
insert into ledger.usage_events
select
    'tenant-' || tenant, 'type-' || metric, hour + number * interval '1 minute', 'event-' || number,
    md5(concat_ws(' ', tenant, metric, hour, number))::uuid, md5('payload')::uuid, 1,
    jsonb_build_object('prompt', repeat('x', 300)), hour, 0, number, hour
from generate_series(%(end)s::timestamptz - interval '48 hours', %(end)s::timestamptz - interval '1 hour', '1 hour')
    as hour
cross join generate_series(1, 100) as tenant
cross join generate_series(1, 5) as metric
cross join generate_series(1, 2) as number
"""
LATE_EVENTS = """
insert into ledger.usage_events
select
    tenant_id, event_type, occurred_at + interval '30 seconds', correlation_id, md5('late' || fingerprint)::uuid,
    payload_hash, quantity, properties, %(end)s, 1, row_number() over (), %(end)s
from ledger.usage_events
where line_number = 1 and fingerprint < '02000000-0000-0000-0000-000000000000'
"""
PENDING = """
insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour)
select landed_hour, tenant_id, event_type, date_bin('1 hour', occurred_at, '2000-01-01Z')
from ledger.usage_events
where landed_hour = %(end)s
"""


@pytest.fixture(scope="module")
def filled(server: EmbeddedServer) -> Database:
    """Days of usage, and a landing hour of late events that is owed. No test changes it but the last ones."""
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {TEMPLATE} strategy wal_log")
    database = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    span = {"start": FIRST_HOUR, "end": LATE.start}
    with database.connect(autocommit=True) as connection:
        connection.execute(CATALOG)
        connection.execute(CONTRIBUTIONS, span)
        connection.execute(HOURLY)
        connection.execute(DAILY, span)
        days = [(LATE.start - timedelta(days=number)).date() for number in (2, 1)]
        connection.execute(PARTITIONS, {"days": days})  # an empty one would be scanned, at no cost
        connection.execute(EVENTS, span)
        connection.execute(LATE_EVENTS, span)
        connection.execute(PENDING, span)
        connection.execute("vacuum (analyze)")
    run_dbt(database, "run", ["usage_in_ledger", "usage_realtime"])
    return database


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def read_whole(plans: Iterable[Plan]) -> set[str]:
    """The tables with history that are read from end to end; a day's partition counts as its table."""
    scanned = {
        re.sub(r"_\d{8}$", "", node["Relation Name"])
        for plan in plans
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan"
    }
    return scanned & {"usage_events", "usage_contributions", "usage_hourly", "usage_daily"}


def kinds(plan: Plan) -> set[str]:
    return {node["Node Type"] for node in nodes(plan)}


def indexes(plan: Plan) -> set[str]:
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def plan_of(
    database: Database, query: LiteralString, generic: bool, role: LiteralString = "none"
) -> Plan:
    """The plan for VALUES, or the one for any values, to which a prepared query comes in time."""
    with database.connect() as connection:
        connection.execute(f"set role {role}")
        if generic:
            names = list(VALUES)
            numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", query)
            asked = connection.execute(f"explain (format json, generic_plan) {numbered}".encode())
        else:
            asked = connection.execute(f"explain (format json) {query}".encode(), VALUES)
        row = asked.fetchone()
    assert row is not None
    plan: Plan = row[0][0]["Plan"]
    return plan


@pytest.mark.parametrize("generic", [False, True], ids=["these values", "any values"])
@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("tenant-month by day from usage_daily", "usage_daily_pkey"),
        ("tenant-day by hour from usage_hourly", "usage_hourly_pkey"),
    ],
)
def test_the_rollups_are_read_by_their_key_in_its_order(
    filled: Database, question: str, index: str, generic: bool
) -> None:
    plan = plan_of(filled, ASKED[question], generic)
    assert indexes(plan) == {index}
    assert kinds(plan) == {"Aggregate", "Index Only Scan"}


@pytest.mark.parametrize("generic", [False, True], ids=["these values", "any values"])
@pytest.mark.parametrize(
    "question",
    ["tenant-month by day from usage_realtime", "tenant-day by hour from usage_realtime"],
)
def test_the_realtime_view_reads_no_table_from_end_to_end(
    filled: Database, question: str, generic: bool
) -> None:
    plan = plan_of(filled, ASKED[question], generic)
    assert read_whole([plan]) == set()
    assert "usage_hourly_pkey" in indexes(plan)


@pytest.mark.parametrize("role", ["metering_analyst", "metering_pipeline"])
@pytest.mark.parametrize("question", ASKED)
def test_row_level_security_changes_no_plan_of_who_reads_all(
    filled: Database, question: str, role: LiteralString
) -> None:
    for generic in (False, True):
        asked = ASKED[question]
        assert plan_of(filled, asked, generic, role) == plan_of(filled, asked, generic)


def test_a_tenants_rows_are_found_by_the_key(filled: Database) -> None:
    asked = ASKED["tenant-month by day from usage_daily"]
    plan = plan_of(filled, asked, generic=False, role="metering_tenant")
    assert indexes(plan) == {"usage_daily_pkey"}
    assert read_whole([plan]) == set()


@pytest.fixture(scope="module")
def executed(filled: Database, server: EmbeddedServer) -> list[Plan]:
    """The plans with which the late hour is rolled up."""
    log = server.folder / "server.log"
    before = log.stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PGOPTIONS",
            "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0"
            " -c auto_explain.log_format=json",
        )
        run_dbt(filled, "run", ["usage_contributions", "usage_hourly", "usage_daily"], LATE)
    with log.open() as file:
        file.seek(before)
        logged = file.read()
    return [
        json.loads(plan)["Plan"]
        for plan in re.findall(r"plan:\n(\t\{\n.*?\n\t\})$", logged, re.DOTALL | re.MULTILINE)
    ]


def deletions(plans: Iterable[Plan], table: str) -> list[Plan]:
    return [
        node
        for plan in plans
        for node in nodes(plan)
        if node.get("Operation") == "Delete" and node.get("Relation Name") == table
    ]


def insertions(plans: Iterable[Plan], table: str) -> list[Plan]:
    return [
        plan
        for plan in plans
        if plan.get("Operation") == "Insert" and plan.get("Relation Name") == table
    ]


def is_grouped(plan: Plan, table: str) -> bool:
    """Whether a query groups rows of the table."""
    reads = {node.get("Relation Name") for node in nodes(plan)}
    return plan["Node Type"] == "Aggregate" and table in reads


def test_a_late_hour_is_rolled_up_without_reading_a_table_from_end_to_end(
    executed: list[Plan],
) -> None:
    assert read_whole(executed) == set()


@pytest.mark.parametrize("table", ["usage_contributions", "usage_hourly"])
def test_what_a_late_hour_replaces_is_deleted_by_its_key(executed: list[Plan], table: str) -> None:
    (deletion,) = deletions(executed, table)
    assert indexes(deletion) & {f"{table}_pkey", f"{table}_by_bucket"}


@pytest.mark.parametrize("table", ["usage_hourly", "usage_daily"])
def test_what_a_late_hour_gained_is_read_by_its_landing_hour(
    executed: list[Plan], table: str
) -> None:
    gained, _ = insertions(executed, table)
    assert indexes(gained) == {"usage_contributions_pkey"}
    assert gained["Conflict Arbiter Indexes"] == [f"{table}_pkey"]


def test_contributions_are_merged_by_their_bucket(executed: list[Plan]) -> None:
    (merging,) = (plan for plan in executed if is_grouped(plan, "usage_contributions"))
    assert indexes(merging) == {"usage_contributions_by_bucket"}
