"""The pipeline's state at a glance, for ``metering status`` and the demo's end."""

from datetime import datetime

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline.reconciliation.laws import law_state

FIGURES = """
select
    (select count(*) from landing.hours) as hours,
    (select count(*) from landing.hours where file_count > 0) as hours_with_files,
    (select count(*) from landing.hours where sealed) as hours_sealed,
    (select count(*) from landing.files where superseded_by is null) as files,
    (select coalesce(sum(accepted_count), 0) from landing.files where superseded_by is null) as accepted,
    (select coalesce(sum(rejected_count), 0) from landing.files where superseded_by is null) as rejected,
    (select count(*) from ledger.usage_events) as owned,
    (select count(*) from ledger.duplicates) as duplicates,
    (select count(*) from ledger.conflicts) as conflicts,
    (select count(*) from ledger.voids) as voids,
    (select count(*) from ledger.withdrawn) as withdrawn,
    (select count(*) from ledger.pending) as pending,
    (select count(*) from rollups.late_arrivals) as late_arrivals,
    (select count(*) from rollups.usage_hourly) as buckets,
    (select coalesce(sum(event_count), 0) from rollups.unmetered_events) as unmetered,
    (select coalesce(sum(event_count), 0) from rollups.unreadable_values) as unreadable,
    (select count(*) from rating.unrated_usage) as unrated,
    (select count(*) from rating.rated_lines) as lines,
    (select count(*) from invoices.draft_invoices) as drafts,
    (select count(*) from invoices.issued_invoices) as issued,
    (select count(distinct draft_id) from invoices.held_invoices) as held
"""


def print_status(console: Console, connection: psycopg.Connection) -> bool:
    """Print the stages' figures and the laws; whether every law evaluated holds."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(FIGURES).fetchone()
    assert row is not None  # noqa: S101  (one row of scalar subqueries)
    stages = Table(title="The six stages", title_justify="left", show_header=False)
    stages.add_column(style="bold")
    stages.add_column()
    stages.add_row(
        "landing",
        f"{row['accepted']:,} records accepted, {row['rejected']:,} rejected, {row['files']:,} files in "
        f"{row['hours_with_files']:,} of {row['hours']:,} hours ({row['hours_sealed']:,} sealed)",
    )
    stages.add_row(
        "ledger",
        f"{row['owned']:,} events once, {row['duplicates']:,} duplicates, {row['conflicts']:,} conflicts, "
        f"{row['voids']:,} voids, {row['withdrawn']:,} withdrawn",
    )
    stages.add_row(
        "rollups",
        f"{row['buckets']:,} hourly buckets; {row['pending']:,} keys pending, {row['late_arrivals']:,} of them "
        f"beyond the lookback; {row['unmetered']:,} events unmetered, {row['unreadable']:,} values unreadable",
    )
    stages.add_row(
        "rating", f"{row['lines']:,} rated lines, {row['unrated']:,} pieces of usage unrated"
    )
    stages.add_row(
        "invoices", f"{row['drafts']:,} drafts, {row['issued']:,} issued, {row['held']:,} held"
    )
    console.print(stages)
    return print_laws(console, connection)


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
    if any(each.red_windows for each in states):
        console.print(
            "What was compared: reconciliation.current_law_results, where not passed. Run the landing "
            "hours again (metering run) after mending; a red window turns green by its next evaluation."
        )
    return not any(each.red_windows for each in states)


def print_landed(
    console: Console, connection: psycopg.Connection, first: datetime, last: datetime
) -> None:
    """Print what the landing hours from first to last hold, and what was rejected in them, and why."""
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
