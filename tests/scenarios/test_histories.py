"""Random histories: whatever came twice, late, changed or was voided, in any order of runs, the ledger and
the rollups hold the oracle's rows, and posting everything anew gives the same."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from metering_pipeline import postgres
from metering_pipeline.embedded_server import EmbeddedServer
from tests.soak.histories import Step, histories, live_through, live_through_retries, retries
from tests.soak.posting import RecordedModels, through_dbt
from tests.soak.world import World

suite = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def world(
    server: EmbeddedServer, catalog_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One world for all histories: each begins with an empty one."""
    from metering_pipeline.transform.dbt import run_dbt

    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {catalog_template} strategy wal_log")
    database = postgres.Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("METERING_DATABASE_URL", database.url)
        run_dbt(database, "run", ["usage_in_ledger", "usage_realtime"])
        root: Path = tmp_path_factory.mktemp("histories") / "landing"
        recorded = RecordedModels(database)
        with closing(recorded), closing(World(database, root, recorded)) as world:
            yield world


@settings(suite, max_examples=100)
@given(history=histories)
def test_any_history_gives_the_oracles_rows(
    world: World, history: tuple[list[Step], list[tuple[datetime, datetime]]]
) -> None:
    live_through(world, *history)


@settings(suite, max_examples=100)
@given(steps=retries)
def test_whatever_becomes_of_a_retry_it_is_listed_as_the_oracle_says(
    world: World, steps: list[Step]
) -> None:
    live_through_retries(world, steps)


@settings(suite, max_examples=3, phases=[Phase.generate])
@given(history=histories)
def test_dbt_itself_gives_them_too(
    world: World, history: tuple[list[Step], list[tuple[datetime, datetime]]]
) -> None:
    """The histories above go past dbt, for speed: what it sends is sent again."""
    recorded, world.post = world.post, through_dbt(world.database)
    try:
        live_through(world, *history)
    finally:
        world.post = recorded
