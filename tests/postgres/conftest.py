"""A month of usage, made once a session by the real models and cloned for each test."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.postgres import Database
from tests.postgres.archive import fill
from tests.postgres.billing_world import CATALOG, World, sell, use_january

WORLD_TEMPLATE = "metering_billing_template"
UNTOUCHED = "metering_untouched"


@pytest.fixture(scope="session")
def world_template(server: EmbeddedServer) -> str:
    """A database with January landed, rolled up, rated and drafted."""
    address = server.start()
    _make(address.url("postgres"), "metering", "metering_template")
    database = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    with database.connect(autocommit=True) as connection:
        world = World(database, connection)
        sell(connection)
        use_january(world)
        world.run("2026-01-12", "2026-01-15", *CATALOG)
        connection.execute("vacuum analyze")
        assert world.check() == set()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("alter database metering rename to {}").format(sql.Identifier(WORLD_TEMPLATE))
        )
    return WORLD_TEMPLATE


@pytest.fixture
def whole_world(server: EmbeddedServer, world_template: str) -> Iterator[World]:
    """A clone of it for one test, for what needs sessions of its own or the models."""
    address = server.start()
    _make(address.url("postgres"), "metering", world_template)
    database = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    with database.connect(autocommit=True) as connection:
        yield World(database, connection)


@pytest.fixture(scope="session")
def untouched(server: EmbeddedServer, world_template: str) -> Database:
    """A clone that nobody changes for good."""
    address = server.start()
    _make(address.url("postgres"), UNTOUCHED, world_template)
    return Database(url=address.url(UNTOUCHED), dagster_url=address.url("dagster"))


@pytest.fixture(scope="session")
def archive(server: EmbeddedServer) -> tuple[Database, dict[str, str]]:
    """A database with issued documents of every kind, and their numbers by what they are."""
    address = server.start()
    _make(address.url("postgres"), "metering_archive", "metering_template")
    database = Database(url=address.url("metering_archive"), dagster_url=address.url("dagster"))
    with database.connect() as connection:
        return database, fill(connection)


@pytest.fixture
def world(untouched: Database) -> Iterator[World]:
    """It within one transaction that is undone at the end: cheap, for what needs one session only."""
    with (
        untouched.connect(autocommit=True) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield World(untouched, connection)


def _make(server_url: str, name: str, template: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        for statement in (
            "drop database if exists {name} with (force)",
            "create database {name} template {template} strategy wal_log",
        ):
            connection.execute(sql.SQL(statement).format(**names))
