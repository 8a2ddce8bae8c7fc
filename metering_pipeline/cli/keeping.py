"""Commands about what is kept, and what not."""

from pathlib import Path

import click

from metering_pipeline.cli.group import cli, console


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
    erased as it lands. It takes the pipeline's lock: a running step is waited for, the next one waits.
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
