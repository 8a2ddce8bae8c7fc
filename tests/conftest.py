"""What every test may use: a real PostgreSQL, a fresh database, and the data beside the checkout.

One embedded server a session, without fsync. Each test that asks for ``database`` gets a clone of
a template that has the schema: 0.1 s. The database's name never changes, so that dbt's partial
parse stays valid from test to test.
"""

import atexit
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from metering_pipeline import postgres
from metering_pipeline.embedded_server import USER, EmbeddedServer
from metering_pipeline.settings import PROJECT_ROOT, Settings

MEMORY = Path("/dev/shm")  # noqa: S108 - every folder made there has a name of its own, and is removed
ROOM = 4 << 30


def _work_in_memory() -> None:
    """Temporary folders, those of the servers among them, in memory where there is plenty. Each clone of a database is
    hundreds of files, and ext4 looks for a place for each among all that were removed in the last minutes: a clone took
    0.4 s of CPU, and takes 0.03. What pytest leaves for a look (tmp_path) stays on the disk.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    if min(psutil.virtual_memory().available, shutil.disk_usage(MEMORY).free) > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


_work_in_memory()

# Tests see the defaults, not what the caller's shell has set, and nothing is sent anywhere.
for _name in list(os.environ):
    if _name.startswith(("METERING_", "DAGSTER_", "DBT_", "PG")):
        del os.environ[_name]
os.environ |= {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DO_NOT_TRACK": "1",
    # One home for all tests: dbt keeps what it has parsed there.
    "METERING_HOME": tempfile.mkdtemp(prefix="metering-home-"),
    "METERING_FIRST_HOUR": "2023-11-01T00",
}
atexit.register(shutil.rmtree, os.environ["METERING_HOME"], ignore_errors=True)

# Read once, here: with a fixed clock, as tests set it, the partitions would end where it stood at the first import.
# The real data is of November 2023; what is listed and proved of all others shall not begin two years before them.
importlib.import_module("metering_pipeline.partitions")
os.environ["METERING_FIRST_HOUR"] = "2025-12-01T00"

CARELESS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",  # it is kept in memory
}
TEMPLATE = "metering_template"
PIPELINE_LOGIN = "pipeline_login"
"""A login that may run the pipeline and owns nothing; its password is its name."""


SLOW = (
    *("tests/browser", "tests/scenarios", "tests/test_benchmarks.py", "tests/fuzz"),
    "tests/postgres/test_seeded_faults.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes go first, so that no worker is left alone with one in the end."""
    slow = tuple(str(PROJECT_ROOT / place) for place in SLOW)
    items.sort(key=lambda item: not str(item.path).startswith(slow))


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A home that PostgreSQL's user can enter, even as root, where pytest's own are closed."""
    home = Path(tempfile.mkdtemp(prefix="metering-tests-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def server(server_home: Path) -> Iterator[EmbeddedServer]:
    """The session's server; its database ``metering_template`` has the schema."""
    server = EmbeddedServer(server_home, CARELESS)
    try:
        address = server.start()
        with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}")
            connection.execute("create database dagster")
        template = address.url(TEMPLATE)
        postgres.open_database(Settings(database_url=template, dagster_database_url=template))
        with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
            # What makes guessing a password slow makes each of the tests' connections slow: twice as long.
            connection.execute("set scram_iterations = 1")
            connection.execute(f"alter role {USER} password '{address.password}'")
            connection.execute(
                f"create role {PIPELINE_LOGIN} login password '{PIPELINE_LOGIN}' in role metering_pipeline"
            )
        yield server
    finally:
        server.stop()


def url_of(login: str, url: str) -> str:
    """The URL for another login, whose password is its name."""
    return re.sub(r"(?<=://)[^@]*(?=@)", f"{login}:{login}", url)


@pytest.fixture
def database(server: EmbeddedServer) -> postgres.Database:
    """A database of the test's own: the schema, the default settings, and no data."""
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {TEMPLATE} strategy wal_log")
    return postgres.Database(url=address.url("metering"), dagster_url=address.url("dagster"))


@pytest.fixture
def settings(database: postgres.Database, tmp_path: Path) -> Settings:
    """Settings that point at the test's database and at an empty landing root, ``landing_url``."""
    landing = tmp_path / "landing"
    landing.mkdir()
    return Settings(
        home=tmp_path,
        database_url=database.url,
        dagster_database_url=database.dagster_url,
        landing_url=str(landing),
    )


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a file or folder of the real data beside the checkout, or skips the test."""

    def find(name: str) -> Path:
        path = PROJECT_ROOT.parent / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"needs the real data {name} in {path.parent}, which is not there")
        return path

    return find
