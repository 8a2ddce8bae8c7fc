"""What ``metering run --dry-run`` prints."""

from collections import Counter
from datetime import datetime

from rich.console import Console
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.changes import print_bucket_changes, print_draft_changes, print_row_changes
from metering_pipeline.execution import catalog_has_changed
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import open_database
from metering_pipeline.progress import step
from metering_pipeline.settings import HOUR
from metering_pipeline.transform.dry_run import DryRun, dry_run


def rehearse(console: Console, first: datetime, last: datetime) -> None:
    """Print what a run of the landing hours from first to last would change; nothing is changed."""
    configured = settings.load()
    database = open_database(configured, reading=True)
    if catalog_has_changed(database):
        console.print(
            "[yellow]The catalog's seeds are not published as they are now. A run publishes them first and "
            "rolls up what that changes; this dry run goes by the published catalog.[/yellow]"
        )
    window = Window(first, last + HOUR)
    with step(console, f"Dry run of {window}") as say:
        outcome = dry_run(database, configured, window)
        say("undone")
    print_dry_run(console, outcome)


def print_dry_run(console: Console, outcome: DryRun) -> None:
    """Print stage by stage what would change."""
    files = sum(each.files_landed for each in outcome.landed)
    console.print(
        f"landing: {files:,} files would be landed ({sum(each.files_unchanged for each in outcome.landed):,} "
        f"unchanged): {sum(each.accepted for each in outcome.landed):,} records accepted, "
        f"{sum(each.rejected for each in outcome.landed):,} rejected"
    )
    reasons = sum((each.reasons for each in outcome.landed), start=Counter[str]())
    for reason, count in reasons.most_common():
        console.print(f"  {count:,} {reason}")
    for hour in outcome.landed:
        for each in hour.unknown:
            console.print(
                f"  not landed: {each.path}: {each.problem}", markup=False, soft_wrap=True
            )
    ledger = Table(title="Rows that would be posted", title_justify="left")
    ledger.add_column("table")
    for heading in ("added", "removed"):
        ledger.add_column(heading, justify="right")
    for table in outcome.posted:
        ledger.add_row(f"ledger.{table.table}", f"{table.added:,}", f"{table.removed:,}")
    console.print(ledger)
    print_row_changes(
        console, outcome.rollups.tables, "Rows of the rollups of which something landed"
    )
    print_bucket_changes(console, outcome.rollups, "Hourly buckets that would change")
    if outcome.late_keys:
        console.print(
            f"{outcome.late_keys:,} keys of ledger.pending are beyond the lookback and would wait for the job "
            "late_arrivals."
        )
    print_draft_changes(console, outcome.drafts, "Drafts that would change")
    console.print("Nothing was changed.")
