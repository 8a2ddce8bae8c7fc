"""Changes of the rollups and of the drafts, shown to a person."""

from collections.abc import Iterable, Sequence
from datetime import UTC
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline.transform.posting import (
    BucketChanges,
    Changes,
    DraftChange,
    LineChange,
    RowChanges,
)

TOP_ROWS = 20
"""Tenants and metrics shown, those with most buckets first; the totals count all."""

TOP_LINES = 5
"""Lines shown of a draft."""

KINDS = ("new", "changed", "vanished")


def print_row_changes(console: Console, tables: Iterable[RowChanges], title: str) -> None:
    """Print how many rows of each table stay, and how many do not."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("table")
    for heading in ("identical", *KINDS):
        shown.add_column(heading, justify="right")
    for each in tables:
        shown.add_row(f"rollups.{each.table}", f"{each.identical:,}", *_kinds(each))
    console.print(shown)


def print_bucket_changes(console: Console, changes: Changes, title: str) -> None:
    """Print the hourly buckets that change with what they hold before and after: totals by metric, then
    tenants. Nothing where nothing changes."""
    if not changes.buckets:
        return
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("tenant", "metric"):
        shown.add_column(heading, overflow="fold")
    for heading in (*KINDS, "sum of values"):
        shown.add_column(heading, justify="right", overflow="fold")
    for metric in sorted({each.metric for each in changes.buckets}):
        of_metric = [each for each in changes.buckets if each.metric == metric]
        shown.add_row("all", escape(metric), *_figures(_total(of_metric)), style="bold")
    shown.add_section()
    most = sorted(
        changes.buckets,
        key=lambda each: (-each.new - each.changed - each.vanished, each.tenant_id, each.metric),
    )
    for each in most[:TOP_ROWS]:
        shown.add_row(escape(each.tenant_id), escape(each.metric), *_figures(each))
    console.print(shown)
    if len(most) > TOP_ROWS:
        console.print(f"and {len(most) - TOP_ROWS:,} more tenants and metrics")


def print_draft_changes(console: Console, drafts: Sequence[DraftChange], title: str) -> None:
    """Print the drafts that change, what each comes to before and after, and by which lines.

    Nothing where nothing changes.
    """
    if not drafts:
        return
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("draft, charge", "adjusts, service period"):
        shown.add_column(heading, overflow="fold")
    for heading in ("quantity", "amount"):
        shown.add_column(heading, justify="right", overflow="fold")
    for currency in sorted({each.currency for each in drafts}):
        of_currency = [each for each in drafts if each.currency == currency]
        before = sum((each.total_before for each in of_currency), start=Decimal(0))
        after = sum((each.total_after for each in of_currency), start=Decimal(0))
        name = f"{len(of_currency):,} drafts"
        shown.add_row(name, "", "", _change(before, after, currency), style="bold")
    shown.add_section()
    for each in drafts[:TOP_ROWS]:
        total = _change(each.total_before, each.total_after, each.currency)
        shown.add_row(escape(each.draft_id), escape(each.adjusts), "", total)
        for line in each.lines[:TOP_LINES]:
            shown.add_row(*_line(line), style="dim")
        if len(each.lines) > TOP_LINES:
            shown.add_row(
                f"  and {len(each.lines) - TOP_LINES:,} more lines", "", "", "", style="dim"
            )
    console.print(shown)
    if len(drafts) > TOP_ROWS:
        console.print(f"and {len(drafts) - TOP_ROWS:,} more drafts")


def _line(line: LineChange) -> tuple[str, str, str, str]:
    component = "" if line.component in ("usage", "flat") else f" ({line.component})"
    period = " to ".join(
        f"{instant.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
        for instant in (line.slice_start, line.slice_end)
    )
    return (
        f"  {escape(line.charge_id)}{component}",
        period,
        _change(line.quantity_before, line.quantity_after),
        _change(line.amount_before, line.amount_after),
    )


def _change(before: Decimal, after: Decimal, unit: str = "") -> str:
    return f"{before:,f} → {after:,f} {unit}".rstrip()


def _total(buckets: list[BucketChanges]) -> BucketChanges:
    return BucketChanges(
        tenant_id="",
        metric=buckets[0].metric,
        new=sum(each.new for each in buckets),
        changed=sum(each.changed for each in buckets),
        vanished=sum(each.vanished for each in buckets),
        events_before=sum(each.events_before for each in buckets),
        events_after=sum(each.events_after for each in buckets),
        quantity_before=sum((each.quantity_before for each in buckets), start=Decimal(0)),
        quantity_after=sum((each.quantity_after for each in buckets), start=Decimal(0)),
    )


def _figures(each: BucketChanges) -> Iterable[str]:
    yield from _kinds(each)
    yield f"{each.quantity_before:,f} → {each.quantity_after:,f}"


def _kinds(each: RowChanges | BucketChanges) -> Iterable[str]:
    return (f"{getattr(each, kind):,}" for kind in KINDS)
