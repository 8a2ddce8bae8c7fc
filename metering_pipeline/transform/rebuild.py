"""The rollups built anew from the ledger: every key of a range of landing hours is owed again, and posted."""

import logging
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime

from adbc_driver_postgresql import dbapi

from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.settings import END_OF_TIME, HOUR
from metering_pipeline.transform.archived import half_archived
from metering_pipeline.transform.assets import parts
from metering_pipeline.transform.posting import (
    CONTRIBUTIONS,
    DAILY,
    HOURLY,
    Changes,
    DraftChange,
    Posting,
    posting_errors,
)

ROLLUPS = (CONTRIBUTIONS, HOURLY, DAILY)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """A rebuild's outcome. Owed: keys of ledger.pending that were rolled up first, since they are no fault.

    Archived days: of usage, whose landing hours were left out. Drafts: those that would change; of a rebuild that is
    kept none, the next run rates what it changed.
    """

    owed: int
    archived_days: int
    changes: Changes
    drafts: tuple[DraftChange, ...] = ()


def rebuild_rollups(
    database: Database, start: datetime | None, end: datetime | None, keep: bool
) -> Rebuilt | None:
    """Build contributions, hourly and daily usage of the landing hours in [start, end) anew from the ledger.

    Without start and end: of all landing hours. What the rollups owe is rolled up first, the range's late
    arrivals included. Landing hours of which events are archived are left out. With keep each part of the range is a transaction of its own under the pipeline's
    lock; without, all is one that is undone, and goes on to the drafts. None if nothing has landed. Raises DbtError, PostingError.
    """
    window = Window(start, end) if start and end else _everything(database)
    if window is None:
        return None
    with posting_errors(), closing(dbapi.connect(database.url)) as connection:
        posting = Posting(database, connection, window)
        posting.lock()
        owed = _settle(posting, window)
        posting.watch()
        if keep:
            connection.commit()
        spans, archived_days = _kept(database, window)
        windows = [part for span in spans for part in parts(database, span)]
        for number, part in enumerate(windows, start=1):
            posting.lock()
            posting.call("owe_window", part)
            posting.post(ROLLUPS, part)
            if keep:
                connection.commit()
            log.info("rollups: part %s of %s built anew", number, len(windows))
        if keep:
            return Rebuilt(owed, archived_days, posting.changes())
        posting.lock()
        posting.rate()
        return Rebuilt(owed, archived_days, posting.changes(), posting.draft_changes())


def _everything(database: Database) -> Window | None:
    """From the first to the last landing hour that the ledger or the rollups may know."""
    with database.connect() as connection:
        [(first, last)] = connection.execute(
            """
            select min(landed_hour), max(landed_hour)
            from (
                select landed_hour from landing.files
                union all
                select landed_hour from rollups.usage_contributions
            ) as known
            """
        ).fetchall()
    return Window(first.astimezone(UTC), last.astimezone(UTC) + HOUR) if first else None


def _kept(database: Database, window: Window) -> tuple[list[Window], int]:
    """The window without the days of landing of which events are archived; and how many days of usage these are."""
    archived = half_archived(database)
    spans: list[Window] = []
    left_out: set[date] = set()
    for day in window.days():
        if day.start.date() in archived:
            left_out |= archived[day.start.date()]
        elif spans and spans[-1].end == day.start:
            spans[-1] = Window(spans[-1].start, day.end)
        else:
            spans.append(day)
    return spans, len(left_out)


def _settle(posting: Posting, window: Window) -> int:
    """Roll up what is owed, so that it is not taken for a fault; how many keys."""
    [(before,)] = posting.rows("select count(*) from ledger.pending")
    posting.rows(
        "update ledger.pending set released = true"
        " where landed_hour >= $1::timestamptz and landed_hour < $2::timestamptz",
        window.start,
        window.end,
    )
    posting.post(ROLLUPS, Window(window.start, END_OF_TIME))
    [(after,)] = posting.rows("select count(*) from ledger.pending")
    return int(before) - int(after)
