"""The figures by which the pipeline is watched: those of the view reconciliation.figures, and the disks'."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg

from metering_pipeline.postgres import Connection, Database, DatabaseError
from metering_pipeline.settings import Settings

READER = "metering_analyst"
CONNECT_SECONDS = 5


@dataclass(frozen=True)
class About:
    """What a figure means, and the name of its label, if it has one."""

    says: str
    label: str | None = None


ABOUT: Mapping[str, About] = {
    "landed_records_total": About(
        "Records that landed, every version of a file counted.", "result"
    ),
    "landed_files_total": About("File versions that landed."),
    "landed_bytes_total": About("Bytes of the file versions that landed."),
    "current_records": About("Records of the files as they are now.", "result"),
    "current_files": About("Files as they are now, superseded versions left out."),
    "landing_partitions": About(
        "Landing hours listed, those with files, sealed ones, landed ones not posted to the ledger.",
        "state",
    ),
    "sealed_until_timestamp_seconds": About(
        "The instant up to which every landing hour is sealed."
    ),
    "run_until_timestamp_seconds": About(
        "The end of the newest landing hour that was run when it was over."
    ),
    "listed_timestamp_seconds": About("When the landing root was listed last."),
    "recent_events": About(
        "Events of the last 24 landing hours: up to two hours late, later, later than the lookback.",
        "arrival",
    ),
    "beyond_lookback_ratio": About(
        "Share of the events of 30 days that came later than the lookback."
    ),
    "recent_copies": About(
        "Duplicates and conflicts that landed in the last 24 landing hours.", "kind"
    ),
    "late_arrivals": About("Keys later than the lookback that wait for a run of their own."),
    "queue_rows": About("Rows of the queues between the stages.", "queue"),
    "draft_invoices": About("Drafts."),
    "issued_invoices_total": About("Documents issued."),
    "held_invoices": About("Drafts that are due and held."),
    "oldest_hold_timestamp_seconds": About("Since when the oldest held draft is held."),
    "issuing_stopped": About("1 while the switch stops all issuing."),
    "failing_windows": About("Windows in which a law fails by its newest evaluation.", "law"),
    "law_evaluated_timestamp_seconds": About("When a law was evaluated last.", "law"),
    "steps_total": About("Steps of runs that succeeded.", "stage"),
    "failed_steps_total": About("Steps of runs that failed.", "stage"),
    "step_seconds_total": About("Wall time of the steps.", "stage"),
    "step_cpu_seconds_total": About(
        "CPU time of the steps' own processes, without the database's.", "stage"
    ),
    "step_records_total": About(
        "Records that the steps went through: landed, posted, contributed.", "stage"
    ),
    "step_end_timestamp_seconds": About("When a step succeeded last.", "step"),
    "first_step_timestamp_seconds": About("When the first step ran whose cost is known."),
    "looked_timestamp_seconds": About("When the sensor watch looked for troubles last."),
    "failed_alerts": About("Troubles that stand and could not be told."),
    "database_bytes": About("Size of the pipeline's database."),
    "disk_free_bytes": About("Free space of a disk that the pipeline writes to.", "place"),
    "disk_size_bytes": About("Size of that disk.", "place"),
}
"""Every figure, by the name that it has in the view and, with the prefix metering_, for Prometheus."""


class Figures:
    """The figures of one moment."""

    def __init__(self, values: Mapping[tuple[str, str], Decimal]) -> None:
        self._values = values

    def __iter__(self) -> Iterator[tuple[str, str, Decimal]]:
        """Figure, label (empty: none), value."""
        return ((figure, label, value) for (figure, label), value in self._values.items())

    def get(self, figure: str, label: str = "") -> Decimal | None:
        return self._values.get((figure, label))

    def whole(self, figure: str, label: str = "") -> int:
        """A count; 0 where there is none."""
        return int(self.get(figure, label) or 0)

    def instant(self, figure: str, label: str = "") -> datetime | None:
        """The instant, UTC, of a figure that is one."""
        seconds = self.get(figure, label)
        return None if seconds is None else datetime.fromtimestamp(float(seconds), UTC)

    def labels(self, figure: str) -> Mapping[str, Decimal]:
        """The figure's values by label."""
        return {label: value for name, label, value in self if name == figure}


def in_bytes(size: Decimal) -> str:
    """A size as people read it: 2.1 GB, 30.0 MB."""
    unit, name = (10**9, "GB") if size >= 10**9 else (10**6, "MB")
    return f"{size / unit:,.1f} {name}"


@contextmanager
def reading(database: Database, settings: Settings) -> Iterator[psycopg.Connection]:
    """A session that can only read, as an analyst, and gives up in time. Raises DatabaseError."""
    milliseconds = str(settings.watch_timeout_seconds * 1000)
    url = database.url_with(
        role=READER,
        timezone="UTC",
        default_transaction_read_only="on",
        statement_timeout=milliseconds,
        lock_timeout=milliseconds,
    )
    try:
        with Connection.connect(
            url, connect_timeout=CONNECT_SECONDS, application_name="metering watch"
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise DatabaseError(f"The figures cannot be read: {error}") from error


def read_figures(connection: psycopg.Connection, settings: Settings | None = None) -> Figures:
    """The figures as they are now; with settings those of the disks too."""
    rows = connection.execute("select figure, label, value from reconciliation.figures").fetchall()
    values = {(figure, label): value for figure, label, value in rows}
    return Figures(values | dict(_disks(settings) if settings else {}))


def _disks(settings: Settings) -> Iterator[tuple[tuple[str, str], Decimal]]:
    """The home's disk, where the embedded server's data lie too, and that of a landing root on this machine, if it is
    another."""
    places = {"home": settings.home}
    if "://" not in settings.landing_root:
        places["landing"] = Path(settings.landing_root)
    seen = set()
    for place, path in places.items():
        if path.exists() and (disk := path.stat().st_dev) not in seen:
            seen.add(disk)
            usage = shutil.disk_usage(path)
            yield ("disk_free_bytes", place), Decimal(usage.free)
            yield ("disk_size_bytes", place), Decimal(usage.total)
