"""Landing read anew from its files, and compared record for record.

What no other comparison can know: whether landing still says what the files said. A file is read by the limits that
applied when it was landed; one that is gone from the landing root, or has other bytes now, cannot testify.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from metering_pipeline.landing import readers
from metering_pipeline.landing.events import Limits
from metering_pipeline.landing.readers import UnreadableFile
from metering_pipeline.landing.sources import Snapshot, Source, SourceFile
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.statements import rows, statement
from metering_pipeline.settings import HOUR

PACKAGE = "metering_pipeline.reconciliation"
REPAIR = (
    "reread_delete", "reread_insert", "reread_rejected", "reread_erase", "reread_recount", "reread_owe",
)  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LineDifference:
    """A record that differs. Missing: the file has it, landing has not; extra: the other way round; modified: the
    columns say something else. A rejected record differs in being one, or in its reason."""

    file_key: str
    line_number: int
    difference: str
    tenant_id: str | None
    correlation_id: str | None
    differing_columns: list[str]

    def __str__(self) -> str:
        columns = f" in {', '.join(self.differing_columns)}" if self.differing_columns else ""
        who = " ".join(each for each in (self.tenant_id, self.correlation_id) if each)
        return f"{self.file_key} line {self.line_number}: {self.difference}{columns}" + (
            f", {who}" if who else ""
        )


@dataclass
class LandingComparison:
    """What reading files again came to: files and records compared, the differing ones, the first of them.

    Gone: files that are not in the landing root any more. Changed: those with other bytes; neither is compared.
    Miscounted: files whose records landing.files counts otherwise. Repaired: files whose records were put back.
    """

    files: int = 0
    records: int = 0
    missing: int = 0
    extra: int = 0
    modified: int = 0
    gone: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    samples: list[LineDifference] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    archived_days: int = 0

    @property
    def differing(self) -> int:
        return self.missing + self.extra + self.modified

    @property
    def is_well(self) -> bool:
        return not (self.differing or self.changed or self.miscounted)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of files as a whole."""
        return [
            *(
                f"{key}: its bytes are not those that were landed; put it back, or run its hour: it lands as a "
                "new version"
                for key in self.changed
            ),
            *(f"{key}: landing.files counts its records otherwise" for key in self.miscounted),
        ]


def rebuild_landing(
    database: Database,
    landing_root: str,
    start: datetime,
    end: datetime,
    repair: bool = False,
    samples: int = 5,
) -> LandingComparison:
    """Read the current file versions of the landing hours in [start, end) again, and compare.

    With repair the records of each differing file are replaced by what the file says, and its hour waits to be
    posted again: hour by hour, each a transaction under the pipeline's locks. Without, nothing changes and no
    lock is taken. Samples: differing records kept. Raises SourceError.
    """
    source = Source(landing_root)
    listed = source.list_since(start, end - HOUR).files
    comparison = LandingComparison()
    with database.connect() as connection:
        known = rows(
            connection, PACKAGE, "landed_versions", {"window_start": start, "window_end": end}
        )
        comparison.archived_days = len(
            rows(connection, PACKAGE, "archived_days", {"window_start": start, "window_end": end})
        )
    for number, hour in enumerate(sorted({each.landed_hour for each in known}), start=1):
        files = {each.key: each for each in listed.get(hour.astimezone(UTC), [])}
        with _transaction(database, repair) as connection:
            connection.execute(statement(PACKAGE, "reread_tables"))
            for version in (each for each in known if each.landed_hour == hour):
                file = files.get(version.file_key)
                if file is None:
                    comparison.gone.append(version.file_key)
                else:
                    _compare(connection, source, file, version, comparison, repair, samples)
        log.info("landing hour %d: %s read again", number, f"{hour.astimezone(UTC):%Y-%m-%dT%H}")
    return comparison


@contextmanager
def _transaction(database: Database, keep: bool) -> Iterator[psycopg.Connection]:
    if keep:
        with database.locked(landed=True) as connection:
            yield connection
        return
    with (
        database.connect(autocommit=True) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection


def _compare(
    connection: psycopg.Connection,
    source: Source,
    file: SourceFile,
    version: Any,
    comparison: LandingComparison,
    repair: bool,
    samples: int,
) -> None:
    with source.snapshot(file) as snapshot:
        if snapshot.content_sha256 != version.content_sha256:
            comparison.changed.append(file.key)
            return
        connection.execute("truncate reread, reread_rejected, reread_differences")
        _read(connection, snapshot, version)
    parameters: Mapping[str, Any] = {
        "file_id": version.file_id,
        "landed_hour": version.landed_hour,
        "samples": samples - len(comparison.samples),
    }
    connection.execute(statement(PACKAGE, "reread_compare"), parameters)
    (counts,) = rows(connection, PACKAGE, "reread_counts")
    comparison.files += 1
    comparison.records += counts.accepted + counts.rejected
    comparison.missing += counts.missing
    comparison.extra += counts.extra
    comparison.modified += counts.modified
    if (counts.accepted, counts.rejected) != (version.accepted_count, version.rejected_count):
        comparison.miscounted.append(file.key)
    elif not counts.missing + counts.extra + counts.modified:
        return
    comparison.samples += [
        LineDifference(file.key, *row)
        for row in rows(connection, PACKAGE, "reread_samples", parameters)
    ]
    if repair:
        for name in REPAIR:
            connection.execute(statement(PACKAGE, name), parameters)
        comparison.repaired.append(file.key)


def _read(connection: psycopg.Connection, snapshot: Snapshot, version: Any) -> None:
    """The file's records, as landing would take them, into the temporary tables."""
    limits = Limits.of_hour(
        version.landed_hour.astimezone(UTC),
        version.earliest_event_date,
        version.future_tolerance_minutes,
    )
    provenance = (version.landed_hour, version.file_id)
    rejected = []
    with connection.cursor() as cursor:
        try:
            with cursor.copy("copy pg_temp.reread from stdin") as copy:
                for chunk in readers.read(version.file_key, snapshot.stream, limits):
                    columns = (column.to_pylist() for column in chunk.events.columns)
                    for record in zip(*columns, strict=True):
                        copy.write_row((*provenance, *record, None))  # nothing is erased in a file
                    rejected += chunk.rejected
        except UnreadableFile as error:
            connection.execute("truncate reread")
            rejected = [readers.unreadable(error, snapshot.stream)]
        with cursor.copy("copy pg_temp.reread_rejected from stdin") as copy:
            for number, reason, detail, raw in rejected:
                copy.write_row((*provenance, number, str(reason), detail, raw))
