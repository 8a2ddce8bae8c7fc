"""dbt inside the test process: parsed once a session, run against each test's own database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

from metering_pipeline.postgres import Database
from metering_pipeline.settings import PROJECT_ROOT
from metering_pipeline.transform.dbt import _parse, dbt_thread
from tests.dbt.company import Company

PROJECT = str(PROJECT_ROOT / "dbt_project")


class DbtFailed(AssertionError):
    """A dbt command that failed; the message holds what the nodes said."""


@dataclass(frozen=True)
class Dbt:
    """Runs dbt commands in this process with the session's manifest."""

    manifest: Manifest
    folders: tuple[str, ...]

    def __call__(self, command: str, select: str, *flags: str) -> dict[str, str]:
        """Run a command on the selected nodes; the adapter's word for each node that ran.

        Raises DbtFailed.
        """
        arguments = ["--quiet", command, "--select", *select.split(), *flags, *self.folders]
        outcome = dbt_thread.submit(dbtRunner(manifest=self.manifest).invoke, arguments).result()
        results: Any = outcome.result or ()
        failures = [str(each.message) for each in results if each.status in ("error", "fail")]
        if not outcome.success or failures:
            raise DbtFailed("\n".join(failures) or str(outcome.exception))
        return {each.node.name: str(each.message) for each in results}


@pytest.fixture(scope="session")
def parsed_project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, tuple[str, ...]]:
    """The project's manifest, parsed once for all tests, and the flags that keep dbt out of the checkout's own folders."""
    target = tmp_path_factory.mktemp("dbt")
    folders = (
        *("--project-dir", PROJECT, "--profiles-dir", PROJECT),
        *("--target-path", str(target), "--log-level-file", "none", "--no-write-json"),
    )
    return dbt_thread.submit(_parse, "metering").result(), folders


@pytest.fixture
def dbt(
    database: Database,
    parsed_project: tuple[Manifest, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> Dbt:
    """dbt on the test's database."""
    for name, value in database.dbt_environment().items():
        monkeypatch.setenv(name, value)
    return Dbt(*parsed_project)


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    """An autocommitting connection to the test's database."""
    with database.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def company(connection: psycopg.Connection) -> Company:
    """A company without customers: its catalog is still to be written."""
    return Company(connection)


MODELS = (
    *("catalog_problems", "catalog_versions"),
    *("billing_periods", "period_usage_daily", "rated_lines", "draft_invoices"),
)


@pytest.fixture(scope="session")
def scripts(parsed_project: tuple[Manifest, tuple[str, ...]]) -> dict[str, str]:
    """The compiled SQL of the models from the catalog to the drafts, in order."""
    manifest, flags = parsed_project
    without_database = ("--no-introspect", "--no-populate-cache")
    outcome = dbtRunner(manifest=manifest).invoke(
        ["--quiet", "compile", "--select", *MODELS, *without_database, *flags]
    )
    assert outcome.success, outcome.exception
    compiled = {each.node.name: each.node.compiled_code for each in outcome.result}  # type: ignore[union-attr]
    return {name: compiled[name] for name in MODELS}


@pytest.fixture
def rate(company: Company, scripts: dict[str, str]) -> Callable[[], None]:
    """Load the company's catalog, publish it, rate, and draft.

    Runs the models' scripts as the materialization does, each in a transaction of its own, but
    without dbt around them: ten times as fast. test_rating_run.py goes through dbt.
    """
    connection = company.connection

    def run() -> None:
        company.load_catalog()
        for name, script in scripts.items():
            if name == "catalog_problems":
                script = f"create or replace view staging.catalog_problems as {script}"
            with connection.transaction():
                connection.execute(script.encode())

    return run
