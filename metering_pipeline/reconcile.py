"""What ``metering reconcile`` does and prints."""

import getpass
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.postgres import open_database
from metering_pipeline.progress import step
from metering_pipeline.reconciliation.providers.comparing import Comparison, compare
from metering_pipeline.reconciliation.providers.fetching import fetch, provider, usual_span
from metering_pipeline.reconciliation.providers.usage import ProviderError, Span

SHOWN = 20
"""Periods that are printed; all are in reconciliation.provider_periods."""


def reconcile(console: Console, source: str | None, span: Span | None) -> bool:
    """Fetch a provider's usage, compare it with ours and print the differences; whether all are within the
    threshold. Raises ProviderError."""
    configured = settings.load()
    named = source or configured.provider_usage
    if named is None:
        raise ProviderError(
            "Say whose usage: --source csv:PATH, stripe or table:SCHEMA.NAME, or set METERING_PROVIDER_USAGE."
        )
    database = open_database(configured)
    now = configured.now()
    asked = provider(configured, database, named)
    with step(console, f"Usage of {escape(named)}") as remark:
        fetched = fetch(database, asked, span or usual_span(named, now), getpass.getuser(), now)
        remark(f"{fetched.values:,} values, {fetched.span}")
    with step(console, "Compared with ours"), database.connect() as connection:
        comparison = compare(connection, fetched.source)
    print_comparison(console, comparison)
    return not comparison.beyond


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the periods, those that differ most first, then their causes, and what to do about these."""
    beyond = len(comparison.beyond)
    agreeing = [each for each in comparison.periods if each.state == "identical"]
    within = len(comparison.periods) - beyond - len(agreeing)
    table = Table(
        title=f"{len(comparison.periods):,} periods: {beyond:,} differ, {within:,} within the threshold, "
        f"{len(agreeing):,} identical",
        title_justify="left",
    )
    for heading in ("tenant", "metric", "period"):
        table.add_column(heading, overflow="fold")
    for heading in ("theirs", "ours"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("state")
    for each in comparison.periods[:SHOWN]:
        figures = ("none" if side is None else f"{side:,f}" for side in (each.theirs, each.ours))
        style = "red" if each.is_beyond else None
        table.add_row(
            *map(escape, (each.who, each.what, each.when, *figures, each.state)), style=style
        )
    console.print(table)
    if len(comparison.periods) > SHOWN:
        console.print(
            f"and {len(comparison.periods) - SHOWN:,} periods more: reconciliation.provider_periods"
        )
    for line in (*_why(comparison), *comparison.advice()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _why(comparison: Comparison) -> Iterator[str]:
    for each in comparison.periods[:SHOWN]:
        causes = comparison.causes.get(each, [])
        if causes:
            yield f"{each.who} {each.what}, {each.when}:"
        yield from (f"  {cause}" for cause in causes)
