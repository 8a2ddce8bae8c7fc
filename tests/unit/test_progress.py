"""What a person sees of long work on a terminal."""

import contextlib
import logging
import os
import pty
import time
from pathlib import Path

import pytest
from rich.console import Console

from metering_pipeline.progress import step


def drained(terminal: int) -> str:
    """All that was written to a terminal whose other end is closed: it arrives in parts."""
    parts = []
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as file:
        while part := file.read(100_000):
            parts.append(part)
    return b"".join(parts).decode()


def test_progress_is_seen_while_the_output_goes_to_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Dagster makes it while a step runs: the descriptor itself is another file meanwhile."""
    caplog.set_level(logging.INFO, "metering_pipeline")
    seen, shown = pty.openpty()
    with (
        os.fdopen(os.dup(shown), "w") as file,
        (tmp_path / "log").open("wb") as log,
        step(Console(file=file, force_terminal=True, width=80), "Work"),
    ):
        os.dup2(log.fileno(), file.fileno())
        logging.getLogger("metering_pipeline.landing").info("half of it")
        time.sleep(0.3)
        os.dup2(shown, file.fileno())
    os.close(shown)
    written = drained(seen)
    assert "half of it" in written
    assert written.rstrip().endswith("s\x1b[0m")
    assert (tmp_path / "log").read_text() == ""
