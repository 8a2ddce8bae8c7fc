"""The command ``metering``, which the other modules give their commands to."""

import click
from rich.console import Console

console = Console()


@click.group()
def cli() -> None:
    """Usage metering that can be trusted with invoices."""
