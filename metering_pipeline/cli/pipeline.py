"""Commands that run, rebuild, prove and show the pipeline."""

import os
import sys
from datetime import date, datetime
from pathlib import Path

import click

from metering_pipeline import settings
from metering_pipeline.cli.group import cli, console
from metering_pipeline.cli.values import Day, Hour, Instant
from metering_pipeline.progress import step
from metering_pipeline.settings import HOUR


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
    """Write sample events into a landing root: seeded, with duplicates, late, conflicting and bad lines.

    Each drop has a manifest that says what its second file holds.
    """
    from metering_pipeline.generate import SOURCE
    from metering_pipeline.generate import generate as write_events

    landing_root = str(root or settings.load().landing_root)
    if "://" in landing_root:
        raise click.UsageError(f"{landing_root} is no directory of this machine; give one: --root.")
    place = Path(landing_root)
    totals = write_events(
        place, first_day=first_day, days=days, events=events, seed=seed, source=SOURCE
    )
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
    which buckets would change and what each draft would come to. It takes about as long as the run, and keeps the pipeline's locks meanwhile. Whoever reads goes
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
    _require_order(first, last)
    _require_lands(first, last)
    return first, last


def _require_order(first: datetime, last: datetime) -> None:
    if last < first:
        raise click.UsageError("--to is before --from.")


def _require_lands(early: datetime, late: datetime) -> None:
    """Raises UsageError if the early hour lies before the first that lands, or the late one has not begun."""
    configured = settings.load()
    if early < configured.first_hour:
        raise click.UsageError(
            f"The first landing hour is {configured.first_hour:%Y-%m-%dT%H} (METERING_FIRST_HOUR)."
        )
    if late > configured.now():
        raise click.UsageError(f"{late:%Y-%m-%dT%H} has not begun: give an hour that has.")


@cli.command()
@click.option(
    "--stage",
    type=click.Choice(["landing", "ledger", "rollups"]),
    required=True,
    help="What to build anew.",
)
@click.option("--from", "first", type=Hour(), help="The first landing hour of a range.")
@click.option("--to", "last", type=Hour(), help="The last landing hour of the range (inclusive).")
@click.option(
    "--repair",
    is_flag=True,
    help="Landing, ledger: replace the rows that differ; runs wait meanwhile.",
)
@click.option("--dry-run", is_flag=True, help="Rollups: show what would change; change nothing.")
@click.option(
    "--samples",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Differing rows shown: of landing; of the ledger for each table and class.",
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
    --stage landing  the records of each file, read again, against landing; needs a
                     range, and the files.
    --stage ledger   every event, duplicate, conflict, void and withdrawn row, from
                     what landed, by another piece of code than the one that posts.
    --stage rollups  contributions, hourly and daily usage, from the ledger, by the
                     models that post; rows that differ are replaced.

    Rollups: a range means the landing hours. What the rollups still owe is rolled up
    first, the range's late arrivals included. It goes part by part, of
    up to a million records, and runs go on in between; --dry-run keeps the pipeline's locks from beginning to end,
    and changes nothing.

    Ledger: nothing is changed without --repair, and it may run beside the pipeline:
    events with a copy in an hour that is landed but not yet posted are left out, and
    counted. A range means whole days of usage: every event that occurred on a UTC day of which
    these landing hours hold a copy, with all its copies, wherever they landed. (An
    event's copies all have the same time, so that is exact.) Without one: everything.

    --repair replaces the rows that differ and notes in ledger.pending what the next run
    must roll up again, in one transaction that keeps the pipeline's locks from beginning
    to end: give it a range.

    Landing: a file that is gone, or has other bytes now, is named and not compared.
    --repair replaces the records of a file that differ; its hour is then to be run.

    Exit code 1 if anything differs and is not mended.
    """
    if (first is None) != (last is None):
        raise click.UsageError("Give both --from and --to, or neither.")
    if first and last:
        _require_order(first, last)
        _require_lands(last, first)  # the range may reach beyond, as a law's window does
    if stage == "rollups" and repair:
        raise click.UsageError("--stage rollups replaces what differs; --dry-run only shows it.")
    if stage != "rollups" and dry_run:
        raise click.UsageError(f"--stage {stage} changes nothing without --repair.")
    from metering_pipeline.rebuild import build_rollups, compare_landing, compare_ledger

    if stage == "landing":
        if first is None or last is None:
            raise click.UsageError("--stage landing needs --from and --to.")
        well = compare_landing(console, first, last, repair, samples)
    elif stage == "rollups":
        well = build_rollups(console, first, last, keep=not dry_run)
    else:
        well = compare_ledger(console, first, last, repair, samples)
    sys.exit(0 if well else 1)


@cli.command()
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it as a page to look at instead.",
)
def status(html: Path | None) -> None:
    """Laws, lateness, rejects, conflicts and invoices at a glance, how far behind, and what is wrong.

    Exit code 1 if a law fails.
    """
    from metering_pipeline.postgres import open_database
    from metering_pipeline.status import print_operation, print_status, write_page

    configured = settings.load()
    database = open_database(configured, reading=True)
    if html is not None:
        write_page(console, database, configured, html)
        return
    with database.connect() as connection:
        well = print_status(console, connection)
        print_operation(console, connection, configured)
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
@click.option(
    "--source",
    metavar="csv:PATH|stripe|table:SCHEMA.NAME",
    help="Default: METERING_PROVIDER_USAGE.",
)
@click.option("--from", "first", type=Instant(), help="First instant, as 2026-01-01T00:00:00Z.")
@click.option("--to", "last", type=Instant(), help="The instant up to, not including, which.")
def reconcile(source: str | None, first: datetime | None, last: datetime | None) -> None:
    """Compare usage with a billing provider's, by tenant, metric and period, and name what explains a difference.

    What was fetched is kept. Without --from and --to: of Stripe last month and this one, up to midnight
    (UTC); of files and tables whatever they have.

    Exit code 1 if anything differs beyond METERING_PROVIDER_THRESHOLD_PERCENT.
    """
    if (first is None) != (last is None):
        raise click.UsageError("Give both --from and --to, or neither.")
    if first and last and first >= last:
        raise click.UsageError("--to is not after --from.")
    from metering_pipeline.reconcile import reconcile as compare_usage
    from metering_pipeline.reconciliation.providers.usage import Span

    well = compare_usage(console, source, Span(first, last) if first and last else None)
    sys.exit(0 if well else 1)


@cli.command()
@click.option("--port", type=int, default=3000, show_default=True)
@click.option(
    "--read-only",
    is_flag=True,
    help="The page alone, for looking: it starts and turns on nothing, and there is no daemon.",
)
def ui(port: int, read_only: bool) -> None:
    """Dagster's webserver and daemon on this home."""
    from metering_pipeline.ui import serve

    serve(console, port, read_only)


@cli.group()
def db() -> None:
    """The database."""


@db.command()
def url() -> None:
    """Print the database's URL, with its password."""
    from metering_pipeline.postgres import open_database

    click.echo(open_database(settings.load(), reading=True).url)


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database; arguments are psql's own, as -c "select 1"."""
    from metering_pipeline.embedded_server import client_program
    from metering_pipeline.postgres import open_database

    database = open_database(settings.load(), reading=True)
    environment = {**os.environ, **database.client_environment()}
    program = str(client_program("psql"))
    os.execve(program, [program, *arguments], environment)  # noqa: S606  (in our place: Ctrl-C is psql's)


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
