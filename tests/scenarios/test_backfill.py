"""The same landing hours as one range, one by one in order, and shuffled with one of them twice: every table
of ledger, rollups and rating holds the same rows, whatever came twice, late, changed or was voided."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta

import psycopg
import pytest

from metering_pipeline import postgres, settings
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.generate import GeneratedTotals, Shares, generate
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.settings import HOUR
from tests.scenarios.conftest import Pipeline

DAY = date(2026, 1, 10)
SHARES = Shares(duplicates=0.1, late=0.2, conflicts=0.02, voids=0.04, bad_lines=0.01)
STAGES = ["ledger", "rollups", "rating"]

# Rows as JSON; a file goes by its key, since its number says only which file came first.
ROWS = """
select (to_jsonb(rows) - array['file_id', 'latest_file_id', 'recorded_at']) || jsonb_build_object(
    'file_key',
    (select file_key from landing.files where file_id = (to_jsonb(rows) ->> 'file_id')::bigint)
)
from {} as rows
"""


@pytest.fixture
def sample(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> GeneratedTotals:
    """A drop in each of 24 hours, some usage in them older than the lookback of six hours."""
    monkeypatch.setenv("METERING_LOOKBACK_HOURS", "6")
    monkeypatch.setenv("METERING_FIRST_HOUR", f"{DAY}T00")
    totals = generate(pipeline.root, DAY, 1, range(24), events=1_000, seed=3, shares=SHARES)
    pipeline.set_clock(totals.landing_hours[-1] + timedelta(hours=2))
    return totals


def test_any_way_through_the_hours_gives_the_same_rows(
    pipeline: Pipeline,
    sample: GeneratedTotals,
    server: EmbeddedServer,
    catalog_template: str,
) -> None:
    hours = list(sample.landing_hours)
    shuffled = [*hours, hours[5]]
    random.Random(5).shuffle(shuffled)
    snapshots = []
    for way in (one_range, one_by_one, one_by_one):
        begin_anew(server, catalog_template)
        way(pipeline, shuffled if snapshots[1:] else hours)
        assert pipeline.rows("select count(*) > 0 from rollups.late_arrivals") == [(True,)]
        pipeline.run_job("late_arrivals")
        assert pipeline.rows("select * from ledger.pending") == []
        snapshots.append(snapshot(pipeline))
    range_run, in_order, out_of_order = snapshots
    for table, rows in range_run.items():
        assert in_order[table] == rows, table
        assert out_of_order[table] == rows, table
    counts = {table: rows.total() for table, rows in range_run.items()}
    assert counts["ledger.usage_events"] == sample.events.total()
    assert counts["ledger.duplicates"] == sample.duplicates
    assert counts["ledger.voids"] == sample.voids
    assert counts["ledger.conflicts"] == sample.conflicts
    assert counts["rating.rated_lines"] > 0


def begin_anew(server: EmbeddedServer, catalog_template: str) -> None:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {catalog_template} strategy wal_log")


def one_range(pipeline: Pipeline, hours: Sequence[datetime]) -> None:
    pipeline.run(hours[0], hours[-1])


def one_by_one(pipeline: Pipeline, hours: Sequence[datetime]) -> None:
    """What a run of the job hourly does, without Dagster around it; rated twice."""
    from metering_pipeline.transform.assets import END_OF_TIME
    from metering_pipeline.transform.dbt import run_dbt

    configured = settings.load()
    database = postgres.open_database(configured)
    for number, hour in enumerate(hours, start=1):
        land_hours(database.url, configured, hour, hour, configured.now())
        run_dbt(database, "run", ["metering.ledger.usage_events"], Window(hour, hour + HOUR))
        rollups = ["usage_contributions", "usage_hourly"]
        run_dbt(database, "run", rollups, Window(hour, END_OF_TIME))
        if number % 12 == 0:
            list_hours(database.url, configured, configured.now())
            run_dbt(database, "run", ["usage_daily", "path:models/rating"])


def snapshot(pipeline: Pipeline) -> dict[str, Counter[str]]:
    """Every table's rows, as text, with how often each is there."""
    tables = pipeline.rows(
        """
        select table_schema || '.' || table_name
        from information_schema.tables
        where table_schema = any(%s) and table_name !~ '_[0-9]{8}$'
        order by 1
        """,
        STAGES,
    )
    return {
        table: Counter(str(row) for (row,) in pipeline.rows(ROWS.format(table)))
        for (table,) in tables
    }
