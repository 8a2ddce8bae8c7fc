"""What a run of landing hours would change: it happens for real, in one transaction that is undone."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from metering_pipeline.landing.sources import Source
from metering_pipeline.landing.store import LandedHour, Store
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, settings_in_database
from metering_pipeline.settings import END_OF_TIME, HOUR, Settings
from metering_pipeline.transform.assets import parts
from metering_pipeline.transform.posting import (
    CONTRIBUTIONS,
    DAILY,
    HOURLY,
    LEDGER,
    Changes,
    DraftChange,
    Posting,
    posting_errors,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Posted:
    """Rows that a table of the ledger would get and lose: an event whose owner changes moves."""

    table: str
    added: int
    removed: int


@dataclass(frozen=True)
class DryRun:
    """What a run would do, stage by stage, and to which drafts.

    Late keys: pending beyond the lookback, left to a run of the job late_arrivals.
    """

    landed: tuple[LandedHour, ...]
    posted: tuple[Posted, ...]
    rollups: Changes
    late_keys: int
    drafts: tuple[DraftChange, ...]


def dry_run(database: Database, settings: Settings, window: Window) -> DryRun:
    """Run the landing hours of the window up to the drafts, look at what has changed, and undo all.

    The transaction holds the pipeline's locks, so whoever writes waits, and who reads sees nothing of it; a
    connection that ends, however it ends, undoes it. Raises SourceError, DbtError, PostingError.
    """
    source = Source(settings.landing_root)
    with posting_errors(), Store(database.url, settings, source, keep=False) as store:
        posting = Posting(database, store.connection, window)
        landed = store.land_hours(window.start, window.end - HOUR, settings.now(), log.info)
        posting.lock()
        _use_settings(posting, settings)
        windows = parts(database, window, _records(landed))
        posting.call("ensure_ledger_partitions")
        before = _written(posting)
        _post(posting, [LEDGER], windows)
        posted = _written(posting) - before
        posting.watch()
        *first, last = windows
        _post(posting, [CONTRIBUTIONS, HOURLY], [*first, Window(last.start, END_OF_TIME)])
        _post(posting, [DAILY], [window])
        log.info("rating")
        posting.rate()
        [(late_keys,)] = posting.rows("select count(*) from rollups.late_arrivals")
        return DryRun(
            tuple(landed),
            tuple(Posted(table, posted[table, 1], posted[table, -1]) for table in _TABLES),
            posting.changes(),
            late_keys,
            posting.draft_changes(),
        )


def _records(landed: Sequence[LandedHour]) -> Counter[datetime]:
    return Counter({hour.landed_hour: hour.accepted for hour in landed})


def _use_settings(posting: Posting, settings: Settings) -> None:
    """A run would put the present settings into the database first."""
    for name, value in settings_in_database(settings).items():
        posting.rows(
            "update catalog.settings set value = $2::text where name = $1::text and value <> $2::text",
            name,
            value,
        )


def _post(posting: Posting, models: Sequence[str], windows: Sequence[Window]) -> None:
    stage = "ledger" if LEDGER in models else "rollups"
    for number, part in enumerate(windows, start=1):
        posting.post(models, part)
        log.info("%s: part %s of %s done, to be undone", stage, number, len(windows))


_TABLES = ("usage_events", "duplicates", "conflicts", "voids", "withdrawn")

_WRITTEN = """
-- What this transaction has written so far; a partition counts as its table.
select
    written.relname,
    sum(stats.n_tup_ins)::bigint,
    sum(stats.n_tup_del)::bigint
from pg_stat_xact_user_tables as stats
inner join pg_class as written on coalesce(pg_partition_root(stats.relid), stats.relid) = written.oid
where stats.schemaname = 'ledger'
group by written.relname
"""


def _written(posting: Posting) -> Counter[tuple[str, int]]:
    """Rows by table that were added (1) and removed (-1)."""
    counts: Counter[tuple[str, int]] = Counter()
    for table, added, removed in posting.rows(_WRITTEN):
        counts += Counter({(table, 1): added, (table, -1): removed})
    return counts
