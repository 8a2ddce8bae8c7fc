"""The pipeline's state at a glance, for ``metering status`` and the demo's end."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from metering_pipeline.errors import MeteringError
from metering_pipeline.invoices.issuing import why_stopped
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.buckets import RedBuckets, red_buckets
from metering_pipeline.reconciliation.differences import RedWindow, explained, red_results
from metering_pipeline.reconciliation.findings import (
    FINDINGS,
    Finding,
    Found,
    Hours,
    newest_hours,
)
from metering_pipeline.reconciliation.laws import law_state
from metering_pipeline.reconciliation.providers.comparing import provider_state
from metering_pipeline.reconciliation.rebuilt_days import RebuiltDay, days_rebuilt, standing
from metering_pipeline.settings import Settings
from metering_pipeline.watch.figures import read_figures, reading
from metering_pipeline.watch.page import disks, html, lags, stage_costs
from metering_pipeline.watch.troubles import KINDS, grave

COUNTED_BYTES = 256 << 20
"""A table up to this size is counted; a larger one is estimated, and the figure says so."""

SAMPLES = 2
RED_WINDOWS = 2
"""Failing rows of each law whose rows the status shows."""

FURTHER = """
select
    (
        select string_agg(format('%s %s', hours, state), ', ' order by state)
        from (
            select
                state,
                count(*) as hours
            from reconciliation.source_hours
            group by state
        ) as by_state
    ) as source_hours,
    (select count(*) from ledger.conflicts) as conflicts,
    (select count(*) from ledger.voids) as voids,
    (select count(*) from ledger.withdrawn) as withdrawn,
    (select coalesce(sum(event_count), 0) from rollups.unmetered_events) as unmetered,
    (select coalesce(sum(event_count), 0) from rollups.unreadable_values) as unreadable,
    (select count(*) from rating.unrated_usage where reason <> 'in_trial') as unrated,
    (select count(*) from rating.rated_lines) as lines
"""
"""What the status shows beside the figures of reconciliation.figures."""


def print_status(console: Console, connection: psycopg.Connection) -> bool:
    """Print the stages' figures and the laws; whether every law evaluated holds."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(FURTHER).fetchone()
    assert row is not None  # noqa: S101  (one row of scalar subqueries)
    figures = read_figures(connection)
    stages = Table(title="The six stages", title_justify="left", show_header=False)
    stages.add_column(style="bold")
    stages.add_column()
    stages.add_row(
        "landing",
        f"{figures.whole('current_records', 'accepted'):,} records accepted, "
        f"{figures.whole('current_records', 'rejected'):,} rejected, {figures.whole('current_files'):,} files in "
        f"{figures.whole('landing_partitions', 'with_files'):,} of {figures.whole('landing_partitions', 'listed'):,} hours "
        f"({figures.whole('landing_partitions', 'sealed'):,} sealed, "
        f"{figures.whole('landing_partitions', 'not_posted'):,} not posted)"
        + (
            f"; hours by the sources' manifests: {row['source_hours']}"
            if row["source_hours"]
            else ""
        ),
    )
    stages.add_row(
        "ledger",
        f"{_size(connection, 'ledger', 'usage_events')} events once, "
        f"{_size(connection, 'ledger', 'duplicates')} duplicates, {row['conflicts']:,} conflicts, "
        f"{row['voids']:,} voids, {row['withdrawn']:,} withdrawn",
    )
    stages.add_row(
        "rollups",
        f"{_size(connection, 'rollups', 'usage_hourly')} hourly buckets; "
        f"{figures.whole('queue_rows', 'ledger.pending'):,} keys pending, {figures.whole('late_arrivals'):,} of them "
        f"beyond the lookback, as {figures.get('beyond_lookback_ratio') or 0:.3%} of the events of 30 days were; {row['unmetered']:,} events unmetered, {row['unreadable']:,} values unreadable",
    )
    stages.add_row(
        "rating", f"{row['lines']:,} rated lines, {row['unrated']:,} pieces of usage unrated"
    )
    stopped = why_stopped(connection)
    stages.add_row(
        "invoices",
        f"{figures.whole('draft_invoices'):,} drafts, {figures.whole('issued_invoices_total'):,} issued, "
        f"{figures.whole('held_invoices'):,} held"
        + (f". [yellow]{escape(stopped)}[/yellow]" if stopped else ""),
    )
    provider = provider_line(connection)
    if provider:
        stages.add_row("provider", provider)
    console.print(stages)
    print_findings(console, connection)
    return print_laws(console, connection)


