"""A home is put away whole and brought back as it was, or not at all."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from metering_pipeline import backup as backup_module
from metering_pipeline import postgres
from metering_pipeline.backup import BackupError, back_up, restore
from metering_pipeline.embedded_server import EmbeddedServer, ServerAddress
from metering_pipeline.postgres import embedded_address, open_database
from metering_pipeline.settings import PROJECT_ROOT, Settings
from tests.conftest import url_of

HOUR = "landed_hour=2026-01-31T13"
KEPT = {
    f"landing/{HOUR}/a.ndjson": b'{"tenant_id": "acme"}\n',
    f"landing/{HOUR}/_manifest.json": b"{}",
    "statements/US-000001.pdf": b"%PDF-",
    "dagster/storage/run/compute_logs/x.out": b"",
}
LEFT_OUT = {"dbt/manifest.json": b"{}", "demo/postgres/data/PG_VERSION": b"18"}
ROWS = {
    "metering": "insert into landing.hours (landed_hour, listed_at, file_count, sealed)"
    " values ('2026-01-31T13:00Z', now(), 1, true)",
    "dagster": "create table runs as select generate_series(1, 1000) as run",
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter; the servers of homes in it are stopped."""
    place = Path(tempfile.mkdtemp(prefix="metering-backup-"))
    place.chmod(0o755)
    yield place
    for folder in place.iterdir():
        EmbeddedServer(folder).stop()
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def home(place: Path) -> Settings:
    """A home with files, rows in both of its databases, and a login of its own."""
    settings = Settings(home=place / "home")
    open_database(settings)
    address = embedded_address(settings)
    for database, statement in ROWS.items():
        with psycopg.connect(address.url(database)) as connection:
            connection.execute(statement.encode())
    with psycopg.connect(address.url("postgres")) as connection:
        connection.execute("create role ana login password 'ana' in role metering_analyst")
    for name, content in {**KEPT, **LEFT_OUT}.items():
        path = settings.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return settings


@pytest.fixture(scope="module")
def backup(home: Settings, place: Path) -> Path:
    back_up(home, place / "backup")
    return place / "backup"


def count(url: str, table: str) -> tuple[int] | None:
    with psycopg.connect(url) as connection:
        return connection.execute(f"select count(*) from {table}".encode()).fetchone()


def test_a_home_comes_back_whole(home: Settings, backup: Path, place: Path) -> None:
    """Both databases, the logins and what they may, the files and their times; nothing can be issued."""
    assert backup.stat().st_mode & 0o777 == 0o700
    restored = Settings(home=place / "restored")
    restore(restored, backup)
    files = {
        str(path.relative_to(restored.home)): path.read_bytes()
        for top in ("landing", "statements", "dagster")
        for path in (restored.home / top).rglob("*")
        if path.is_file()
    }
    assert files == KEPT
    for name in LEFT_OUT:
        assert not (restored.home / name).exists()
    for name in KEPT:
        assert (restored.home / name).stat().st_mtime == (home.home / name).stat().st_mtime
    address = embedded_address(restored)
    assert count(url_of("ana", address.url("metering")), "landing.hours") == (1,)
    assert count(address.url("dagster"), "runs") == (1000,)
    with open_database(restored).connect() as connection:
        switch = connection.execute("select stopped, reason from invoices.issuing_switch")
        stopped, reason = switch.fetchone() or (None, "")
    made = json.loads((backup / "backup.json").read_text())["made_at"]
    assert (stopped, made in reason, "docs/runbooks/restore.md" in reason) == (True, True, True)
    assert [each.name for each in place.iterdir() if ".partial-" in each.name] == []


