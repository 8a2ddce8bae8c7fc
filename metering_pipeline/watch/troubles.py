"""What is wrong with the operation: found in the figures and by Dagster, kept, and told once.

A trouble has a kind and a subject, and is grave once it has been seen for as long as its kind has patience.
The sensor ``watch`` looks every two minutes; what can be told from the figures alone is told by ``metering status``
and ``metering metrics`` too when the daemon is dead.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
from psycopg.rows import class_row

from metering_pipeline.settings import Settings
from metering_pipeline.watch.figures import Figures, in_bytes

DAY = timedelta(days=1)
DAILY = {
    "every_day": ("invoices/issued_invoices", "no day's invoices were issued"),
    "every_night": ("reconciliation/law_results", "nothing was proved"),
}
"""Schedules of a day: the step that shows that it has run, and what it means if it has not."""


@dataclass(frozen=True)
class Kind:
    """A kind of trouble: what it means, the page that says what to do, whether the figures alone show it."""

    says: str
    page: str
    in_figures: bool


KINDS: Mapping[str, Kind] = {
    "schedule_missed": Kind(
        "a run that was due has not been", "docs/runbooks/schedule-missed.md", True
    ),
    "hour_not_sealed": Kind(
        "a landing hour that is over is not complete, and invoices wait for it",
        "docs/runbooks/schedule-missed.md",
        True,
    ),
    "automation_off": Kind(
        "a schedule or sensor is turned off", "docs/runbooks/sensor-failed.md", False
    ),
    "tick_failed": Kind(
        "the last tick of a schedule or sensor failed", "docs/runbooks/sensor-failed.md", False
    ),
    "run_failed": Kind(
        "the last run of a job, for some partition, failed", "docs/runbooks/sensor-failed.md", False
    ),
    "check_failed": Kind("an asset check fails as an error", "docs/watch.md", False),
    "law_failed": Kind("a law fails", "docs/runbooks/law-failed.md", True),
    "disk_full": Kind("a disk is nearly full", "docs/runbooks/disk-full.md", True),
    "queue_growing": Kind(
        "a queue between two stages is not worked off", "docs/runbooks/queue-growing.md", True
    ),
    "invoices_held": Kind("invoices that are due are held", "docs/runbooks/queue-growing.md", True),
    "not_watched": Kind(
        "nobody looks for troubles: the daemon or its sensor watch does not run",
        "docs/runbooks/sensor-failed.md",
        True,
    ),
}


@dataclass(frozen=True)
class Found:
    """Something wrong at this moment, and how long it may last before it is grave."""

    kind: str
    subject: str
    detail: str
    patience: timedelta = timedelta(0)


@dataclass(frozen=True)
class Trouble:
    """A row of reconciliation.troubles; number 0: found just now, and not kept yet."""

    trouble_id: int
    kind: str
    subject: str
    detail: str
    seen_since: datetime
    grave_at: datetime
    ended_at: datetime | None

    def __str__(self) -> str:
        since = f" (since {_instant(self.seen_since)})" if self.trouble_id else ""
        return f"{self.kind} {self.subject}: {self.detail}{since}"


def found_in_figures(figures: Figures, settings: Settings, now: datetime) -> list[Found]:
    """What the figures show to be wrong at this moment."""
    expected = off_on_purpose(settings)
    return [
        each
        for found in (
            _missed(figures, settings, now),
            _unsealed(figures, settings, now),
            _laws(figures),
            _disks(figures, settings),
            _queues(figures, settings),
            _held(figures, settings, now),
            _unwatched(figures, now),
        )
        for each in found
        if each.kind not in ("schedule_missed", "not_watched") or each.subject not in expected
    ]


def off_on_purpose(settings: Settings) -> frozenset[str]:
    """The schedules and sensors that are off on purpose."""
    names = (name.strip() for name in settings.off_on_purpose.split(","))
    return frozenset(name for name in names if name)


def _missed(figures: Figures, settings: Settings, now: datetime) -> Iterator[Found]:
    overdue = timedelta(minutes=settings.overdue_minutes)
    run_until = figures.instant("run_until_timestamp_seconds")
    due = (now - overdue).replace(minute=0, second=0, microsecond=0)
    if due > settings.first_hour and (run_until is None or run_until < due):
        detail = (
            f"no landing hour after {_hour(run_until)} was run" if run_until else "no hour was run"
        )
        yield Found("schedule_missed", "every_hour", detail)
    first = figures.instant("first_step_timestamp_seconds")
    for schedule, (step, means) in DAILY.items():
        last = figures.instant("step_end_timestamp_seconds", step) or first
        if last is not None and last < now - DAY - overdue:
            yield Found("schedule_missed", schedule, f"{means} since {_instant(last)}")


def _unsealed(figures: Figures, settings: Settings, now: datetime) -> Iterator[Found]:
    """An hour that a run found and that cannot be sealed; hours that no run has reached are missed ones."""
    sealed_until = figures.instant("sealed_until_timestamp_seconds")
    run_until = figures.instant("run_until_timestamp_seconds")
    overdue = timedelta(minutes=settings.overdue_minutes + settings.settle_minutes)
    if (
        sealed_until
        and run_until
        and sealed_until < min(run_until, now - overdue - timedelta(hours=1))
    ):
        yield Found(
            "hour_not_sealed", "landing.hours", f"{_hour(sealed_until + timedelta(hours=1))} is not"
        )


def _laws(figures: Figures) -> Iterator[Found]:
    for law, windows in figures.labels("failing_windows").items():
        if windows:
            yield Found("law_failed", law, f"fails in {windows:,} windows (metering status)")


def _disks(figures: Figures, settings: Settings) -> Iterator[Found]:
    for place, size in figures.labels("disk_size_bytes").items():
        yield from _nearly_full(place, figures.get("disk_free_bytes", place), size, settings)
    size = Decimal(settings.database_gigabytes) * 10**9
    if size:
        free = size - (figures.get("database_bytes") or 0)
        yield from _nearly_full("database", free, size, settings)


def _nearly_full(
    place: str, free: Decimal | None, size: Decimal, settings: Settings
) -> Iterator[Found]:
    if free is not None and size and free < size * settings.disk_free_percent / 100:
        shown = f"{in_bytes(max(free, Decimal(0)))} of {in_bytes(size)} free"
        yield Found("disk_full", place, shown)


def _queues(figures: Figures, settings: Settings) -> Iterator[Found]:
    for queue, rows in figures.labels("queue_rows").items():
        if rows >= settings.queue_rows > 0:
            yield Found("queue_growing", queue, f"{rows:,} rows")
        elif rows:
            yield Found(
                "queue_growing", queue, f"{rows:,} rows", timedelta(minutes=settings.queue_minutes)
            )


def _held(figures: Figures, settings: Settings, now: datetime) -> Iterator[Found]:
    since = figures.instant("oldest_hold_timestamp_seconds")
    if since and since < now - timedelta(hours=settings.held_hours):
        held = figures.whole("held_invoices")
        yield Found(
            "invoices_held", "invoices", f"{held:,} held, the oldest since {_instant(since)}"
        )


UNWATCHED = timedelta(minutes=15)
"""The sensor looks every two minutes."""


def _unwatched(figures: Figures, now: datetime) -> Iterator[Found]:
    looked = figures.instant("looked_timestamp_seconds")
    if looked is None:
        yield Found("not_watched", "watch", "the sensor watch has never looked: turn it on")
    elif looked < now - UNWATCHED:
        yield Found(
            "not_watched", "watch", f"the sensor watch has not looked since {_instant(looked)}"
        )


def _instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M}Z"


def _hour(end: datetime) -> str:
    """The landing hour that ends at the instant."""
    return f"{end.astimezone(UTC) - timedelta(hours=1):%Y-%m-%dT%H}"


def grave(
    connection: psycopg.Connection, figures: Figures, settings: Settings, now: datetime
) -> list[Trouble]:
    """What is wrong and grave, by the figures of now and by what the sensor saw last, oldest first."""
    known = {(each.kind, each.subject): each for each in standing(connection)}
    found = {(each.kind, each.subject): each for each in found_in_figures(figures, settings, now)}
    troubles = [
        each for key, each in known.items() if not KINDS[each.kind].in_figures or key in found
    ]
    troubles += [
        Trouble(0, each.kind, each.subject, each.detail, now, now + each.patience, None)
        for key, each in found.items()
        if key not in known
    ]
    return sorted(
        (each for each in troubles if each.grave_at <= now),
        key=lambda each: (each.seen_since, each.kind, each.subject),
    )


def standing(connection: psycopg.Connection) -> list[Trouble]:
    """The troubles that stand, grave ones and others, as they were seen last."""
    with connection.cursor(row_factory=class_row(Trouble)) as cursor:
        return cursor.execute(
            """
            select trouble_id, kind, subject, detail, seen_since, grave_at, ended_at
            from reconciliation.troubles
            where ended_at is null
            order by trouble_id
            """
        ).fetchall()


def keep(connection: psycopg.Connection, found: Iterable[Found], now: datetime) -> bool:
    """Write what was found and end what was not, in one transaction; whether what is grave has changed."""
    present = list(found)
    with connection.transaction():
        before = connection.execute(GRAVE_AT_LAST_LOOK).fetchall()
        with connection.cursor() as cursor:
            cursor.executemany(
                """
                insert into reconciliation.troubles as troubles (
                    kind, subject, detail, seen_since, seen_at, grave_at
                )
                values (%s, %s, %s, %s, %s, %s)
                on conflict (kind, subject) where ended_at is null do update
                    set
                        detail = excluded.detail,
                        seen_at = excluded.seen_at,
                        grave_at = least(troubles.grave_at, excluded.grave_at)
                """,
                [
                    (each.kind, each.subject, each.detail, now, now, now + each.patience)
                    for each in present
                ],
            )
        keys = {
            "kinds": [each.kind for each in present],
            "subjects": [each.subject for each in present],
            "now": now,
        }
        connection.execute(END, keys)
        connection.execute("update reconciliation.watch set looked_at = %s", (now,))
        return before != connection.execute(GRAVE_AT_LAST_LOOK).fetchall()


GRAVE_AT_LAST_LOOK = """
select kind, subject
from reconciliation.troubles
where ended_at is null and grave_at <= (select looked_at from reconciliation.watch)
order by kind, subject
"""

END = """
with gone as (
    select trouble_id
    from reconciliation.troubles
    where
        ended_at is null
        and (kind, subject) not in (select * from unnest(%(kinds)s::text[], %(subjects)s::text[]))
),

