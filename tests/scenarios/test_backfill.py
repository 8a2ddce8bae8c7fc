"""The same landing hours as one range, one by one in order, and shuffled with one of them twice: every table
of ledger, rollups and rating holds the same rows, whatever came twice, late, changed or was voided."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta

import psycopg
import pytest

from metering_pipeline import postgres, settings
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.generate import GeneratedTotals, Shares, generate
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.settings import END_OF_TIME, HOUR, PROJECT_ROOT
from tests.scenarios.conftest import Pipeline
from tests.scenarios.test_ledger_guards import seeded_metrics
from tests.soak import rows
from tests.soak.histories import EVENTS, NAMES
from tests.soak.posting import through_dbt
from tests.soak.world import HOURS, LOOKBACK, SAMPLE, World

DAY = date(2026, 1, 10)
SHARES = Shares(duplicates=0.1, late=0.2, conflicts=0.02, voids=0.04, bad_lines=0.01)
PATIENCE = 240


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
    for table, found in range_run.items():
        assert in_order[table] == found, table
        assert out_of_order[table] == found, table
    counts = {table: found.total() for table, found in range_run.items()}
    assert counts["ledger.usage_events"] == sample.events.total()
    assert counts["ledger.duplicates"] == sample.duplicates
    assert counts["ledger.voids"] == sample.voids
    assert counts["ledger.conflicts"] == sample.conflicts
    assert counts["rating.rated_lines"] > 0


@pytest.fixture
def three_days(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> GeneratedTotals:
    """Two landing hours a day, with storage for Dagster's runs."""
    monkeypatch.setenv("METERING_FIRST_HOUR", f"{DAY}T00")
    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", pipeline.database.dagster_url)
    totals = generate(pipeline.root, DAY, 3, (7, 19), events=900, seed=4, shares=SHARES)
    pipeline.set_clock(totals.landing_hours[-1] + timedelta(hours=24))
    return totals


def test_a_backfill_cut_off_half_way_goes_on_to_the_same_rows(
    pipeline: Pipeline,
    three_days: GeneratedTotals,
    server: EmbeddedServer,
    catalog_template: str,
) -> None:
    """Killed between two parts of the ledger, then interrupted between two of the rollups; and at last over
    hours in which nothing landed."""
    first, *_, last = three_days.landing_hours
    one_by_one(pipeline, three_days.landing_hours)
    pipeline.run_job("drafts")
    in_order = snapshot(pipeline)
    begin_anew(server, catalog_template)
    posted = "select count(*) from landing.hours where posted_at is not null"
    rolled_up = "select count(distinct landed_hour) from rollups.usage_contributions"
    for sent, done in ((signal.SIGKILL, posted), (signal.SIGINT, rolled_up)):
        with backfill(first, last) as process:
            while pipeline.rows(done) == [(0,)]:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(sent)
            process.communicate(timeout=PATIENCE)
        assert process.returncode != 0
        [(hours,)] = pipeline.rows(done)
        assert 0 < hours < len(three_days.landing_hours), "it was too fast to be cut off"
    pipeline.run(first, last)
    pipeline.run(last + HOUR, last + 12 * HOUR)
    for table, found in snapshot(pipeline).items():
        assert in_order[table] == found, table


def test_a_changed_metric_is_rolled_up_over_all_hours(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads another property than before; buckets, and values that it cannot read, come and go."""
    monkeypatch.setenv("METERING_FIRST_HOUR", f"{HOURS[0]:%Y-%m-%dT%H}")
    monkeypatch.setenv("METERING_LOOKBACK_HOURS", str(LOOKBACK // HOUR))
    with closing(World(pipeline.database, pipeline.root, through_dbt(pipeline.database))) as world:
        pipeline.set_clock(world.settings.now())
        chosen = random.Random(2)
        counted = [event for event in EVENTS if not event.get("void")]  # else all would be voided
        for hour in HOURS:
            world.write(hour, NAMES[0], chosen.choices(counted, k=60))
        world.run(HOURS[0], HOURS[-1])
        world.release()
        world.roll_up()
        world.sum_days()
        world.check_rollups()
        before = world.rows("select * from rollups.usage_hourly order by 1, 2, 3, 4")

        pipeline.publish_catalog(
            metrics=[
                {**row, "value_property": "output_tokens"}
                if row["metric"] == "input_tokens"
                else row
                for row in seeded_metrics(pipeline)
            ]
        )
        pipeline.run(HOURS[0], HOURS[-1])
        world.metrics = [
            replace(each, value_property="output_tokens") if each.name == "input_tokens" else each
            for each in SAMPLE
        ]
        world.check_rollups()
        assert world.rows("select * from rollups.usage_hourly order by 1, 2, 3, 4") != before


@contextmanager
def backfill(first: datetime, last: datetime) -> Iterator[subprocess.Popen[str]]:
    """``metering run`` of a range, each hour with files a part."""
    program = (
        "from metering_pipeline.transform import assets; assets.RECORDS_A_PART = 1;"
        "from metering_pipeline.cli import main; main()"
    )
    hours = ["--from", f"{first:%Y-%m-%dT%H}", "--to", f"{last:%Y-%m-%dT%H}"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", *hours],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT_ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def begin_anew(server: EmbeddedServer, catalog_template: str) -> None:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {catalog_template} strategy wal_log")


def one_range(pipeline: Pipeline, hours: Sequence[datetime]) -> None:
    pipeline.run(hours[0], hours[-1])


def one_by_one(pipeline: Pipeline, hours: Sequence[datetime]) -> None:
    """What a run of the job hourly does, without Dagster around it; rated twice."""
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
    with pipeline.database.connect() as connection:
        return rows.snapshot(connection)
