"""The command line ``metering``."""

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError
from metering_pipeline.progress import step
from metering_pipeline.settings import HOUR, parse_hour

console = Console()


class Hour(click.ParamType[datetime]):
    """An hour in UTC, written 2026-01-31T13."""

    name = "hour"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_hour(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Day(click.ParamType[date]):
    """A UTC day, written 2026-01-31."""

    name = "date"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}: write a date as 2026-01-31", param, ctx)


class Amount(click.ParamType[Decimal]):
    """An amount of money, written 100.00."""

    name = "amount"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        text = str(value)
        if not re.fullmatch(r"-?[0-9]{1,20}([.][0-9]{1,18})?", text):
            self.fail(f"{text!r}: write an amount with a point, as 100.00", param, ctx)
        return Decimal(text)


@click.group()
def cli() -> None:
    """Usage metering that can be trusted with invoices."""


@cli.command()
@click.option("--fresh", is_flag=True, help="Begin with an empty database.")
def demo(fresh: bool) -> None:
    """Run the main job on a month of sample events, in a home of its own."""
    from metering_pipeline.demo import run_demo

    run_demo(console, fresh)


@cli.command()
@click.option("--root", type=click.Path(path_type=Path), help="Landing root; default: the home's.")
@click.option("--first-day", type=Day(), default="2026-01-01", show_default=True)
@click.option("--days", type=click.IntRange(1), default=31, show_default=True)
@click.option("--events", type=click.IntRange(1), default=60_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def generate(root: Path | None, first_day: date, days: int, events: int, seed: int) -> None:
    """Write sample events into a landing root: seeded, with duplicates, late, conflicting and bad lines."""
    from metering_pipeline.generate import generate as write_events

    landing_root = str(root or settings.load().landing_root)
    if "://" in landing_root:
        raise click.UsageError(f"{landing_root} is no directory of this machine; give one: --root.")
    place = Path(landing_root)
    totals = write_events(place, first_day=first_day, days=days, events=events, seed=seed)
    console.print(f"{totals.lines:,} lines in {totals.files} files below {place}")


@cli.command()
@click.option("--hour", type=Hour(), help="One landing hour, as 2026-01-31T13.")
@click.option("--from", "first", type=Hour(), help="The first landing hour of a range.")
@click.option("--to", "last", type=Hour(), help="The last landing hour of the range (inclusive).")
@click.option("--dry-run", is_flag=True, help="Show what the run would change; change nothing.")
def run(
    hour: datetime | None, first: datetime | None, last: datetime | None, dry_run: bool
) -> None:
    """Materialize landing hours, from the files to the drafts, as one run.

    --dry-run lands, posts, rolls up, rates and drafts for real, in one transaction that is undone: it says
    which buckets would change and what each draft would come to. It takes about as long as the run, and keeps the pipeline's lock meanwhile. Whoever reads goes
    on and sees nothing of it, other runs wait. It may be stopped at any moment.
    """
    start, end = _hours(hour, first, last)
    if dry_run:
        from metering_pipeline.dry_run import rehearse

        rehearse(console, start, end)
        return
    from metering_pipeline.execution import dagster_instance, publish_catalog_if_changed, run_hours
    from metering_pipeline.landing.sources import Source
    from metering_pipeline.postgres import open_database
    from metering_pipeline.status import print_landed

    configured = settings.load()
    with dagster_instance() as instance:
        with step(console, "Catalog"):
            publish_catalog_if_changed(instance)
        with step(console, f"{_counted((end - start) // HOUR + 1)}, landing to drafts"):
            run_hours(instance, start, end)
    with open_database(configured, reading=True).connect() as connection:
        print_landed(console, connection, start, end)
    for each in Source(configured.landing_root).list_since(start, end).unknown:
        console.print(
            f"not landed: {each.path}: {each.problem}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _counted(hours: int) -> str:
    return f"{hours:,} landing hour{'' if hours == 1 else 's'}"


def _hours(
    hour: datetime | None, first: datetime | None, last: datetime | None
) -> tuple[datetime, datetime]:
    if hour is not None and first is None and last is None:
        first = last = hour
    if (hour is not None and first != hour) or first is None or last is None:
        raise click.UsageError("Give --hour, or --from and --to.")
    if last < first:
        raise click.UsageError("--to is before --from.")
    configured = settings.load()
    if first < configured.first_hour:
        raise click.UsageError(
            f"The first landing hour is {configured.first_hour:%Y-%m-%dT%H} (METERING_FIRST_HOUR)."
        )
    if last > configured.now():
        raise click.UsageError(f"{last:%Y-%m-%dT%H} has not begun.")
    return first, last


@cli.command()
@click.option(
    "--stage",
    type=click.Choice(["ledger", "rollups"]),
    required=True,
    help="What to build anew.",
)
@click.option("--from", "first", type=Hour(), help="The first landing hour of a range.")
@click.option("--to", "last", type=Hour(), help="The last landing hour of the range (inclusive).")
@click.option(
    "--repair", is_flag=True, help="Ledger: replace the rows that differ; runs wait meanwhile."
)
@click.option("--dry-run", is_flag=True, help="Rollups: show what would change; change nothing.")
@click.option(
    "--samples",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Ledger: differing rows shown for each table and class.",
)
def rebuild(
    stage: str,
    first: datetime | None,
    last: datetime | None,
    repair: bool,
    dry_run: bool,
    samples: int,
) -> None:
    """Build a stage anew from the one before it, and compare row for row.

    \b
    --stage ledger   every event, duplicate, conflict, void and withdrawn row, from
                     what landed, by another piece of code than the one that posts.
    --stage rollups  contributions, hourly and daily usage, from the ledger, by the
                     models that post; rows that differ are replaced.

    Rollups: a range means the landing hours. What the rollups still owe is rolled up
    first, the range's late arrivals included. It goes part by part, of
    up to a million records, and runs go on in between; --dry-run keeps the pipeline's lock from beginning to end,
    and changes nothing.

    Ledger: nothing is changed without --repair, and it may run beside the pipeline:
    events with a copy in an hour that is landed but not yet posted are left out, and
    counted. A range means whole days of usage: every event that occurred on a UTC day of which
    these landing hours hold a copy, with all its copies, wherever they landed. (An
    event's copies all have the same time, so that is exact.) Without one: everything.

    --repair replaces the rows that differ and notes in ledger.pending what the next run
    must roll up again, in one transaction that keeps the pipeline's lock from beginning
    to end: give it a range.

    Exit code 1 if anything differs and is not mended.
    """
    if (first is None) != (last is None):
        raise click.UsageError("Give both --from and --to, or neither.")
    if first and last and last < first:
        raise click.UsageError("--to is before --from.")
    if stage == "rollups" and repair:
        raise click.UsageError("--stage rollups replaces what differs; --dry-run only shows it.")
    if stage == "ledger" and dry_run:
        raise click.UsageError("--stage ledger changes nothing without --repair.")
    from metering_pipeline.rebuild import build_rollups, compare_ledger

    if stage == "rollups":
        well = build_rollups(console, first, last, keep=not dry_run)
    else:
        well = compare_ledger(console, first, last, repair, samples)
    sys.exit(0 if well else 1)


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
    if billing_date is not None and billing_date < settings.load().first_hour.date():
        raise click.UsageError("Billing dates begin with METERING_FIRST_HOUR.")
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


class Month(click.ParamType[datetime]):
    """A calendar month in UTC, written 2026-01."""

    name = "month"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.strptime(str(value), "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"{value!r}: write a month as 2026-01", param, ctx)


class Quantity(click.ParamType[Decimal]):
    """A quantity: a plain decimal number, at most 20 digits before and 18 after the point."""

    name = "quantity"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        if not re.fullmatch(r"[0-9]{1,20}([.][0-9]{1,18})?", str(value), re.ASCII):
            self.fail(f"{value!r}: write a decimal number as 1250000 or 0.5", param, ctx)
        return Decimal(str(value))


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
    in one transaction that is undone, and keeps the pipeline's lock meanwhile.
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


@cli.command()
def status() -> None:
    """Laws, lateness, rejects, conflicts and invoices at a glance."""
    from metering_pipeline.postgres import open_database
    from metering_pipeline.status import print_status

    with open_database(settings.load(), reading=True).connect() as connection:
        well = print_status(console, connection)
    sys.exit(0 if well else 1)


@cli.command()
def prove() -> None:
    """Prove everything that is kept, as every night: the laws of every landing hour and day of usage.

    It takes no lock. Exit code 1 if a law fails anywhere.
    """
    from metering_pipeline.execution import dagster_instance, run_job
    from metering_pipeline.postgres import open_database
    from metering_pipeline.status import print_laws

    with dagster_instance() as instance, step(console, "Everything that is kept, proved"):
        run_job(instance, "nightly")
    with open_database(settings.load(), reading=True).connect() as connection:
        well = print_laws(console, connection)
    sys.exit(0 if well else 1)


@cli.command()
@click.option("--port", type=int, default=3000, show_default=True)
def ui(port: int) -> None:
    """Dagster's webserver and daemon on this home."""
    from metering_pipeline.ui import serve

    serve(console, port)


@cli.group()
def db() -> None:
    """The database."""


@db.command()
def url() -> None:
    """Print the database's URL, with its password."""
    from metering_pipeline.postgres import open_database

    click.echo(open_database(settings.load(), reading=True).url)


@db.command()
def start() -> None:
    """Start the database (the embedded one) and bring its schema up to date."""
    from metering_pipeline.postgres import open_database

    open_database(settings.load())
    console.print("The database runs and its schema is up to date.")


@db.command()
def stop() -> None:
    """Stop the embedded database."""
    from metering_pipeline.postgres import embedded_server

    configured = settings.load()
    if configured.database_url is not None:
        raise click.UsageError("METERING_DATABASE_URL names a database that is not ours to stop.")
    embedded_server(configured).stop()
    console.print("The database is stopped.")


def main() -> None:
    """Entry point: what a person can mend is shown as one message, without a traceback."""
    logging.getLogger("metering_pipeline").setLevel(logging.INFO)
    try:
        cli()
    except MeteringError as error:
        Console(stderr=True).print(
            f"[red]error[/red]: {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
