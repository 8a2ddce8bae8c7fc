"""What ``metering quote`` does, prints and draws."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import open_database
from metering_pipeline.progress import step
from metering_pipeline.transform.shadow import (
    Asked,
    Line,
    TenantChange,
    price,
    rerate,
    rerate_tenant,
)

POINTS = 100
"""Quantities between 0 and the end of the plot at which the cost is computed."""

BEYOND = 2
"""The plot goes so many times as far as the largest quantity that was asked for."""

ZERO = Decimal(0)


def quote_quantities(
    console: Console,
    plans: Sequence[str],
    metric: str,
    quantities: Sequence[Decimal],
    dimensions: Mapping[str, str],
    first_day: date,
    catalog: Path | None,
    plot: Path | None,
) -> None:
    """Print what each quantity would cost under each plan, and draw the cost by quantity if asked to."""
    drawn = _points(quantities) if plot else []
    asked = [
        Asked(plan, metric, quantity, dimensions, first_day)
        for plan in plans
        for quantity in [*quantities, *drawn]
    ]
    with step(console, f"{len(asked):,} quantities rated"):
        quoted = price(open_database(settings.load(), reading=True), asked, catalog)
    answers = list(zip(asked, quoted, strict=True))
    for plan in plans:
        of_plan = [(each, lines) for each, lines in answers if each.plan_id == plan]
        for each, lines in of_plan[: len(quantities)]:
            title = f"{plan}: {each.quantity:,f} of {metric} in a period from {first_day}"
            print_lines(console, title, lines)
    if plot:
        curves = {
            plan: sorted(
                (each.quantity, sum((line.amount for line in lines), ZERO))
                for each, lines in answers
                if each.plan_id == plan
            )
            for plan in plans
        }
        currencies = {lines[0].currency for lines in quoted if lines}
        unfinished = plot.with_name(f".unfinished-{plot.name}")  # its ending says what kind it is
        draw(unfinished, curves, metric, ", ".join(sorted(currencies)), quantities)
        unfinished.replace(plot)
        console.print(f"plot: {plot}", soft_wrap=True)


def quote_tenant(
    console: Console, window: Window, tenant_id: str, plan_id: str | None, catalog: Path | None
) -> None:
    """Print a tenant's rated lines of the window as they are, and under another plan or catalog."""
    with step(console, f"{tenant_id} rated anew"):
        database = open_database(settings.load(), reading=True)
        rerated = rerate_tenant(database, window, tenant_id, plan_id, catalog)
    print_lines(console, f"{tenant_id}, as it is", rerated.before)
    if plan_id is None and catalog is None:
        return
    print_lines(console, f"{tenant_id}, as it would be", rerated.after)
    before, after = _totals(rerated.before), _totals(rerated.after)
    for currency in sorted(before.keys() | after.keys()):
        console.print(_change(before[currency], after[currency], currency))


def quote_month(console: Console, window: Window, catalog: Path) -> None:
    """Print what the window would come to under another catalog, tenant by tenant."""
    with step(console, "The month rated anew"):
        changes = rerate(open_database(settings.load(), reading=True), window, catalog)
    print_changes(console, changes)


def print_lines(console: Console, title: str, lines: Sequence[Line]) -> None:
    """Print rated lines, a table a currency, with their sum. Lines of nothing are left out."""
    if not lines:
        console.print(f"{title}: no line.", markup=False)
    for currency, of_currency in groupby(
        sorted(lines, key=lambda line: line.currency), key=lambda line: line.currency
    ):
        table = Table(
            title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for heading in ("charge", "service period"):
            table.add_column(heading, overflow="fold")
        for heading in ("quantity", currency):
            table.add_column(heading, justify="right", overflow="fold")
        total = ZERO
        for line in of_currency:
            if line.quantity or line.amount:
                table.add_row(*_cells(line))
            total += line.amount
        table.add_section()
        table.add_row("total", "", "", f"{total:,f}", style="bold")
        console.print(table)


def print_changes(console: Console, changes: Iterable[TenantChange]) -> None:
    """Print what each tenant's lines come to before and after: those that change, and the sums."""
    every = list(changes)
    table = Table(title="Rated lines", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("tenant", overflow="fold")
    for heading in ("lines that change", "before", "after", "difference"):
        table.add_column(heading, justify="right", overflow="fold")
    for currency in sorted({each.currency for each in every}):
        of_currency = [each for each in every if each.currency == currency]
        before = sum((each.total_before for each in of_currency), ZERO)
        after = sum((each.total_after for each in of_currency), ZERO)
        lines = sum(each.lines for each in of_currency)
        table.add_row("all", *_figures(lines, before, after, currency), style="bold")
        table.add_section()
        for each in of_currency:
            if each.lines:
                figures = _figures(each.lines, each.total_before, each.total_after, currency)
                table.add_row(escape(each.tenant_id), *figures)
        table.add_section()
    console.print(table)


def draw(
    place: Path,
    curves: Mapping[str, Sequence[tuple[Decimal, Decimal]]],
    metric: str,
    currency: str,
    asked: Sequence[Decimal],
) -> None:
    """A picture of the cost by quantity, a line a plan; its kind follows from the name's ending."""
    from matplotlib.figure import Figure  # takes a second, which no other command shall wait for

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for number, (plan, points) in enumerate(curves.items()):
        quantities, amounts = zip(*points, strict=True)
        style = ("-", "--", "-.", ":")[number % 4]  # to be told apart without colors
        axes.plot([*map(float, quantities)], [*map(float, amounts)], style, label=plan)
    for quantity in asked:
        axes.axvline(float(quantity), color="black", linewidth=0.8, alpha=0.5)
    axes.set(xlabel=metric, ylabel=f"cost of a period, {currency}", xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(place, dpi=110)


def _points(quantities: Sequence[Decimal]) -> list[Decimal]:
    """Whole quantities from 0 to beyond the largest one, evenly."""
    end = max(max(quantities) * BEYOND, Decimal(POINTS))
    return [Decimal(round(end * number / POINTS)) for number in range(POINTS + 1)]


def _cells(line: Line) -> tuple[str, str, str, str]:
    component = "" if line.component in ("usage", "flat") else f" ({line.component})"
    return (
        escape(f"{line.description}{component}"),
        f"{_moment(line.slice_start)} to {_moment(line.slice_end)}",
        f"{line.quantity:,f}",
        f"{line.amount:,f}",
    )


def _moment(instant: datetime) -> str:
    midnight = instant.time() == time()
    return f"{instant:%Y-%m-%d}" if midnight else f"{instant:%Y-%m-%dT%H:%MZ}"


def _totals(lines: Iterable[Line]) -> defaultdict[str, Decimal]:
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        totals[line.currency] += line.amount
    return totals


def _figures(lines: int, before: Decimal, after: Decimal, currency: str) -> tuple[str, ...]:
    return (f"{lines:,}", f"{before:,f}", f"{after:,f}", f"{after - before:+,f} {currency}")


def _change(before: Decimal, after: Decimal, currency: str) -> str:
    return f"{before:,f} → {after:,f} {currency} ({after - before:+,f})"
