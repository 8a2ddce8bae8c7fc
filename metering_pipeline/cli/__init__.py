"""The command line ``metering``."""

import logging
import sys

from rich.console import Console
from rich.markup import escape

from metering_pipeline.cli import (  # each gives its commands to the group
    backup,
    completeness,
    keeping,
    money,
    pipeline,
    proof,
    watching,
)
from metering_pipeline.cli.group import cli
from metering_pipeline.errors import MeteringError

__all__ = [
    "backup", "cli", "completeness", "keeping", "main", "money", "pipeline", "proof", "watching",
]  # fmt: skip


def main() -> None:
    """Entry point: what a person can mend is shown as one message, without a traceback."""
    logging.getLogger("metering_pipeline").setLevel(logging.INFO)
    try:
        cli()
    except MeteringError as error:
        Console(stderr=True).print(
            f"[red]error[/red]: {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
