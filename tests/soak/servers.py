"""A server of a soak's own, with the schema and the sample catalog in its database."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a soak happens; the folder is removed with the server."""

    folder: Path
    server: EmbeddedServer
    database: Database


@contextmanager
def own_server(options: Mapping[str, str]) -> Iterator[Place]:
    """A new server; its address is in the environment too, for dbt and for processes started here."""
    folder = Path(tempfile.mkdtemp(prefix="metering-soak-"))
    folder.chmod(0o755)  # the server's user must enter it
    server = EmbeddedServer(folder, options)
    try:
        address = server.start()
        with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
            connection.execute("create database metering")
            connection.execute("create database dagster")
        database = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
        os.environ["METERING_DATABASE_URL"] = database.url
        open_database(
            Settings(database_url=database.url, dagster_database_url=database.dagster_url)
        )
        yield Place(folder, server, database)
    finally:
        server.stop()
        shutil.rmtree(folder)


def publish_catalog(database: Database) -> None:
    """The sample catalog, and the view that the checks read."""
    from metering_pipeline.transform.dbt import run_dbt

    run_dbt(database, "build", ["resource_type:seed", "path:models/staging", "path:models/catalog"])
    run_dbt(database, "run", ["usage_in_ledger", "usage_realtime"])
