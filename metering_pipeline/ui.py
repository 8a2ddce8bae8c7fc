"""Dagster's webserver and daemon on one home, for ``metering ui``."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil
from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError
from metering_pipeline.execution import prepare_dagster
from metering_pipeline.postgres import open_database
from metering_pipeline.settings import PROJECT_ROOT
from metering_pipeline.transform.dbt import dbt_project

HOST = "127.0.0.1"
"""Dagster's page has no login: nobody else may reach it. Publish it through a proxy that has one."""

GRACE_SECONDS = 15
"""Time for both, and for runs in progress, to end by themselves."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class UiEnded(MeteringError):
    """The webserver or the daemon ended although nobody asked for it; its own output says why."""


def serve(console: Console, port: int) -> None:
    """Run both until the user interrupts, then end both. Raises UiEnded if one ends by itself."""
    configured = settings.load()
    prepare_dagster(open_database(configured), configured.home)
    dbt_project()  # parsed once, here: webserver and daemon each load the definitions
    # the children run in the project's folder: a home named relative to ours must not move
    os.environ["METERING_HOME"] = str(configured.home.resolve())
    # an explicit handler for each: a shell starts what it puts in the background with SIGINT ignored
    before = {sign: signal.signal(sign, _interrupt) for sign in ENDING}
    started: list[subprocess.Popen[bytes]] = []
    try:
        workspace = ("-w", str(PROJECT_ROOT / "workspace.yaml"))
        address = ("--host", HOST, "--port", str(port))
        started.append(_start("dagster_webserver", *workspace, *address))
        started.append(_start("dagster._daemon", "run", *workspace))
        console.print(
            f"Dagster at http://{HOST}:{port} (ready in about half a minute; Ctrl-C ends it)"
        )
        _wait_for_an_end(started)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        _end(started)
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    # a session of its own: Dagster's processes start others, and all of them are ended together
    return subprocess.Popen(  # noqa: S603  (our own interpreter, fixed arguments)
        [sys.executable, "-m", module, *arguments], cwd=PROJECT_ROOT, start_new_session=True
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait_for_an_end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    while True:
        for name, process in zip(("webserver", "daemon"), started, strict=True):
            if (code := process.poll()) is not None:
                raise UiEnded(f"Dagster's {name} ended by itself, exit code {code}: see above.")
        time.sleep(0.5)


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the sessions, kindly at first. A second Ctrl-C does not cut this short and leave some."""
    for sign in ENDING:
        signal.signal(sign, signal.SIG_IGN)
    leaders = [process.pid for process in started]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in _members(leaders):
            _send(process, sign)
        deadline = time.monotonic() + GRACE_SECONDS
        while _members(leaders) and time.monotonic() < deadline:
            time.sleep(0.2)
            for leader in started:
                leader.poll()  # an ended child stays as a zombie until it is asked after


def _members(leaders: Sequence[int]) -> list[psutil.Process]:
    """Whatever lives in the sessions: code servers and runs too, when their leader has gone."""
    return [process for process in psutil.process_iter() if _session(process) in leaders]


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
