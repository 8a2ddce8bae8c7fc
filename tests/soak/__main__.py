"""``python -m tests.soak histories|kills|server-kills|backfill``: crashes and any order of things change no total.

Several may be named, each with its options; each works on a server of its own and leaves nothing.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from hypothesis import HealthCheck, given, seed, settings

from tests.conftest import CARELESS  # whose import also scrubs the environment, as for the tests
from tests.soak import backfill, crashes
from tests.soak.histories import Step, histories, live_through
from tests.soak.posting import RecordedModels
from tests.soak.servers import own_server, publish_catalog
from tests.soak.world import World

QUIET_SECONDS = 20.0
Command = Callable[..., None]


def options(count: int) -> Callable[[Command], Command]:
    """The options that every soak has."""

    def add(command: Command) -> Command:
        command = click.option("--seed", "chosen", type=int, default=1, show_default=True)(command)
        return click.option("--count", type=click.IntRange(1), default=count, show_default=True)(
            command
        )

    return add


@click.group(chain=True)
def cli() -> None:
    """Random histories, and kills at random moments, compared with an oracle in plain Python."""


@cli.command("histories")
@options(1_000)
def run_histories(count: int, chosen: int) -> None:
    """Let random histories happen; a counterexample is shrunk and shown."""
    progress = reporter(time.monotonic())
    done = steps = 0

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @seed(chosen)
    @given(history=histories)
    def each(history: tuple[Sequence[Step], Sequence[tuple[datetime, datetime]]]) -> None:
        nonlocal done, steps
        live_through(world, *history)
        done += 1
        steps += len(history[0])
        progress(f"{done} of {count} histories, {steps} steps")

    with own_server(CARELESS) as place:
        publish_catalog(place.database)
        recorded = RecordedModels(place.database)
        world = World(place.database, place.folder / "landing", recorded)
        with closing(recorded), closing(world):
            each()
    click.echo(f"\n{done} random histories of {steps} steps: each gave the oracle's rows")


@cli.command("kills")
@options(200)
@click.option("--command-line", type=int, default=6, help="Of them, kills of `metering run`.")
def kill_processes(count: int, chosen: int, command_line: int) -> None:
    """Kill the pipeline's process with SIGKILL, run it again, compare."""
    started = time.monotonic()
    if count > command_line:
        click.echo(f"\n{crashes.kill_workers(count - command_line, chosen, reporter(started))}")
    if command_line:
        click.echo(f"\n{crashes.kill_command_lines(command_line, chosen, reporter(started))}")


@cli.command("server-kills")
@options(50)
def kill_servers(count: int, chosen: int) -> None:
    """Kill the whole PostgreSQL server with SIGKILL, start it and the pipeline again, compare."""
    started = time.monotonic()
    click.echo(f"\n{crashes.kill_servers(count, chosen, reporter(started))}")


@cli.command("backfill")
@click.option("--hours", type=click.IntRange(1), default=720, show_default=True)
@click.option("--events", type=click.IntRange(1), default=60_000, show_default=True)
def compare_backfill(hours: int, events: int) -> None:
    """Run a month of landing hours as one run through Dagster and hour by hour; compare every row."""
    with tempfile.TemporaryDirectory(prefix="metering-soak-") as folder:
        seen = backfill.compare(hours, events, Path(folder), reporter(time.monotonic()))
    click.echo(f"\n{seen}")


def reporter(started: float) -> Callable[[str], None]:
    """Shows how far it is: one line written over, or, where there is no terminal, one now and then."""
    shown = started

    def show(text: str) -> None:
        nonlocal shown
        line = f"{text}, {time.monotonic() - started:.0f} s"
        if sys.stderr.isatty():
            click.echo(f"\r{line} ", nl=False, err=True)
        elif time.monotonic() > shown + QUIET_SECONDS:
            shown = time.monotonic()
            click.echo(line, err=True)

    return show


main: Any = cli
if __name__ == "__main__":
    main()
