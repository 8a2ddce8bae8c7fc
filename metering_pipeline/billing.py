"""What ``metering issue`` does and prints."""

from datetime import date

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.execution import dagster_instance, run_billing, run_job
from metering_pipeline.invoices import issuing
from metering_pipeline.postgres import open_database


def issue_date(console: Console, billing_date: date, preview: bool) -> None:
    """Issue what is due by the end of the date, or show what would be; print the outcome."""
    configured = settings.load()
    database = open_database(configured)
    with dagster_instance() as instance:
        if preview:
            run_job(instance, "drafts")
            _print_report(console, issuing.preview(database, billing_date, configured.now()))
            return
        run_billing(instance, billing_date)
    with database.connect() as connection:
        print_invoices(console, connection, billing_date)
        print_holds(console, connection)


def decide(console: Console, release: str | None, stop: bool, by: str, why: str) -> None:
    """Release a held draft by name, or stop or resume all issuing; who and why are kept."""
    configured = settings.load()
    database = open_database(configured)
    if release is not None:
        issuing.release(database, release, by=by, why=why, now=configured.now())
        console.print(f"{escape(release)} is released: the next run of issuing lets it go.")
    elif stop:
        issuing.stop_issuing(database, by=by, why=why, now=configured.now())
        console.print("Issuing is stopped.")
    else:
        issuing.resume_issuing(database, by=by, why=why, now=configured.now())
        console.print("Issuing goes on.")


def print_invoices(
    console: Console, connection: psycopg.Connection, billing_date: date | None = None
) -> None:
    """Print the issued invoices, of one billing date or all."""
    rows = connection.execute(
        """
        select invoice_number, tenant_id, subscription_id, document_kind, lines, total, currency
        from invoices.issued_invoices
        inner join (
            select invoice_number, count(*) as lines
            from invoices.issued_invoice_lines
            group by invoice_number
        ) as counted using (invoice_number)
        where billing_date = coalesce(%(date)s, billing_date)
        order by series, series_number
        """,
        {"date": billing_date},
    ).fetchall()
    table = Table(title=f"Issued invoices: {len(rows)}", title_justify="left")
    for heading in ("number", "tenant", "subscription", "kind", "lines", "total"):
        table.add_column(heading, justify="right" if heading in ("lines", "total") else "left")
    for number, tenant, subscription, kind, lines, total, currency in rows:
        cells = (number, tenant, subscription, kind, str(lines), f"{total:,} {currency}")
        table.add_row(*map(escape, cells))
    console.print(table)


def print_holds(console: Console, connection: psycopg.Connection) -> None:
    """Print what was due and did not go, and why."""
    rows = connection.execute(
        "select draft_id, reason, detail from invoices.held_invoices order by draft_id, reason"
    ).fetchall()
    if rows:
        console.print(_holds(rows))


def _print_report(console: Console, report: issuing.IssueReport) -> None:
    table = Table(title=f"Would be issued: {len(report.issued)}", title_justify="left")
    for heading in ("number", "tenant", "total"):
        table.add_column(heading)
    for each in report.issued:
        cells = (each.number, each.tenant_id, f"{each.total:,} {each.currency}")
        table.add_row(*map(escape, cells))
    console.print(table)
    if report.held:
        console.print(_holds([(each.draft_id, each.reason, each.detail) for each in report.held]))


def _holds(rows: list[tuple[str, str, str]]) -> Table:
    table = Table(title=f"Held: {len({row[0] for row in rows})}", title_justify="left")
    for heading in ("draft", "reason", "detail"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
