"""A sample of days built anew from the stage before, week by week, and kept as rows: what was proven when.

The nightly laws compare digests. This compares every row: a day's files with landing, its ledger with landing, its
hourly usage with the ledger. It reads, takes no lock, and goes day by day, each with snapshots of its own.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.rebuild import Comparison, Sample, rebuild_ledger_day
from metering_pipeline.reconciliation.rebuild_landing import LandingComparison, rebuild_landing
from metering_pipeline.reconciliation.statements import rows, statement
from metering_pipeline.settings import HOUR, Settings

PACKAGE = "metering_pipeline.reconciliation"
DAY = timedelta(days=1)
RECENT_DAYS = 28
"""Half of a sample comes from so many of the newest days: what changed lately is the likeliest to be wrong."""
SAMPLES = 5


@dataclass(frozen=True)
class RebuiltDay:
    """A row of reconciliation.rebuilt_days. The samples are texts that lead to the rows that differ."""

    week: date
    day: date
    stage: str
    rebuilt_count: int
    missing_count: int
    extra_count: int
    modified_count: int
    left_out_count: int
    samples: list[str]
    rebuilt_at: datetime

    @property
    def differing(self) -> int:
        return self.missing_count + self.extra_count + self.modified_count

    @property
    def remedy(self) -> str:
        """What mends it."""
        match self.stage:
            case "landing":
                return f"metering rebuild --stage landing --from {self.day}T00 --to {self.day}T23 --repair"
            case "ledger":
                return (
                    f"metering rebuild --stage ledger --from {self.day}T00 --to {self.day}T23 "
                    "--repair (the landing hours that hold a copy of it)"
                )
        return (
            f"metering rebuild --stage rollups --from {self.day}T00 --to {self.day}T23 "
            "(the landing hours that its usage landed in)"
        )

    def __str__(self) -> str:
        counts = f"{self.missing_count:,} missing, {self.extra_count:,} extra, {self.modified_count:,} modified"
        return f"{self.day} {self.stage}: {counts} of {self.rebuilt_count:,}"


def week_of(instant: datetime) -> date:
    """The Monday of the instant's week, UTC."""
    day = instant.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def sample_days(
    days: Sequence[date],
    proven: Mapping[date, date],
    red: Sequence[date],
    week: date,
    count: int,
) -> list[date]:
    """The days to rebuild in a week, the newest first: the same whenever it is asked.

    ``proven`` says in which earlier week a day was rebuilt last, ``red`` which days differed then: these are
    rebuilt until they are well. Half of the others are of the RECENT_DAYS newest, the rest of all, those proven
    least recently first; equals in an order that the week decides.
    """

    def waiting(day: date) -> tuple[date, str]:
        order = hashlib.sha256(f"{week} {day}".encode()).hexdigest()
        return proven.get(day, date.min), order

    newest = sorted(days)[-RECENT_DAYS:]
    chosen = sorted(set(red) & set(days))[:count]
    recent = [day for day in sorted(newest, key=waiting) if day not in chosen]
    chosen += recent[: (count - len(chosen) + 1) // 2]
    rest = [day for day in sorted(days, key=waiting) if day not in chosen]
    return sorted(chosen + rest[: count - len(chosen)], reverse=True)


def rebuild_sample(
    database: Database, configured: Settings, now: datetime, progress: Callable[[str], None]
) -> list[RebuiltDay]:
    """Rebuild the days of this week's sample, METERING_REBUILD_DAYS of them, and keep the results day by day.

    After METERING_REBUILD_MINUTES no further day is begun; the next week's sample takes up those left. Raises
    SourceError where the landing root cannot be read, RebuildError while another rebuild runs.
    """
    week = week_of(now)
    with database.connect() as connection:
        days = _sampled(connection, configured, week, now)
    deadline = time.monotonic() + 60 * configured.rebuild_minutes
    done: list[RebuiltDay] = []
    for number, day in enumerate(days, start=1):
        if time.monotonic() > deadline:
            progress(
                f"{len(days) - number + 1} days are left: METERING_REBUILD_MINUTES have passed"
            )
            break
        for each in _rebuild_day(database, configured, week, day, now):
            done.append(each)
            progress(f"day {number} of {len(days)}, {each}")
    return done


def standing(connection: psycopg.Connection) -> list[RebuiltDay]:
    """What stands: the days that differed when they were last rebuilt, the newest first."""
    with connection.cursor(row_factory=class_row(RebuiltDay)) as cursor:
        return cursor.execute(statement(PACKAGE, "rebuilt_days_red")).fetchall()


def days_rebuilt(connection: psycopg.Connection) -> int:
    """How many days were ever rebuilt."""
    (known,) = rows(connection, PACKAGE, "rebuilt_days_count")
    return int(known.days)


def _sampled(
    connection: psycopg.Connection, configured: Settings, week: date, now: datetime
) -> list[date]:
    known = rows(connection, PACKAGE, "rebuilt_days_known", {"week": week})
    today = now.astimezone(UTC).date()
    return sample_days(
        [each.day for each in known if each.day < today],
        {each.day: each.proven for each in known if each.proven},
        [each.day for each in known if each.is_red],
        week,
        configured.rebuild_days,
    )


def _rebuild_day(
    database: Database, configured: Settings, week: date, day: date, now: datetime
) -> Iterator[RebuiltDay]:
    start = datetime.combine(day, datetime.min.time(), UTC)
    reach = configured.lookback_hours * HOUR
    landing = rebuild_landing(
        database, configured.landing_root, start, start + DAY, samples=SAMPLES
    )
    yield _keep(database, week, day, "landing", now, _of_landing(landing))
    ledger = rebuild_ledger_day(database, start, reach, SAMPLES)
    yield _keep(database, week, day, "ledger", now, _of_ledger(ledger))
    yield _keep(database, week, day, "rollups", now, _of_rollups(database, start))


def _of_landing(compared: LandingComparison) -> Mapping[str, Any]:
    return {
        "rebuilt_count": compared.records,
        "missing_count": compared.missing,
        "extra_count": compared.extra,
        "modified_count": compared.modified + len(compared.remarks),
        "left_out_count": len(compared.gone),
        "samples": [*map(str, compared.samples), *compared.remarks[:SAMPLES]],
    }


def _of_ledger(compared: Comparison) -> Mapping[str, Any]:
    return {
        "rebuilt_count": sum(each.rebuilt for each in compared.tables),
        "missing_count": sum(each.missing for each in compared.tables),
        "extra_count": sum(each.extra for each in compared.tables),
        "modified_count": sum(each.modified for each in compared.tables),
        "left_out_count": compared.left_out,
        "samples": [_copy(each) for each in compared.samples[:SAMPLES]],
    }


def _copy(sample: Sample) -> str:
    columns = f" in {', '.join(sample.differing_columns)}" if sample.differing_columns else ""
    return (
        f"{sample.file_key or sample.file_id} line {sample.line_number}: {sample.difference}{columns} in "
        f"ledger.{sample.table}, {sample.tenant_id} {sample.correlation_id}"
    )


def _of_rollups(database: Database, start: datetime) -> Mapping[str, Any]:
    parameters = {"starts_at": start, "ends_at": start + DAY, "samples": SAMPLES}
    with database.connect() as connection:
        connection.prepare_threshold = None
        (counts,) = rows(connection, PACKAGE, "rebuilt_usage", parameters)
    return dict(counts._asdict())


def _keep(
    database: Database, week: date, day: date, stage: str, now: datetime, counts: Mapping[str, Any]
) -> RebuiltDay:
    rebuilt = RebuiltDay(week=week, day=day, stage=stage, rebuilt_at=now, **counts)
    with database.connect() as connection:
        parameters = {**vars(rebuilt), "samples": Jsonb(rebuilt.samples)}
        connection.execute(statement(PACKAGE, "keep_rebuilt_day"), parameters)
    return rebuilt