def print_operation(console: Console, connection: psycopg.Connection, configured: Settings) -> None:
    """Print how far behind the clock the pipeline is, what waits, what the stages cost, and what is wrong."""
    now = configured.now()
    figures = read_figures(connection, configured)
    table = Table(title="The operation", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for cell in lags(figures, now):
        table.add_row(cell.name, f"{cell.value} [dim]({cell.says})[/dim]")
    waiting = [f"{rows:,} {queue}" for queue, rows in figures.labels("queue_rows").items() if rows]
    table.add_row("Queues", ", ".join(waiting) or "empty")
    costs = [f"{cost.stage} {cost.seconds:,.0f}" for cost in stage_costs(figures)]
    table.add_row("Seconds spent", ", ".join(costs))
    for cell in disks(figures):
        table.add_row(cell.name, cell.value)
    console.print(table)
    troubles = grave(connection, figures, configured, now)
    for trouble in troubles:
        console.print(
            f"[red]{escape(str(trouble))}[/red]\n  {escape(KINDS[trouble.kind].page)}",
            soft_wrap=True,
        )
    if not troubles:
        console.print("[green]Nothing is wrong with the operation.[/green]")


def write_page(console: Console, database: Database, configured: Settings, path: Path) -> None:
    """Write the page. Raises PageError where it cannot be written."""
    with reading(database, configured) as connection:
        page = html(connection, configured, configured.now())
    try:
        path.write_bytes(page)
    except OSError as error:
        raise PageError(f"{path} cannot be written: {error.strerror}.") from error
    console.print(escape(str(path)), highlight=False, soft_wrap=True)


class PageError(MeteringError):
    """The page cannot be written where it is wanted."""


def provider_line(connection: psycopg.Connection) -> str | None:
    """How the configured billing provider's usage compares with ours; None without one."""
    row = connection.execute(
        "select value from catalog.settings where name = 'provider_usage' and value <> ''"
    ).fetchone()
    if row is None:
        return None
    (source,) = row
    state = provider_state(connection, source)
    if state is None:
        return f"{escape(source)}: never compared (metering reconcile)"
    when = f"{state.fetched_at.astimezone(UTC):%Y-%m-%dT%H:%M}Z"
    figures = f"{state.periods:,} periods, {state.within_threshold:,} within the threshold"
    differ = f"{state.beyond:,} differ"
    if state.tenants:
        differ = f"[red]{differ}: {escape(', '.join(state.tenants))}[/red] (metering reconcile)"
    return f"{escape(source)}, asked {when}: {figures}, {differ}"


def _size(connection: psycopg.Connection, schema: str, table: str) -> str:
    """How many rows a table has: counted, or for a large one the planner's estimate, which costs nothing.

    A partition that was never analyzed is counted in any case.
    """
    parts = connection.execute(
        """
        select nspname, relname, pg_table_size(pg_class.oid), reltuples::bigint
        from pg_partition_tree(to_regclass(format('%%I.%%I', %s::text, %s::text)))
        inner join pg_class on pg_class.oid = relid
        inner join pg_namespace on pg_namespace.oid = relnamespace
        where isleaf
        """,
        (schema, table),
    ).fetchall()
    large = sum(size for _, _, size, _ in parts) > COUNTED_BYTES
    if not large:
        return f"{_count(connection, schema, table):,}"
    rows = sum(known if known >= 0 else _count(connection, *name) for *name, _, known in parts)
    return f"about {round(rows, 3 - len(str(rows))):,}"


def _count(connection: psycopg.Connection, schema: str, table: str) -> int:
    query = sql.SQL("select count(*) from {}").format(sql.Identifier(schema, table))
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def print_findings(console: Console, connection: psycopg.Connection) -> None:
    """Print what came in beside the events that count, with the newest of each. Nothing where nothing is."""
    newest = newest_hours(connection)
    lines = [
        line
        for finding in FINDINGS
        for line in _finding_lines(connection, finding, finding.hours(newest))
    ]
    if not lines:
        return
    console.print("What came in beside the events that count", style="italic")
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print()


def _finding_lines(
    connection: psycopg.Connection, finding: Finding, hours: Hours
) -> Iterator[Text]:
    counts = finding.counts(connection, hours)
    if not counts:
        return
    style = "bold" if finding.ordinary else "bold yellow"
    heading = Text(f"{sum(counts.values()):>9,} {finding.name}", style)
    since = f" landed since {hours.start.astimezone(UTC):%Y-%m-%dT%H}" if hours.start else ""
    yield heading.append(f"{since}: {finding.says}", "not bold default")
    for reason, count in counts.items():
        if reason is not None:
            yield Text(f"{count:>13,} {reason}")
        limit = SAMPLES if reason is None and not finding.ordinary else 1
        for sample in finding.samples(connection, hours, reason, limit):
            yield from _sample_lines(sample)


def _sample_lines(found: Found) -> Iterator[Text]:
    """Where a record landed, and below it who and when."""
    place = found.file_key or f"landed_hour={found.landed_hour.astimezone(UTC):%Y-%m-%dT%H}"
    line = f" line {found.line_number}" if found.line_number is not None else ""
    yield Text(f"{'':>14}{place}{line}")
    instant = found.occurred_at.astimezone(UTC).isoformat() if found.occurred_at else ""
    about = (
        found.tenant_id, found.event_type, instant.replace("+00:00", "Z"), found.correlation_id,
        found.detail,
    )  # fmt: skip
    if any(about):
        yield Text(f"{'':>16}{' '.join(each for each in about if each)}", "dim")


def print_laws(console: Console, connection: psycopg.Connection) -> bool:
    """Print each law with its windows; whether every law evaluated holds."""
    states = law_state(connection)
    table = Table(title="The laws", title_justify="left")
    for heading in ("law", "says", "windows", "state"):
        table.add_column(heading)
    for each in states:
        if each.windows == 0:
            state = "never evaluated"
        elif each.red_windows:
            tenants = escape(", ".join(each.red_tenants)) or "tenant unknown"
            since = (
                f", first {each.sample_window_start:%Y-%m-%dT%H}"
                if each.sample_window_start
                else ""
            )
            state = f"[red]FAILS in {each.red_windows}{since}: {tenants}[/red]"
        else:
            state = "[green]holds[/green]"
        table.add_row(each.law, each.meaning, f"{each.windows:,}", state)
    console.print(table)
    for result in red_results(connection, RED_WINDOWS):
        print_red_window(console, explained(connection, result))
    print_red_buckets(console, red_buckets(connection))
    if any(each.red_windows for each in states):
        console.print(
            "What was compared: reconciliation.current_law_results, where not passed. A red window turns "
            "green by its next evaluation: after mending, metering prove (or metering run, for its hours). "
            "Step by step: docs/runbooks/law-failed.md."
        )
    red_days = standing(connection)
    print_rebuilt_days(console, days_rebuilt(connection), red_days)
    print_archived_days(console, connection)
    return not red_days and not any(each.red_windows for each in states)


def print_red_window(console: Console, red: RedWindow) -> None:
    """Print where a law fails, the rows behind it, the query for all of them, and what mends them."""
    console.print(str(red), style="bold", markup=False, highlight=False)
    for text in (*red.facts, *map(str, red.differences)):
        for line in text.splitlines():
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()


def print_rebuilt_days(console: Console, days: int, red: Sequence[RebuiltDay]) -> None:
    """Print how many days were built anew and compared, and those that differ. Nothing where none was."""
    if days:
        console.print(f"Built anew and compared row for row: {days:,} days; {len(red):,} differ.")
    for each in red[:SAMPLES]:
        for line in (
            str(each),
            *(f"  {sample}" for sample in each.samples),
            f"  to mend: {each.remedy}",
        ):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_archived_days(console: Console, connection: psycopg.Connection) -> None:
    """Print how many days are archived. Nothing where none is."""
    for stage, days in connection.execute(
        "select stage, count(*) from catalog.archives where attached_at is null group by stage order by stage"
    ):
        console.print(
            f"Not proved again: {days:,} days of {stage}, proved when they were archived (metering archive list)."
        )


def print_red_buckets(console: Console, red: RedBuckets) -> None:
    """Print the buckets in which the rollups differ, and what mends them. Nothing where none does."""
    if not red.count:
        return
    heading = f"L3: the rollups differ in {red.count:,} buckets (one that several windows see counts in each)"
    lines = [heading, *map(str, red.first)]
    if red.landed_from and red.landed_to:
        first, last = (
            each.astimezone(UTC).strftime("%Y-%m-%dT%H")
            for each in (red.landed_from, red.landed_to)
        )
        lines.append(
            f"To mend what landed: metering rebuild --stage rollups --from {first} --to {last}"
        )
    if red.unlanded:
        lines.append(
            f"To mend {red.unlanded:,} that nothing contributed to, if they stay: insert them into "
            "rollups.touched_buckets (days into rollups.touched_days); the next run merges them again"
        )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print()


def print_landed(
    console: Console, connection: psycopg.Connection, first: datetime, last: datetime
) -> None:
    """Print what the landing hours from first to last hold, what was rejected in them and why, and where
    their control totals differ."""
    row = connection.execute(
        """
        select count(*), coalesce(sum(accepted_count), 0), coalesce(sum(rejected_count), 0)
        from landing.files
        where landed_hour between %s and %s and superseded_by is null
        """,
        (first, last),
    ).fetchone()
    files, accepted, rejected = row or (0, 0, 0)
    console.print(f"{files:,} files: {accepted:,} records accepted, {rejected:,} rejected")
    for reason, count, file_key, line, detail in connection.execute(
        """
        select
            reason,
            count(*),
            (array_agg(file_key order by file_key, line_number))[1],
            (array_agg(line_number order by file_key, line_number))[1],
            (array_agg(detail order by file_key, line_number))[1]
        from landing.rejected_events
        inner join landing.files using (file_id)
        where files.landed_hour between %s and %s and superseded_by is null
        group by reason
        order by count(*) desc
        """,
        (first, last),
    ):
        console.print(
            f"  {count:,} {reason}, as in {file_key} line {line}: {detail}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for file_key, reason, detail in connection.execute(
        """
        select
            file_key,
            reason,
            detail
        from reconciliation.manifest_problems
        where landed_hour between %s and %s and file_key is not null
        order by landed_hour, file_key, detail
        limit 10
        """,
        (first, last),
    ):
        console.print(
            f"  {reason}, as {file_key} says: {detail}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
