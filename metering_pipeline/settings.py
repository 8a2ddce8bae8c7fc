"""Every knob of the pipeline: its name, unit, default and why.

Settings come from the environment, prefix ``METERING_``. An unknown name with this prefix
is an error: a misspelt setting must not fall back to a default in silence.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar

from metering_pipeline.errors import MeteringError

PREFIX = "METERING_"
FIRST_YEAR, LAST_YEAR = 1970, 2999
"""Of what a person may write: another year is a slip, and next to the first or last that there are is no period."""
PROJECT_ROOT = Path(__file__).resolve().parent.parent


CHOICES = {
    "approval": ("none", "required"),
    "dbt_mode": ("inprocess", "cli"),
    "provider_gate": ("warn", "hold"),
    "stripe_grouping": ("hour", "day"),
}


Moment = TypeVar("Moment", bound=date)


class SettingError(MeteringError):
    """A setting that is unknown or cannot be read; the message names it and says what to do."""


@dataclass(frozen=True)
class Settings:
    """The pipeline's settings, read once from the environment."""

    home: Path = Path(".metering")
    """Where the embedded database, the sample landing root and Dagster's files live."""

    database_url: str | None = None
    """A PostgreSQL (16 or newer) of your own, postgresql://user:password@host:port/database.
    Unset: the embedded server under the home, started on demand."""

    dagster_database_url: str | None = None
    """Where Dagster keeps runs, events and schedules. Unset: database ``dagster`` of the embedded
    server, or the database of ``METERING_DATABASE_URL``."""

    landing_url: str | None = None
    """The landing root: a directory or any URL that Arrow's filesystems open. Unset: <home>/landing."""

    first_hour: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    """The first landing hour, UTC, as 2026-01-31T13. Listings and partitions begin here."""

    lookback_hours: int = 72
    """Hours. Usage that lands at most this long after its event hour is rolled up by the ordinary
    runs; later usage waits as a late arrival for a run of its own. Larger: fewer such runs, a longer
    reach of each ordinary one. It never decides what is counted."""

    grace_hours: int = 72
    """Hours after a period's end in which its draft still takes late usage; then the invoice is due.
    Shorter bills sooner, with more adjustments on the next invoice."""

    settle_minutes: int = 10
    """Minutes after an hour's end before a listing can seal it: producers may still be writing."""

    landing_rescan_hours: int = 168
    """Hours back that the sensor lists for files dropped late into an old folder."""

    rejected_days: int = 30
    """Days after landing for which the bytes of a rejected record are kept, so that its producer can mend it.
    Later only file, line and reason stay: it may be anything, and nobody reads it any more."""

    archive_after_days: int = 0
    """Days after which ``metering archive write`` writes a UTC day of landing, or of the ledger, to Parquet and takes
    it out of the database. Laws and rebuilds look at it no more until it is attached again. 0: nothing is archived."""

    archive_url: str | None = None
    """Where archived days are: a directory or any URL that Arrow's filesystems open. Unset: <home>/archive."""

    earliest_event_date: date = date(2020, 1, 1)
    """Events before this UTC day are rejected: a producer's clock that starts at 1970 is no usage."""

    future_tolerance_minutes: int = 60
    """Minutes that an event may lie beyond the end of the hour it landed in (clock skew)."""

    final_days: int = 30
    """Days. After a subscription has ended, further adjustments make at most one document in so many."""

    approval: str = "none"
    """``required``: a draft that is due is held until somebody approves it as it is (``metering issue
    --approve``). ``none``: what the gate lets go is issued."""

    provider_usage: str | None = None
    """Whose usage is compared with ours before invoices go: ``csv:PATH`` (a file or a folder), ``stripe``, or
    ``table:SCHEMA.NAME`` (a table or view of this database). Unset: nobody's, and nothing is said of it."""

    provider_threshold_percent: Decimal = Decimal("0.01")
    """Percent of the larger side. A provider's figure for a tenant, metric and period that differs by no more
    is good: providers round, and count in floating point."""

    provider_gate: str = "warn"
    """``hold``: invoices whose usage differs from the provider's beyond the threshold, or was not compared,
    are held. ``warn``: the check shows it, and they go."""

    stripe_api_key: str | None = field(default=None, repr=False)
    """A restricted key with read access to customers and billing meters. From the environment only: it is
    written nowhere."""

    stripe_api_base: str | None = None
    """Another address than Stripe's own: https, or http on this machine, as for its mock server."""

    stripe_grouping: str = "hour"
    """``hour`` names the hours that Stripe has not; ``day`` asks for fewer pages and names days."""

    rebuild_days: int = 7
    """Days that are built anew and compared row for row each week. Seven keep pace with time; more reach
    the older days sooner. 0: none."""

    rebuild_minutes: int = 120
    """Minutes after which the weekly rebuild begins no further day."""

    overdue_minutes: int = 60
    """Minutes after its end within which a landing hour is to be run and sealed; later it counts as missed. A day's
    invoices and a night's proof have a day and as long. Shorter than a run takes: false alarms."""

    tick_minutes: int = 10
    """Minutes that a schedule or sensor may be off, or its last tick failed, before it counts as trouble: a moment
    without the database heals by itself."""

    queue_minutes: int = 180
    """Minutes that a queue between two stages may be found with something in it, without a break, before it counts as
    stuck. A run empties it; a long backfill fills it all the while."""

    queue_rows: int = 1_000_000
    """Rows of a queue that count as trouble at once."""

    held_hours: int = 24
    """Hours that an invoice may be held before somebody is told."""

    disk_free_percent: int = 10
    """Percent of a disk that must be free: of the home's, of a local landing root's, and of METERING_DATABASE_GIGABYTES."""

    database_gigabytes: int = 0
    """Gigabytes (10**9 bytes) that the database may take, where it is a server of your own: its disk cannot be seen from
    here. 0: not watched; the embedded server lies on the home's disk."""

    off_on_purpose: str = ""
    """Schedules and sensors, separated by commas, that are off on purpose: nobody is told that they are."""

    alert_urls: str | None = field(default=None, repr=False)
    """Where troubles are told, as Apprise writes it, several separated by spaces: slack://…, pagerduty://…, mailto://…,
    jsons://… for any webhook. They hold keys: from the environment only, written nowhere. Unset: nobody is told."""

    watch_timeout_seconds: int = 10
    """Seconds after which reading the figures is given up: it must not hang when the database does."""

    clock: datetime | None = None
    """A fixed instant taken for now, RFC 3339: for replays and the demo. Unset: the real time."""

    dbt_mode: str = "inprocess"
    """``inprocess``: dbt runs inside the Dagster process, about seven times cheaper a run.
    ``cli``: the stock resource of dagster-dbt, a process a run."""

    def now(self) -> datetime:
        """The present instant, UTC; the fixed clock where one is set."""
        return self.clock or datetime.now(UTC)

    @property
    def landing_root(self) -> str:
        return self.landing_url or str(self.home.resolve() / "landing")

    @property
    def archive_root(self) -> str:
        return self.archive_url or str(self.home.resolve() / "archive")


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Raises SettingError for an unknown or unreadable one."""
    environment = os.environ if environment is None else environment
    known = {each.name for each in fields(Settings)}
    values: dict[str, object] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            raise SettingError(
                f"{variable} is not a setting. Known: "
                + ", ".join(sorted(PREFIX + each.upper() for each in known))
            )
        values[name] = _read(variable, name, text)
    return Settings(**values)  # type: ignore[arg-type]


def _read(variable: str, name: str, text: str) -> object:
    default = getattr(Settings, name)
    try:
        if name == "first_hour":
            return parse_hour(text)
        if name == "clock":
            return parse_instant(text)
        if name in CHOICES:
            return _one_of(text, CHOICES[name])
        if isinstance(default, Decimal):
            return _percent(text)
        if isinstance(default, int):
            return _whole_number(text)
        if isinstance(default, date):
            return parse_day(text)
        if isinstance(default, Path):
            return Path(text)
    except ValueError as error:
        raise SettingError(f"{variable}={text!r}: {error}") from error
    return text


def parse_hour(text: str) -> datetime:
    """An hour as it is written everywhere, ``2026-01-31T13``, as its first instant in UTC."""
    try:
        hour = datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("write an hour in UTC as 2026-01-31T13") from None
    return within_reach(hour)


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant, in UTC. Raises ValueError with what to write."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError("write an instant with its offset, as 2026-01-31T13:00:00Z")
    return within_reach(instant).astimezone(UTC)


def parse_day(text: str) -> date:
    """A day, ``2026-01-31``. Raises ValueError with what to write."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("write a date as 2026-01-31") from None
    return within_reach(day)


def within_reach(moment: Moment) -> Moment:
    """The moment itself. Raises ValueError for one before FIRST_YEAR or after LAST_YEAR."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"write a year from {FIRST_YEAR} to {LAST_YEAR}")
    return moment


def _whole_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _percent(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("write a percentage as 0.01") from None
    if not (number.is_finite() and 0 <= number < 100):
        raise ValueError("must be a percentage from 0 up to, not including, 100")
    return number


def _one_of(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}")
    return text


def hour_of(instant: datetime) -> datetime:
    """The first instant of the hour that holds the instant, UTC."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


HOUR = timedelta(hours=1)
END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
"""After whatever lands: where a window ends that leaves nothing out."""
