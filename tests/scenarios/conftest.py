"""A whole pipeline for one test: files in a landing root, real Dagster runs, a clock that the test moves."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from metering_pipeline import postgres
from metering_pipeline.embedded_server import EmbeddedServer
from tests.conftest import PIPELINE_LOGIN, url_of

CATALOG_TEMPLATE = "metering_catalog_template"


@dataclass
class Pipeline:
    """The pipeline as its users have it, on the test's own database and landing root.

    It runs under a login that owns nothing; ``database`` is the owner's, for what the test itself does.
    """

    root: Path
    database: postgres.Database
    monkeypatch: pytest.MonkeyPatch
    instance: dg.DagsterInstance

    def set_clock(self, instant: datetime) -> None:
        self.monkeypatch.setenv("METERING_CLOCK", instant.isoformat())

    def drop(self, hour: datetime, name: str, events: Iterable[Mapping[str, Any]]) -> Path:
        """Put a file of events into the folder of a landing hour."""
        folder = self.root / f"landed_hour={hour:%Y-%m-%dT%H}"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return path

    def publish_catalog(self, **tables: list[Mapping[str, str]]) -> None:
        """Replace the rows of the given catalog tables and publish."""
        from metering_pipeline.transform.dbt import run_dbt

        with self.database.connect() as connection:
            for table, rows in tables.items():
                name = sql.Identifier("staging", table)
                connection.execute(sql.SQL("delete from {}").format(name))
                for row in rows:
                    connection.execute(
                        sql.SQL("insert into {} ({}) values ({})").format(
                            name,
                            sql.SQL(", ").join(map(sql.Identifier, row)),
                            sql.SQL(", ").join([sql.Placeholder()] * len(row)),
                        ),
                        [value or None for value in row.values()],  # as dbt loads an empty cell
                    )
        run_dbt(self.database, "run", ["catalog_problems", "catalog_versions"])

    def run(self, first: datetime, last: datetime | None = None) -> None:
        """Run landing hours, landing to drafts."""
        from metering_pipeline.execution import run_hours

        run_hours(self.instance, first, last or first)

    def run_job(self, name: str) -> None:
        from metering_pipeline.execution import run_job

        run_job(self.instance, name)

    def issue(self, billing_date: date) -> None:
        """Issue what is due by the end of the date, the day after it."""
        from metering_pipeline.execution import run_billing

        self.set_clock(_midnight(billing_date) + timedelta(days=1))
        run_billing(self.instance, billing_date)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def execute(self, statement: str, *parameters: Any) -> int:
        with self.database.connect() as connection:
            return connection.execute(statement.encode(), parameters).rowcount

    def red_laws(self) -> set[tuple[str, str | None]]:
        """The laws that fail, with their tenants."""
        return set(
            self.rows(
                "select law, tenant_id from reconciliation.current_law_results"
                " where not passed and tenant_id is not null"
            )
        )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


@pytest.fixture(scope="session")
def catalog_template(server: EmbeddedServer) -> str:
    """A template database with the sample catalog published."""
    from metering_pipeline.execution import run_job

    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute("create database metering template metering_template strategy wal_log")
    before = os.environ.get("METERING_DATABASE_URL")
    os.environ["METERING_DATABASE_URL"] = url_of(PIPELINE_LOGIN, address.url("metering"))
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            run_job(instance, "catalog")
    finally:
        if before is None:
            del os.environ["METERING_DATABASE_URL"]
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'metering'"
        )
        connection.execute(f"alter database metering rename to {CATALOG_TEMPLATE}")
    return CATALOG_TEMPLATE


@pytest.fixture
def pipeline(
    server: EmbeddedServer,
    catalog_template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pipeline]:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {catalog_template} strategy wal_log")
    database = postgres.Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    root = tmp_path / "landing"
    root.mkdir()
    monkeypatch.setenv("METERING_DATABASE_URL", url_of(PIPELINE_LOGIN, database.url))
    monkeypatch.setenv("METERING_LANDING_URL", str(root))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(root, database, monkeypatch, instance)


Worlds = Callable[[str, Callable[[], None]], None]


@pytest.fixture
def worlds(
    pipeline: Pipeline, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Worlds:
    """Brings the pipeline into the state of that name: made once a session, then cloned, files and all."""

    def enter(name: str, make: Callable[[], None]) -> None:
        template = f"metering_{name}_template"
        kept = tmp_path_factory.getbasetemp() / template
        address = server.start()
        if not kept.exists():
            make()
            with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
                _clone(connection, "metering", template)
            shutil.copytree(pipeline.root, kept)  # times of files included: landing looks at them
            return
        with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
            _clone(connection, template, "metering")
        shutil.copytree(kept, pipeline.root, dirs_exist_ok=True)

    return enter


def _clone(connection: psycopg.Connection, source: str, target: str) -> None:
    names = {"source": sql.Identifier(source), "target": sql.Identifier(target)}
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (source,)
    )
    connection.execute(sql.SQL("drop database if exists {target} with (force)").format(**names))
    connection.execute(
        sql.SQL("create database {target} template {source} strategy wal_log").format(**names)
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
