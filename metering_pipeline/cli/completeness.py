"""Commands about what producers say that they sent."""

from datetime import UTC, datetime

import click

from metering_pipeline import settings
from metering_pipeline.cli.group import cli, console
from metering_pipeline.cli.values import Hour


@cli.command()
@click.argument("source")
@click.option("--hour", type=Hour(), help="One landing hour, as 2026-01-31T13.")
@click.option("--from", "first", type=Hour(), help="The first landing hour of a range.")
@click.option("--to", "last", type=Hour(), help="The last landing hour of the range (inclusive).")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why: it is kept for good.")
def waive(
    source: str,
    hour: datetime | None,
    first: datetime | None,
    last: datetime | None,
    by: str,
    why: str,
) -> None:
    """Let a source's landing hours count as complete although a manifest lacks or its totals differ.

    Good for what is wrong now: when its figures change, or a manifest comes that differs, invoices are
    held again. Documents that were issued with it say so in invoices.hold_releases.
    """
    if hour is not None and first is None and last is None:
        first = last = hour
    if first is None or last is None or (hour is not None and first != hour) or last < first:
        raise click.UsageError("Give --hour, or --from and --to, the earlier first.")
    from metering_pipeline.postgres import open_database
    from metering_pipeline.reconciliation.waivers import waive as waive_problems

    configured = settings.load()
    waived = waive_problems(
        open_database(configured), source, first, last, by, why, configured.now()
    )
    console.print(f"Waived: {len(waived)}.")
    for each in waived:
        at = each.landed_hour.astimezone(UTC)
        console.print(
            f"  {at:%Y-%m-%dT%H} {each.detail}", markup=False, highlight=False, soft_wrap=True
        )
