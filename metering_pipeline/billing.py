"""What ``metering issue``, ``metering invoice`` and ``metering credit`` do and print."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TypedDict

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.execution import dagster_instance, run_billing, run_job
from metering_pipeline.invoices import credits, issuing
from metering_pipeline.postgres import open_database


class Decision(TypedDict):
    """Who decided, why and when: kept with every decision."""

    by: str
    why: str
    now: datetime


def issue_date(console: Console, billing_date: date, preview: bool) -> None:
    """Issue what is due by the end of the date, or show what would be; print the outcome."""
    configured = settings.load()
    database = open_database(configured)
    with database.connect() as connection:  # before minutes are spent on drafts, and in one line
        issuing.require_billing_date(connection, billing_date, configured.now())
    with dagster_instance() as instance:
        if preview:
            run_job(instance, "drafts")
            _print_report(console, issuing.preview(database, billing_date, configured.now()))
            with database.connect() as connection:
                stopped = issuing.why_stopped(connection)
            if stopped is not None:
                console.print(f"{escape(stopped)} Nothing goes until it is resumed.", style="bold")
            return
        run_billing(instance, billing_date)
    with database.connect() as connection:
        print_invoices(console, connection, billing_date)
        print_holds(console, connection)


def decide(
    console: Console, *, by: str, why: str, hold: str | None = None, release: str | None = None,
    approve: str | None = None, stop: bool = False,
) -> None:  # fmt: skip
    """Hold, release or approve a draft by name, or stop or resume all issuing; who and why are kept."""
    configured = settings.load()
    database = open_database(configured)
    decision: Decision = {"by": by, "why": why, "now": configured.now()}
    if hold is not None:
        issuing.hold(database, hold, **decision)
        console.print(f"{escape(hold)} is held, until it is released.")
    elif release is not None:
        reasons = issuing.release(database, release, **decision)
        console.print(
            f"{escape(release)} is released ({', '.join(reasons)}): the next run of issuing lets it go."
        )
    elif approve is not None:
        approved = issuing.approve(database, None if approve == "all" else approve, **decision)
        console.print(f"Approved: {len(approved)}.")
        for draft_id in approved:
            console.print(f"  {draft_id}", markup=False, highlight=False)
    elif stop:
        issuing.stop_issuing(database, **decision)
        console.print("Issuing is stopped.")
    else:
        issuing.resume_issuing(database, **decision)
        console.print("Issuing goes on.")


def reverse(console: Console, number: str, kind: str, by: str, why: str) -> None:
    """Void a document for re-issue, or write it off, and print the further document."""
    configured = settings.load()
    done = issuing.reverse(open_database(configured), number, kind, by, why, configured.now())
    _print_documents(console, [(done, None)], "Issued")
    if kind == "void":
        console.print(
            f"What {escape(number)} billed is due again: the next run of issuing bills it."
        )
    else:
        console.print(f"{escape(number)} stays billed, and is written off.")


def list_invoices(console: Console, tenant_id: str | None, billing_date: date | None) -> None:
    """Print the issued documents, of a tenant or all, of a billing date or all."""
    with open_database(settings.load(), reading=True).connect() as connection:
        print_invoices(console, connection, billing_date, tenant_id)


def print_invoices(
    console: Console,
    connection: psycopg.Connection,
    billing_date: date | None = None,
    tenant_id: str | None = None,
) -> None:
    """Print the issued documents, of one billing date or all, of one tenant or all."""
    rows = connection.execute(
        """
        select
            invoice_number, tenant_id, subscription_id, document_kind, total, coupon_amount, tax_amount,
            credit_amount, amount_due, currency, refers_to
        from invoices.issued_invoices
        where
            billing_date = coalesce(%(date)s, billing_date)
            and tenant_id = coalesce(%(tenant_id)s, tenant_id)
        order by series, series_number
        """,
        {"date": billing_date, "tenant_id": tenant_id},
    ).fetchall()
    documents = [(issuing.IssuedInvoice(*row), refers_to) for *row, refers_to in rows]
    _print_documents(console, documents, "Issued invoices")


def print_holds(console: Console, connection: psycopg.Connection) -> None:
    """Print what was due and did not go, and why."""
    rows = connection.execute(
        "select draft_id, reason, detail from invoices.held_invoices order by draft_id, reason"
    ).fetchall()
    if rows:
        console.print(_holds(rows))


def grant_credit(
    console: Console, tenant_id: str, amount: Decimal, currency: str, priority: int,
    expires_on: date | None, components: tuple[str, ...], by: str, why: str,
) -> None:  # fmt: skip
    """Grant a prepaid credit and print its id."""
    configured = settings.load()
    credit_id = credits.grant(
        open_database(configured), tenant_id, amount, currency, by=by, why=why, now=configured.now(),
        priority=priority, expires_on=expires_on, components=components,
    )  # fmt: skip
    console.print(
        f"{credit_id}: {amount:,f} {currency} for {escape(tenant_id)}; it pays from the next document on."
    )


def void_credit(console: Console, credit_id: str, by: str, why: str) -> None:
    """Take back what is left of a credit."""
    configured = settings.load()
    voided = credits.void(open_database(configured), credit_id, by, why, configured.now())
    console.print(f"{escape(credit_id)}: {voided:,f} taken back.")


def list_credits(console: Console, tenant_id: str | None) -> None:
    """Print the credits and their balances, in the order in which they pay."""
    configured = settings.load()
    with open_database(configured, reading=True).connect() as connection:
        known = credits.balances(connection, configured.now(), tenant_id)
    table = Table(title=f"Credits: {len(known)}", title_justify="left")
    for heading in ("credit", "tenant", "pays for", "priority", "expires"):
        table.add_column(heading)
    for heading in ("granted", "applied", "voided", "expired", "left"):
        table.add_column(heading, justify="right")
    for each in known:
        terms = (
            each.credit_id, each.tenant_id, ", ".join(each.components or ["all"]), str(each.priority),
            str(each.expires_on or "never"),
        )  # fmt: skip
        amounts = (each.granted, each.applied, each.voided, each.expired)
        table.add_row(
            *map(escape, terms),
            *(f"{each:,f}" for each in amounts),
            f"{each.balance:,f} {each.currency}",
        )
    console.print(table)


def _print_report(console: Console, report: issuing.IssueReport) -> None:
    _print_documents(console, [(each, None) for each in report.issued], "Would be issued")
    if report.held:
        console.print(_holds([(each.draft_id, each.reason, each.detail) for each in report.held]))


def _print_documents(
    console: Console, documents: Sequence[tuple[issuing.IssuedInvoice, str | None]], title: str
) -> None:
    """Each with net, coupons, tax, credits and what is due; a further document with what it is about."""
    table = Table(
        title=f"{title}: {len(documents)}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("number", no_wrap=True)
    for heading in ("tenant, subscription", "kind"):
        table.add_column(heading, overflow="fold")
    for heading in ("net", "coupons", "tax", "credits", "due"):
        table.add_column(heading, justify="right", no_wrap=heading == "due")
    for each, refers_to in documents:
        kind = each.document_kind.replace("_", " ") + (f" of {refers_to}" if refers_to else "")
        amounts = (each.total, each.coupon_amount, each.tax_amount, each.credit_amount)
        table.add_row(
            *map(escape, (each.number, f"{each.tenant_id} {each.subscription_id}", kind)),
            *(f"{amount:,f}" for amount in amounts),
            f"{each.amount_due:,f} {each.currency}",
        )
    console.print(table)


def _holds(rows: list[tuple[str, str, str]]) -> Table:
    table = Table(title=f"Held: {len({row[0] for row in rows})}", title_justify="left")
    for heading in ("draft", "reason", "detail"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
