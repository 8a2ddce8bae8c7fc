"""The main job on a month of sample events, in a home of its own, for ``metering demo``.

Everything is real: an embedded PostgreSQL, Dagster runs, dbt models. Only the events are made up
and the clock stands still, so that the figures are the same wherever and whenever it runs.
"""

import os
import shutil
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.progress import step
from metering_pipeline.settings import HOUR

FIRST_DAY = date(2026, 1, 1)
DAYS = 31
EVENTS = 60_000
CLOCK = datetime(2026, 2, 6, tzinfo=UTC)
BILLING_DATE = date(2026, 2, 5)


def run_demo(console: Console, fresh: bool) -> None:
    """Generate, land, post, roll up, rate, issue and prove; print what came of it."""
    started = time.monotonic()
    home = settings.load().home.resolve() / "demo"
    _settle_in(home, fresh)
    from metering_pipeline.billing import print_holds, print_invoices
    from metering_pipeline.execution import (
        dagster_instance,
        publish_catalog_if_changed,
        run_billing,
        run_hours,
        run_job,
    )
    from metering_pipeline.generate import SOURCE, generate
    from metering_pipeline.landing.listing import list_hours
    from metering_pipeline.postgres import open_database
    from metering_pipeline.status import print_status

    configured = settings.load()
    with step(console, "PostgreSQL and its schema"):
        database = open_database(configured)
    with step(console, f"{EVENTS:,} sample events of January 2026") as say:
        totals = generate(
            Path(configured.landing_root), FIRST_DAY, DAYS, events=EVENTS, seed=1, source=SOURCE
        )
        say(f"{totals.lines:,} lines in {totals.files} files")
    with step(console, "Listing of the landing root") as say:
        listing = list_hours(database.url, configured, configured.now())
        say(f"{listing.hours:,} hours, {len(listing.unlanded_hours)} of them with files to land")
    first = datetime.combine(FIRST_DAY, datetime.min.time(), UTC)
    last = first + timedelta(days=DAYS, hours=2)
    with dagster_instance() as instance:
        with step(console, "Catalog: loaded, validated, published"):
            publish_catalog_if_changed(instance)
        with step(console, f"One Dagster run over {(last - first) // HOUR + 1} landing hours"):
            run_hours(instance, first, last)
        with step(console, "Late arrivals: usage beyond the lookback"):
            run_job(instance, "late_arrivals")
        with step(console, f"Invoices due by the end of {BILLING_DATE}"):
            run_billing(instance, BILLING_DATE)
    with database.connect() as connection:
        console.print()
        print_invoices(console, connection)
        print_holds(console, connection)
        print_status(console, connection)
    _where_to_look_next(console, home, time.monotonic() - started)


def _settle_in(home: Path, fresh: bool) -> None:
    """Give this process the demo's settings, whatever the caller's are."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        del os.environ[name]
    os.environ["METERING_HOME"] = str(home)
    os.environ["METERING_CLOCK"] = CLOCK.isoformat()
    if fresh and home.exists():
        from metering_pipeline.postgres import embedded_server

        embedded_server(settings.load()).stop()
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)


def _where_to_look_next(console: Console, home: Path, seconds: float) -> None:
    metering = _shown(Path(sys.argv[0]))
    console.print(
        f"\nDone in {seconds:.0f} s; run it again and no row changes. Where to look next, with\n"
        f"  export METERING_HOME={_shown(home)} METERING_CLOCK={CLOCK:%Y-%m-%dT%H:%M:%SZ}\n"
        f"(the demo's home, and the instant at which its clock stands):\n"
        f"  {metering} ui       the lineage, the runs and the checks, in Dagster\n"
        f"  {metering} status   the stages and the laws\n"
        f"  {metering} db psql  the tables: rollups.usage_daily, "
        "invoices.issued_invoice_lines, …",
        highlight=False,
        soft_wrap=True,
    )


def _shown(path: Path) -> Path:
    """The path as a person in this folder would write it."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path
