"""Old days of landing archived and attached again: what ``metering archive`` does and prints."""

import time
from datetime import UTC, date, datetime

import psycopg
from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.landing.archives import Archive, ArchiveError, Archives
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.progress import step
from metering_pipeline.reconciliation.laws import DAY, evaluate
from metering_pipeline.reconciliation.proof import PROVED

ATTEMPTS = 20
"""How often a day is tried to be taken out, a second apart, while others read landing or land."""


def archive_due(console: Console) -> bool:
    """Archive the days that are old enough, day by day; whether none was refused."""
    configured = settings.load()
    if not configured.archive_after_days:
        console.print("METERING_ARCHIVE_AFTER_DAYS is 0: nothing is archived.", highlight=False)
        return True
    database = open_database(configured)
    archives = Archives(database, configured)
    archives.remove_loose()
    due = archives.due(configured.now())
    refused = 0
    for day in due:
        try:
            with step(console, f"Landing of {day}") as say:
                archived = archive_day(database, archives, day, configured.now())
                say(f"{archived.row_count:,} rows, {archived.size_bytes:,} bytes")
        except ArchiveError as error:
            refused += 1
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Archived: {len(due) - refused:,} of {len(due):,} days.", highlight=False)
    return not refused


def archive_day(database: Database, archives: Archives, day: date, now: datetime) -> Archive:
    """Write a day of landing into a file, prove L1 to L3 of its hours once more, and take it out of the database.

    Proof and taking out are one transaction under the pipeline's lock. Raises ArchiveError; then no file is left.
    """
    try:
        with archives.alone():
            return _archive(database, archives, day, now)
    except ArchiveError:
        archives.remove_loose()
        raise


def _archive(database: Database, archives: Archives, day: date, now: datetime) -> Archive:
    written = archives.write(day)
    start = datetime.combine(day, datetime.min.time(), UTC)
    for _ in range(ATTEMPTS):
        try:
            with database.locked() as connection:
                connection.execute("set local role metering_archive")
                for law in PROVED:
                    evaluate(connection, law, start, start + DAY, now)
                archives.take_out(connection, written, now)
        except psycopg.errors.LockNotAvailable:
            time.sleep(1)
        else:
            return written
    raise ArchiveError(
        f"{day} was not archived: others read landing all the time. Try again when less is going on."
    )


def list_archives(console: Console) -> None:
    """Print the days that are archived."""
    configured = settings.load()
    archives = Archives(open_database(configured, reading=True), configured).in_force()
    for each in archives:
        console.print(
            f"{each.day}  {each.row_count:>12,} rows  {each.size_bytes:>14,} bytes  {each.file_key}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(f"Archived days: {len(archives):,}.", highlight=False)


def attach(console: Console, days: list[date]) -> None:
    """Put archived days back into the database."""
    configured = settings.load()
    archives = Archives(open_database(configured), configured)
    for day in days:
        with step(console, f"Landing of {day}, attached") as say:
            archive = archives.attach(day, configured.now())
            say(f"{archive.row_count:,} rows")
