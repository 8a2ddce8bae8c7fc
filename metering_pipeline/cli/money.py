"""Commands about money: documents, credits, quotes and statements."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click

from metering_pipeline import settings
from metering_pipeline.cli.group import cli, console
from metering_pipeline.cli.values import Amount, Day, Month, Quantity


@cli.command()
@click.option(
    "--date", "billing_date", type=Day(), help="The billing date D (UTC), which has ended."
)
@click.option("--preview", is_flag=True, help="Show what would be issued and held; issue nothing.")
@click.option("--approve", metavar="DRAFT|all", help="Approve a draft, or all due by now, as is.")
@click.option("--hold", metavar="DRAFT", help="Hold a draft until it is released.")
@click.option("--release", metavar="DRAFT", help="Let a held draft go although its reason stands.")
@click.option("--stop", is_flag=True, help="Stop all issuing.")
@click.option("--resume", is_flag=True, help="Allow issuing again.")
@click.option("--by", help="Who decides (with everything but --date).")
@click.option("--why", help="Why (with everything but --date).")
def issue(
    billing_date: date | None,
    preview: bool,
    approve: str | None,
    hold: str | None,
    release: str | None,
    stop: bool,
    resume: bool,
    by: str | None,
    why: str | None,
) -> None:
    """Issue what is due by the end of a billing date; preview, approve, hold, release, stop, resume.

    With METERING_APPROVAL=required a draft is held until it is approved. An approval is good for the
    draft's lines as they are: changed by late usage, it needs another one.
    """
    named = (billing_date, approve, hold, release)
    if sum((*(each is not None for each in named), stop, resume)) != 1:
        raise click.UsageError(
            "Give one of --date, --approve, --hold, --release, --stop, --resume."
        )
    first_date = settings.load().first_hour.date()
    if billing_date is not None and billing_date < first_date:
        raise click.UsageError(f"The first billing date is {first_date} (METERING_FIRST_HOUR).")
    if billing_date is None and not (by and why):
        raise click.UsageError("Say who decides and why: --by NAME --why REASON.")
    from metering_pipeline import billing

    if billing_date is not None:
        billing.issue_date(console, billing_date, preview)
    elif by and why:
        billing.decide(
            console, by=by, why=why, hold=hold, release=release, approve=approve, stop=stop
        )


@cli.group()
def invoice() -> None:
    """Issued documents: list, void for re-issue, write off."""


@invoice.command("list")
@click.option("--tenant", metavar="TENANT", help="Of this tenant only.")
@click.option("--date", "billing_date", type=Day(), help="Of this billing date only.")
def list_invoices(tenant: str | None, billing_date: date | None) -> None:
    """Print issued documents with net, coupons, tax, credits and what is due."""
    from metering_pipeline import billing

    billing.list_invoices(console, tenant, billing_date)


@invoice.command("void")
@click.argument("number")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why: it stands in the further document.")
def void_invoice(number: str, by: str, why: str) -> None:
    """Void a document for re-issue: a further document takes back all of it.

    Its lines are due again, as the next run of issuing finds them; the coupons and prepaid credits that
    it had used are given back.
    """
    from metering_pipeline import billing

    billing.reverse(console, number, "void", by, why)


@invoice.command("write-off")
@click.argument("number")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why: it stands in the further document.")
def write_off(number: str, by: str, why: str) -> None:
    """Write a document off: it stays billed and is not expected to be paid."""
    from metering_pipeline import billing

    billing.reverse(console, number, "write_off", by, why)


@cli.group()
def credit() -> None:
    """Prepaid credits: grant, list, void. Documents use them when they are issued."""


@credit.command("grant")
@click.argument("tenant")
@click.argument("amount", type=Amount())
@click.option("--currency", required=True, help="As EUR.")
@click.option("--priority", type=click.IntRange(0, 999), default=50, show_default=True,
              help="The lower number pays first.")  # fmt: skip
@click.option("--expires", type=Day(), help="The first billing date on which it pays no more.")
@click.option("--component", "components", multiple=True,
              help="Pay only for these: usage, flat, minimum, commitment.")  # fmt: skip
@click.option("--by", required=True, help="Who grants it.")
@click.option("--why", required=True, help="Why, as an order number.")
def grant_credit(
    tenant: str,
    amount: Decimal,
    currency: str,
    priority: int,
    expires: date | None,
    components: tuple[str, ...],
    by: str,
    why: str,
) -> None:
    """Grant a tenant a prepaid credit."""
    from metering_pipeline import billing

    billing.grant_credit(console, tenant, amount, currency, priority, expires, components, by, why)


@credit.command("list")
@click.option("--tenant", metavar="TENANT", help="Of this tenant only.")
def list_credits(tenant: str | None) -> None:
    """Print the credits and what is left of them, in the order in which they pay."""
    from metering_pipeline import billing

    billing.list_credits(console, tenant)


@credit.command("void")
@click.argument("credit_id")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why.")
def void_credit(credit_id: str, by: str, why: str) -> None:
    """Take back what is left of a credit."""
    from metering_pipeline import billing

    billing.void_credit(console, credit_id, by, why)


@cli.command()
@click.option("--plan", "plans", multiple=True, help="The plan; several are compared.")
@click.option("--metric", help="Of which metric the quantities are.")
@click.option("--quantity", "quantities", type=Quantity(), multiple=True, help="How much of it.")
@click.option("--dimension", "dimensions", multiple=True, help="A dimension of it, as model=small.")
@click.option("--day", "first_day", type=Day(), help="First day of the period; default: today.")
@click.option("--tenant", help="A tenant's real usage instead of a quantity.")
@click.option("--month", type=Month(), help="Of the billing periods that begin in it.")
@click.option(
    "--catalog",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of CSV files that replace the seeds of the same names.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the cost by quantity (.png, .svg).",
)
def quote(
    plans: tuple[str, ...],
    metric: str | None,
    quantities: tuple[Decimal, ...],
    dimensions: tuple[str, ...],
    first_day: date | None,
    tenant: str | None,
    month: datetime | None,
    catalog: Path | None,
    plot: Path | None,
) -> None:
    """What usage would cost, by the very models that rate it; nothing is kept.

    \b
    --plan P --metric M --quantity Q   a period of the plan with this quantity, and nothing else used
    --tenant T --month 2026-01         a tenant's periods as rated, and under --plan or --catalog
    --catalog DIR --month 2026-01      all tenants' periods under a changed catalog, as a difference

    As if nothing had been issued: no price is pinned. Coupons, credits and taxes are not in it. It rates
    in one transaction that is undone, and keeps the pipeline's locks meanwhile.
    """
    from metering_pipeline import quote as quotes
    from metering_pipeline.partitions import Window

    if quantities:
        if not plans or metric is None or tenant or month:
            raise click.UsageError(
                "A quantity needs --plan and --metric, without --tenant and --month."
            )
        quotes.quote_quantities(
            console,
            plans,
            metric,
            quantities,
            _dimensions(dimensions),
            first_day or settings.load().now().date(),
            catalog,
            plot,
        )
        return
    if month is None or metric or dimensions or first_day or plot:
        raise click.UsageError(
            "Give --plan, --metric and --quantity; or --month, with --tenant or --catalog."
        )
    window = Window(month, (month + timedelta(days=31)).replace(day=1))
    if tenant is not None and len(plans) <= 1:
        quotes.quote_tenant(console, window, tenant, plans[0] if plans else None, catalog)
    elif tenant is None and catalog is not None and not plans:
        quotes.quote_month(console, window, catalog)
    else:
        raise click.UsageError(
            "A month needs --tenant (with at most one --plan), or --catalog alone."
        )


def _dimensions(given: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = [
        text for text, (name, sign, _) in zip(given, pairs, strict=True) if not (name and sign)
    ]
    if wrong:
        raise click.UsageError(f"--dimension {wrong[0]}: write name=value.")
    return {name: value for name, _, value in pairs}


@cli.command()
@click.argument("number", required=False)
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Where the page goes.")
@click.option("--pdf", "pdf_path", type=click.Path(path_type=Path), help="Where the PDF goes.")
@click.option("--all", "all_of_date", is_flag=True, help="All that were issued for --date.")
@click.option("--date", "billing_date", type=Day(), help="The billing date, with --all.")
def statement(
    number: str | None,
    html_path: Path | None,
    pdf_path: Path | None,
    all_of_date: bool,
    billing_date: date | None,
) -> None:
    """Write the statement of an issued invoice, credit note, void or write-off for the customer.

    A page and a PDF, <home>/statements/NUMBER.html and .pdf, or only what --html and --pdf name.
    """
    if all_of_date == (number is not None) or all_of_date != (billing_date is not None):
        raise click.UsageError("Give a document's number, or --all and --date.")
    if all_of_date and (html_path or pdf_path):
        raise click.UsageError("--html and --pdf name the files of one document.")
    from metering_pipeline import statements

    if number is not None:
        statements.write_one(console, number, html_path, pdf_path)
    elif billing_date is not None:
        statements.write_all(console, billing_date)
