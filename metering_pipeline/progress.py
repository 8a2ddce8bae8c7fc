"""Long work shown to a person: a step's title while it runs, what it reports, and how long it took."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status


class Remark:
    """What a step has to say of itself when it is done."""

    text = ""

    def __call__(self, text: str) -> None:
        self.text = text


class _ToStatus(logging.Handler):
    """Shows the pipeline's log messages beside the title of the step that runs."""

    def __init__(self, status: Status, title: str) -> None:
        super().__init__()
        self.status = status
        self.title = title

    def emit(self, record: logging.LogRecord) -> None:
        self.status.update(f"{self.title} … [dim]{record.getMessage()}[/dim]")


@contextmanager
def step(console: Console, title: str) -> Iterator[Remark]:
    """Show a step while it runs; leave a line with its time in seconds when it is done."""
    remark = Remark()
    started = time.monotonic()
    logger = logging.getLogger("metering_pipeline")
    with _kept(console) as terminal, terminal.status(f"{title} …") as status:
        handler = _ToStatus(status, title)
        logger.addHandler(handler)
        try:
            yield remark
        finally:
            logger.removeHandler(handler)
    tail = f" ({remark.text})" if remark.text else ""
    console.print(f"[green]✓[/green] {title}{tail} [dim]{time.monotonic() - started:.1f} s[/dim]")


@contextmanager
def _kept(console: Console) -> Iterator[Console]:
    """The console as it is now: while one of Dagster's steps runs, the process's output goes to a file."""
    if not console.is_terminal:
        yield console
        return
    with os.fdopen(os.dup(console.file.fileno()), "w") as terminal:
        yield Console(file=terminal)
