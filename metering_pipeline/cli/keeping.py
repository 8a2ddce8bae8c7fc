"""Commands about what is kept, and what not."""

import sys
from datetime import date
from pathlib import Path

import click

from metering_pipeline.cli.group import cli, console
from metering_pipeline.cli.values import Day


@cli.command()
@click.option("--tenant", required=True, metavar="TENANT", help="Whose requests.")
@click.option("--correlation-id", "requests", multiple=True, metavar="ID", help="A request; again for more.")  # fmt: skip
@click.option("--from-file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A file of correlation ids, one a line.")  # fmt: skip
@click.option("--by", required=True, help="Who erases.")
@click.option("--why", required=True, help="Why: it is kept for good, so name no person.")
@click.option("--dry-run", is_flag=True, help="Show what would be erased; change nothing.")
def erase(
    tenant: str, requests: tuple[str, ...], file: Path | None, by: str, why: str, dry_run: bool
) -> None:
    """Erase what a tenant's requests say beyond what is counted: for good, wherever the database has it.

    Properties that no metric reads go, from landing, ledger and rejected records; hashes, quantities and declared
    dimensions stay, so no figure changes and every law can still be proved. What lands of these requests later is
    erased as it lands. It takes the pipeline's locks: a running step is waited for, the next one waits.
    """
    from metering_pipeline.erase import erase_and_print

    wanted = [*requests, *(_lines(file) if file else ())]
    if not wanted:
        raise click.UsageError("Whose payloads? Give --correlation-id, or --from-file.")
    erase_and_print(console, tenant, wanted, by, why, keep=not dry_run)


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise click.UsageError(f"{file} is not UTF-8: write one correlation id a line.") from None


@cli.group()
def archive() -> None:
    """Old days of landing and of the ledger, as Parquet files instead of rows."""


@archive.command()
def write() -> None:
    """Archive the days of landing and of the ledger that are older than METERING_ARCHIVE_AFTER_DAYS.

    Each is written to Parquet, read back and compared, proved once more (L1 to L3), and taken out of the database: in
    one transaction, or not at all. A day of the ledger stays as long as it is needed: until all that has its records
    is archived, and until it is billed. Exit code 1 if a day was refused.
    """
    from metering_pipeline.archive import archive_due

    sys.exit(0 if archive_due(console) else 1)


@archive.command(name="list")
def list_archived() -> None:
    """The days that are archived, with their files."""
    from metering_pipeline.archive import list_archives

    list_archives(console)


@archive.command()
@click.argument("days", nargs=-1, required=True, type=Day())
@click.option("--stage", type=click.Choice(["landing", "ledger"]), help="Default: both, as far as they are archived.")  # fmt: skip
def attach(days: tuple[date, ...], stage: str | None) -> None:
    """Put archived days back into the database, row for row, to prove, rebuild or explain them.

    With a day of landing come the days of the ledger that have records of it.
    """
    from metering_pipeline.archive import attach as attach_days
    from metering_pipeline.landing.archives import Stage

    attach_days(console, list(days), Stage(stage) if stage else None)
