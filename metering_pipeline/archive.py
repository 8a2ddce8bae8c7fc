"""Old days of landing and of the ledger archived and attached again: what ``metering archive`` does and prints."""

import time
from datetime import UTC, date, datetime

import psycopg
from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.landing.archives import Archive, ArchiveError, Archives, Stage
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.progress import step
from metering_pipeline.reconciliation.laws import DAY, evaluate, evaluate_day_of_usage
from metering_pipeline.reconciliation.proof import PROVED

ATTEMPTS = 20
"""How often a day is tried to be taken out, a second apart, while others read landing or land."""


def archive_due(console: Console) -> bool:
    """Archive the days that are old enough, those of landing first; whether none was refused.

    A day of the ledger that is still needed is no refusal: it stays, and why is printed.
    """
    configured = settings.load()
    if not configured.archive_after_days:
        console.print("METERING_ARCHIVE_AFTER_DAYS is 0: nothing is archived.", highlight=False)
        return True
    database = open_database(configured)
    archives = Archives(database, configured)
    archives.remove_loose()
    refused = 0
    for stage in Stage:
        due = archives.due(stage, configured.now())
        archived = 0
        for day in due:
            stays = (
                archives.why_ledger_stays(day, configured.now()) if stage == Stage.LEDGER else None
            )
            if stays is not None:
                _say(console, f"Ledger of {day} stays: {stays}.")
                continue
            try:
                with step(console, f"{stage.capitalize()} of {day}") as say:
                    done = archive_day(database, archives, stage, day, configured.now())
                    say(f"{done.row_count:,} rows, {done.size_bytes:,} bytes")
                archived += 1
            except ArchiveError as error:
                refused += 1
                _say(console, str(error))
        _say(console, f"Archived: {archived:,} of {len(due):,} days of {stage}.")
    return not refused


def archive_day(
    database: Database, archives: Archives, stage: Stage, day: date, now: datetime
) -> Archive:
    """Write a day into a file, prove its laws once more, and take it out of the database.

    Proof and taking out are one transaction under the pipeline's locks. Raises ArchiveError; then no file is left.
    """
    try:
        with archives.alone():
            return _archive(database, archives, stage, day, now)
    except ArchiveError:
        archives.remove_loose()
        raise


def _archive(
    database: Database, archives: Archives, stage: Stage, day: date, now: datetime
) -> Archive:
    written = archives.write(stage, day)
    for _ in range(ATTEMPTS):
        try:
            with database.locked(landed=True) as connection:
                connection.execute("set local role metering_archive")
                _prove(connection, stage, datetime.combine(day, datetime.min.time(), UTC), now)
                archives.take_out(connection, written, now)
        except psycopg.errors.LockNotAvailable:
            time.sleep(1)
        else:
            return written
    raise ArchiveError(
        f"{stage.capitalize()} of {day} was not archived: others read it all the time. Try again when less is going on."
    )


def _prove(connection: psycopg.Connection, stage: Stage, start: datetime, now: datetime) -> None:
    """Of landing L1 to L3 of the day's hours; of the ledger, whose rows those were proved with, L3 of the usage."""
    if stage == Stage.LEDGER:
        evaluate_day_of_usage(connection, start, now)
        return
    for law in PROVED:
        evaluate(connection, law, start, start + DAY, now)


def list_archives(console: Console) -> None:
    """Print the days that are archived."""
    configured = settings.load()
    archives = Archives(open_database(configured, reading=True), configured).in_force()
    for each in archives:
        _say(
            console,
            f"{each.day}  {each.stage:<7}  {each.row_count:>12,} rows  {each.size_bytes:>14,} bytes  {each.file_key}",
        )
    _say(console, f"Archived days: {len(archives):,}.")


def attach(console: Console, days: list[date], stage: Stage | None) -> None:
    """Put archived days back into the database, of a stage or of both."""
    configured = settings.load()
    archives = Archives(open_database(configured), configured)
    with step(console, "Attached") as say:
        attached = archives.attach(days, configured.now(), stage)
        say(", ".join(f"{each.stage} of {each.day}: {each.row_count:,} rows" for each in attached))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