def test_a_backup_before_an_upgrade_is_of_the_old_schema(
    home: Settings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = Path(shutil.copytree(postgres.SCHEMA_FOLDER, place / "newer"))
    (newer / "900_more.sql").write_text("create table catalog.more ();")
    monkeypatch.setattr(postgres, "SCHEMA_FOLDER", newer)
    monkeypatch.setattr(postgres, "apply_schema", partial(postgres.apply_schema, folder=newer))
    back_up(home, place / "before")
    with psycopg.connect(embedded_address(home).url("metering")) as connection:
        assert connection.execute("select to_regclass('catalog.more')").fetchone() == (None,)


def test_where_no_backup_can_be_made(home: Settings, backup: Path, place: Path) -> None:
    for settings, folder, message in (
        (home, backup, "exists: a backup overwrites nothing"),
        (home, home.home / "backup", "lies in the home itself"),
        (Settings(home=place / "nowhere"), place / "new", "has no database"),
        (replace(home, database_url="postgresql://a@b/c"), place / "new", "a server of your own"),
        (home, backup / "backup.json" / "new", "could not be made: .*Not a directory"),
    ):
        with pytest.raises(BackupError, match=message):
            back_up(settings, folder)
    assert not (place / "new").exists()
    assert not (place / "nowhere").exists()


def test_an_archived_day_that_is_attached_meanwhile_is_in_it(
    home: Settings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived = home.home / "archive" / "usage_events_20260101.parquet"
    archived.parent.mkdir(exist_ok=True)
    archived.write_bytes(b"PAR1")
    copy_database = backup_module._copy_database

    def attach_meanwhile(server: EmbeddedServer, address: ServerAddress, building: Path) -> None:
        copy_database(server, address, building)
        archived.unlink()

    monkeypatch.setattr(backup_module, "_copy_database", attach_meanwhile)
    made = back_up(home, place / "while-attaching")
    assert f"archive/{archived.name}" in made.files
    copied = place / "while-attaching" / "home" / "archive" / archived.name
    assert copied.read_bytes() == b"PAR1"


def test_a_restore_overwrites_nothing(home: Settings, backup: Path, place: Path) -> None:
    with pytest.raises(BackupError, match="is not empty: a restore overwrites nothing"):
        restore(home, backup)
    (place / "files-only" / "landing").mkdir(parents=True)
    with pytest.raises(BackupError, match="Move it away, or name another home"):
        restore(Settings(home=place / "files-only"), backup)


def largest(folder: Path) -> Path:
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda copy: (copy / "backup.json").unlink(), "is no backup: it has no backup.json"),
        (lambda copy: (copy / "backup.json").write_text('{"format"'), "cannot be read"),
        (lambda copy: (copy / "conn.json").write_text("{}"), "conn.json cannot be read"),
        (lambda copy: (copy / "conn.json").unlink(), "is no backup"),
        (lambda copy: (copy / "home/landing" / HOUR / "a.ndjson").write_text("{}"), "1 files diff"),
        (lambda copy: (copy / "home/landing" / HOUR / "a.ndjson").unlink(), "the first landing/"),
        (lambda copy: (copy / "home/statements/x.pdf").write_text("x"), "statements/x.pdf"),
        (lambda copy: (copy / "database/global/pg_control").unlink(), "pg_verifybackup: .*pg_control"),
        (lambda copy: flip(largest(copy / "database/base")), "checksum mismatch"),
        (lambda copy: largest(copy / "database/pg_wal").unlink(), "pg_verifybackup: "),
        (lambda copy: tell(copy, postgres="17"), "is of format 1 and PostgreSQL 17"),
    ],
    ids=["no manifest", "torn", "no login", "no address", "changed", "gone", "added", "no control", "bit", "wal", "old"],
)  # fmt: skip
def test_a_backup_that_is_not_whole_is_refused(
    backup: Path, place: Path, harm: object, message: str
) -> None:
    copy = Path(shutil.copytree(backup, place / "harmed"))
    try:
        assert callable(harm)
        harm(copy)
        with pytest.raises(BackupError, match=message):
            restore(Settings(home=place / "refused"), copy)
        assert [each.name for each in place.iterdir() if each.name.startswith("refused")] == []
    finally:
        shutil.rmtree(copy)


def flip(path: Path) -> None:
    """One bit of a file, as a disk does it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def tell(folder: Path, **said: str) -> None:
    path = folder / "backup.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def killed(arguments: list[str], begun: Path, part: str, home: Path) -> None:
    """Run the command line and kill it when a part of what it builds beside the final place is there."""
    script = "from metering_pipeline.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, "db", *arguments],
        cwd=PROJECT_ROOT,
        env={"METERING_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not [*begun.parent.glob(f"{begun.name}.partial-*/{part}")]:
        assert child.poll() is None, "it was faster"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize("part", ["", "database/base", "home/landing"])
def test_a_killed_backup_leaves_none(home: Settings, place: Path, part: str) -> None:
    large = home.home / "landing" / HOUR / "b.ndjson.tmp"
    with large.open("wb") as file:
        file.truncate(512 << 20)
    try:
        killed(["backup", str(place / "torn")], place / "torn", part, home.home)
    finally:
        large.unlink()
    assert not (place / "torn").exists()
    for left in place.glob("torn.partial-*"):
        with pytest.raises(BackupError, match="is no backup"):
            restore(Settings(home=place / "of-torn"), left)
        shutil.rmtree(left, ignore_errors=True)


def test_a_killed_restore_leaves_no_home(backup: Path, place: Path) -> None:
    killed(["restore", str(backup)], place / "half", "postgres", place / "half")
    assert not (place / "half").exists()
    restore(Settings(home=place / "half"), backup)
    assert count(embedded_address(Settings(home=place / "half")).url("dagster"), "runs") == (1000,)


def test_a_landing_root_elsewhere_is_named(home: Settings, place: Path) -> None:
    store = "s3://key:secret@bucket/usage"
    made = back_up(replace(home, landing_url=store), place / "elsewhere")
    assert made.landing_root == "s3://***@bucket/usage"
    assert "secret" not in (place / "elsewhere" / "backup.json").read_text()
    own = back_up(replace(home, landing_url=str(home.home / "landing")), place / "own")
    assert own.landing_root is None
