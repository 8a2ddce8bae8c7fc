"""Changes of the rollups, shown to a person."""

from collections.abc import Iterable
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline.transform.posting import BucketChanges, Changes, RowChanges

TOP_ROWS = 20
"""Tenants and metrics shown, those with most buckets first; the totals count all."""

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
    for heading in (*KINDS, "quantity"):
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
