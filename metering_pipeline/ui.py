"""Dagster's webserver and daemon on one home, for ``metering ui``."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError
from metering_pipeline.execution import dagster_instance
from metering_pipeline.settings import PROJECT_ROOT
from metering_pipeline.transform.dbt import dbt_project

HOST = "127.0.0.1"
"""Dagster's page has no login: nobody else may reach it. Publish it through a proxy that has one."""

GRACE_SECONDS = 15
"""Time for Dagster's processes, and for runs in progress, to end by themselves."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

WORKSPACE = """\
load_from:
  - grpc_server: {{host: localhost, socket: "{socket}", location_name: metering_pipeline}}
"""
"""One code server for both. With the project's own workspace.yaml the webserver and the daemon would each
load the definitions, the daemon anew every minute."""


class UiEnded(MeteringError):
    """A process of Dagster's ended although nobody asked for it; its own output says why."""


def serve(console: Console, port: int, read_only: bool = False) -> None:
    """Run both until the user interrupts, then end both. Raises UiEnded if one ends by itself.

    Read-only: the webserver alone, which refuses to start or to turn on anything.
    """
    configured = settings.load()
    dbt_project()  # parsed here, and Dagster's tables made: the processes would do it all at once
    with dagster_instance():
        pass
    # the children run in the project's folder: a home named relative to ours must not move
    os.environ["METERING_HOME"] = str(configured.home.resolve())
    # an explicit handler for each: a shell starts what it puts in the background with SIGINT ignored
    before = {sign: signal.signal(sign, _interrupt) for sign in ENDING}
    started: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="metering-ui-") as folder:
        try:
            _start_all(started, Path(folder), port, read_only)
            console.print(f"Dagster at http://{HOST}:{port} (Ctrl-C ends it)")
            _wait_for_an_end(started)
        except KeyboardInterrupt:
            console.print("stopping")
        finally:
            _end_all(started)
            for sign, handler in before.items():
                signal.signal(sign, handler)


def _start_all(
    started: dict[str, subprocess.Popen[bytes]], folder: Path, port: int, read_only: bool
) -> None:
    """Start the code server, wait for it, start the others: each is in ``started`` at once."""
    socket = folder / "code.sock"  # not in the home: a socket's path must be short
    workspace = folder / "workspace.yaml"
    workspace.write_text(WORKSPACE.format(socket=socket))
    module = ("-m", "metering_pipeline.definitions", "--location-name", "metering_pipeline")
    started["code server"] = _start(
        "dagster", "code-server", "start", *module, "--socket", str(socket)
    )
    while not socket.exists():
        _raise_if_ended(started)
        time.sleep(0.1)
    address = ("--host", HOST, "--port", str(port))
    mode = ("--read-only",) if read_only else ()
    started["webserver"] = _start("dagster_webserver", "-w", str(workspace), *address, *mode)
    if read_only:
        return
    started["daemon"] = _start("dagster._daemon", "run", "-w", str(workspace))


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    # a session of its own: Dagster's processes start others, and all of them are ended together
    return subprocess.Popen(  # noqa: S603  (our own interpreter, fixed arguments)
        [sys.executable, "-m", module, *arguments], cwd=PROJECT_ROOT, start_new_session=True
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait_for_an_end(started: dict[str, subprocess.Popen[bytes]]) -> None:
    while True:
        _raise_if_ended(started)
        time.sleep(0.5)


def _raise_if_ended(started: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, process in started.items():
        if (code := process.poll()) is not None:
            raise UiEnded(f"Dagster's {name} ended by itself, exit code {code}: see above.")


def _end_all(started: dict[str, subprocess.Popen[bytes]]) -> None:
    """End everything, whatever signals come meanwhile; the code server last, the others call it."""
    for sign in ENDING:
        signal.signal(sign, signal.SIG_IGN)
    code_server = started.pop("code server", None)
    _end([*started.values()])
    if code_server is not None:
        _end([code_server])


def _end(leaders: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the sessions of these processes, kindly at first."""
    sessions = [leader.pid for leader in leaders]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in _members(sessions):
            _send(process, sign)
        deadline = time.monotonic() + GRACE_SECONDS
        while _members(sessions) and time.monotonic() < deadline:
            time.sleep(0.2)
            for leader in leaders:
                leader.poll()  # an ended child stays as a zombie until it is asked after


def _members(sessions: Sequence[int]) -> list[psutil.Process]:
    """Whatever lives in the sessions: code servers and runs too, when their leader has gone."""
    return [process for process in psutil.process_iter() if _session(process) in sessions]


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.Error, ProcessLookupError, PermissionError):
        return None


def _send(process: psutil.Process, sign: signal.Signals) -> None:
    try:
        process.send_signal(sign)
    except psutil.NoSuchProcess:
        return