forgotten as (
    delete from reconciliation.troubles
    where trouble_id in (select trouble_id from gone) and grave_at > %(now)s
)

update reconciliation.troubles
set ended_at = %(now)s
where trouble_id in (select trouble_id from gone) and grave_at <= %(now)s
"""


def untold(connection: psycopg.Connection, now: datetime) -> list[Trouble]:
    """What is to be told: grave troubles that nobody was told of, and the ends of those that somebody was."""
    with connection.cursor(row_factory=class_row(Trouble)) as cursor:
        return cursor.execute(
            """
            select trouble_id, kind, subject, detail, seen_since, grave_at, ended_at
            from reconciliation.troubles
            where
                (ended_at is null and grave_at <= %s and alerted_at is null)
                or (ended_at is not null and alerted_at is not null and end_alerted_at is null)
            order by trouble_id
            """,
            (now,),
        ).fetchall()


def note_told(
    connection: psycopg.Connection, troubles: Iterable[Trouble], now: datetime, told: bool
) -> None:
    """Note that troubles, or their ends, were told, or that they could not be: then it is tried again."""
    connection.execute(
        """
        update reconciliation.troubles
        set
            alerted_at = case when %(told)s and ended_at is null then %(now)s else alerted_at end,
            end_alerted_at = case when %(told)s and ended_at is not null then %(now)s end,
            failed_alerts = failed_alerts + (not %(told)s)::integer
        where trouble_id = any(%(trouble_ids)s)
        """,
        {"told": told, "now": now, "trouble_ids": [each.trouble_id for each in troubles]},
    )
    connection.commit()
