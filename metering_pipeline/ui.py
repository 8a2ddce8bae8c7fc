"""Dagster's webserver and daemon on one home, for ``metering ui``."""

import os
import signal
import subprocess
import sys
import time

from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.execution import prepare_dagster
from metering_pipeline.postgres import open_database
from metering_pipeline.settings import PROJECT_ROOT

GRACE_SECONDS = 10


def serve(console: Console, port: int) -> None:
    """Run both until one of them ends or the user interrupts; then end both."""
    configured = settings.load()
    prepare_dagster(open_database(configured), configured.home)
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    os.environ.update(_absolute_home(configured))
    webserver = _start(
        "dagster_webserver", "-w", workspace, "--host", "127.0.0.1", "--port", str(port)
    )
    daemon = _start("dagster._daemon", "run", "-w", workspace)
    console.print(f"Dagster at http://127.0.0.1:{port} (ready in about half a minute; Ctrl-C ends it)")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while webserver.poll() is None and daemon.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        for process in (webserver, daemon):
            _end(process)


def _absolute_home(configured: settings.Settings) -> dict[str, str]:
    """The children run in the project's folder: a home named relative to ours must not move."""
    return {"METERING_HOME": str(configured.home.resolve())}


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    # a session of its own: Dagster's processes start others, and all of them are ended together
    return subprocess.Popen(  # noqa: S603  (our own interpreter, fixed arguments)
        [sys.executable, "-m", module, *arguments], cwd=PROJECT_ROOT, start_new_session=True
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    # the group may hold children of the ended leader still
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
