"""What ``metering rebuild`` does and prints."""

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.changes import print_bucket_changes, print_draft_changes, print_row_changes
from metering_pipeline.postgres import open_database
from metering_pipeline.progress import step
from metering_pipeline.reconciliation.rebuild import Comparison, Sample, rebuild_ledger
from metering_pipeline.reconciliation.rebuild_landing import LandingComparison, rebuild_landing
from metering_pipeline.settings import HOUR
from metering_pipeline.transform.rebuild import Rebuilt, rebuild_rollups


def compare_landing(
    console: Console, first: datetime, last: datetime, repair: bool, samples: int
) -> bool:
    """Read the files of landing hours again, print how landing differs, mend it if asked; whether it is well now."""
    configured = settings.load()
    with step(console, "Landing, read again from its files and compared") as say:
        compared = rebuild_landing(
            open_database(configured, reading=True),
            configured.landing_root,
            first,
            last + HOUR,
            repair,
            samples,
        )
        say(f"{compared.files:,} files, {compared.records:,} records")
    print_landing(console, compared, samples)
    return compared.is_well or (bool(compared.repaired) and not compared.changed)


def print_landing(console: Console, compared: LandingComparison, samples: int) -> None:
    """Print the records that differ, the files that could not testify, and what was mended."""
    lines = [*map(str, compared.samples), *compared.remarks]
    if compared.gone:
        shown = ", ".join(compared.gone[:samples])
        lines.append(f"Not compared: {len(compared.gone):,} files that are gone, as {shown}")
    if compared.archived_days:
        lines.append(
            f"Not compared: {compared.archived_days:,} days that are archived (metering archive list)"
        )
    if compared.differing:
        lines.append(
            f"{compared.missing:,} missing, {compared.extra:,} extra, {compared.modified:,} modified"
        )
    if compared.repaired:
        lines.append(
            f"Repaired: {', '.join(compared.repaired)}. Their hours wait to be posted again: metering run."
        )
    elif not compared.is_well:
        lines.append(
            "Landing is not what its files say. Nothing was changed; --repair puts back what the files say."
        )
    else:
        lines.append("Landing is what its files say, record for record.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def compare_ledger(
    console: Console, first: datetime | None, last: datetime | None, repair: bool, samples: int
) -> bool:
    """Build the ledger anew from landing, print how it differs, mend it if asked; whether it is well now."""
    configured = settings.load()
    with step(console, "The ledger, built anew from landing and compared") as say:
        comparison = rebuild_ledger(
            open_database(configured, reading=True),
            first,
            last + HOUR if last else None,
            configured.now(),
            repair=repair,
            samples=samples,
        )
        say(f"{comparison.days:,} days of usage")
    print_comparison(console, comparison)
    return comparison.differing == 0 or comparison.repair is not None


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print each table's figures, the rows that differ, and what was not compared or was mended."""
    table = Table(title="Ledger against landing", title_justify="left")
    table.add_column("table")
    for heading in ("identical", "missing", "extra", "modified"):
        table.add_column(heading, justify="right")
    for each in comparison.tables:
        figures = (each.missing, each.extra, each.modified)
        differing = [f"[red]{figure:,}[/red]" if figure else "0" for figure in figures]
        table.add_row(f"ledger.{each.table}", f"{each.identical:,}", *differing)
    console.print(table)
    _print_samples(console, comparison)
    if comparison.waiting_hours:
        console.print(
            f"Not compared: {comparison.left_out:,} events with a copy in one of the {comparison.waiting_hours:,} "
            "landing hours that wait to be posted. Run those (metering run), then compare again."
        )
    if comparison.archived_days:
        console.print(
            f"Not compared: {comparison.archived_days:,} days of usage whose records are archived "
            "(metering archive list)."
        )
    if comparison.repair is not None:
        console.print(
            f"Repaired: {comparison.repair.deleted:,} rows taken out, {comparison.repair.inserted:,} put in; "
            f"{comparison.repair.pending:,} keys written to ledger.pending. The next run rolls them up; those "
            "beyond the lookback wait for the job late_arrivals."
        )
    elif comparison.differing:
        console.print(
            "[red]The ledger is not what landing says.[/red] Nothing was changed; --repair replaces these rows."
        )
    else:
        console.print("The ledger is what landing says, row for row.")


def _print_samples(console: Console, comparison: Comparison) -> None:
    for table in comparison.tables:
        for difference in ("missing", "extra", "modified"):
            found = [
                sample
                for sample in comparison.samples
                if (sample.table, sample.difference) == (table.table, difference)
            ]
            if not found:
                continue
            count = getattr(table, difference)
            shown = "" if len(found) == count else f" (the first {len(found)} of {count:,})"
            console.print(f"\n{difference} in ledger.{table.table}{shown}", style="bold")
            for sample in found:
                console.print(_line(sample), markup=False, highlight=False, soft_wrap=True)
    if comparison.samples:
        console.print()


def _line(sample: Sample) -> str:
    place = sample.file_key or f"(unknown file {sample.file_id})"
    columns = (
        f" differs in {', '.join(sample.differing_columns)}" if sample.differing_columns else ""
    )
    return (
        f"  {place} line {sample.line_number}{columns}\n"
        f"    {sample.tenant_id} {sample.event_type} "
        f"{sample.occurred_at.astimezone(UTC).isoformat().replace('+00:00', 'Z')} {sample.correlation_id}\n"
        f"    fingerprint {sample.fingerprint}"
    )


def build_rollups(
    console: Console, first: datetime | None, last: datetime | None, keep: bool
) -> bool:
    """Build the rollups anew from the ledger, print what that changes; whether they are well now."""
    configured = settings.load()
    with step(console, "The rollups, built anew from the ledger" + ("" if keep else " and undone")):
        rebuilt = rebuild_rollups(
            open_database(configured, reading=True), first, last + HOUR if last else None, keep
        )
    if rebuilt is None:
        console.print("Nothing has landed.")
        return True
    print_rebuilt(console, rebuilt, keep)
    return keep or rebuilt.changes.differing == 0


def print_rebuilt(console: Console, rebuilt: Rebuilt, keep: bool) -> None:
    """Print the rollups' rows that were, or would be, changed."""
    print_row_changes(console, rebuilt.changes.tables, "Rollups against the ledger")
    print_bucket_changes(console, rebuilt.changes, "Hourly buckets")
    print_draft_changes(console, rebuilt.drafts, "Drafts that would change")
    if rebuilt.owed:
        console.print(
            f"Not compared: {rebuilt.owed:,} keys that the rollups still owed; they were rolled up beforehand"
            f"{'' if keep else ', and that undone too'}."
        )
    if rebuilt.archived_days:
        console.print(
            f"Not rebuilt: {rebuilt.archived_days:,} days of usage whose events are archived (metering archive list)."
        )
    if not rebuilt.changes.differing:
        console.print("The rollups are what the ledger says, row for row.")
    elif keep:
        console.print("Mended. The next run rates what has changed.")
    else:
        console.print(
            "[red]The rollups are not what the ledger says.[/red] Nothing was changed; without --dry-run "
            "these rows are replaced."
        )
