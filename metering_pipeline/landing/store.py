"""Landing hours in the database: one transaction an hour, nothing lost, nothing twice."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from metering_pipeline.errors import hiding_rows
from metering_pipeline.landing import readers
from metering_pipeline.landing.archives import ArchiveError, Archives, Stage
from metering_pipeline.landing.columns import INSTANT
from metering_pipeline.landing.events import Limits
from metering_pipeline.landing.listing import unreadable
from metering_pipeline.landing.manifests import Manifest, read_manifest
from metering_pipeline.landing.readers import Chunk, RejectedRecord, UnreadableFile
from metering_pipeline.landing.sources import Source, SourceFile, Unknown
from metering_pipeline.postgres import LANDED_LOCK, LEDGER_LOCK, Database
from metering_pipeline.settings import HOUR, Settings

log = logging.getLogger(__name__)

Progress = Callable[[str], object]
"""Called with a line of text after each landing hour."""

REJECTED_BYTES = 8 << 20
"""Rejected records are written whenever they have gathered so many bytes: memory stays bounded."""

EVENTS_SCHEMA = pa.schema([("landed_hour", INSTANT), ("file_id", pa.int64()), *readers.SCHEMA])
REJECTED_SCHEMA = pa.schema(
    [
        ("landed_hour", INSTANT),
        ("file_id", pa.int64()),
        ("line_number", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw_line", pa.binary()),
    ]
)


@dataclass
class LandedHour:
    """What landing one hour did. ``reasons`` counts the rejected records by reason; ``unknown`` is
    what keeps the hour from being sealed, unreadable files included."""

    landed_hour: datetime
    files_landed: int = 0
    files_unchanged: int = 0
    manifests_landed: int = 0
    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unknown: tuple[Unknown, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.landed_hour:%Y-%m-%dT%H}: {self.files_landed} files landed,"
            f" {self.files_unchanged} unchanged, {self.accepted:,} events accepted,"
            f" {self.rejected:,} rejected"
        )


def land_hour(
    url: str,
    settings: Settings,
    landed_hour: datetime,
    now: datetime,
    progress: Progress | None = None,
) -> LandedHour:
    """Land one hour's files in one transaction; see ``Store.land_hour``."""
    with Store(url, settings, Source(settings.landing_root)) as store:
        landed = store.land_hour(landed_hour, now)
    if progress is not None:
        progress(str(landed))
    return landed


def land_hours(
    url: str,
    settings: Settings,
    first: datetime,
    last: datetime,
    now: datetime,
    progress: Progress | None = None,
) -> list[LandedHour]:
    """Land the hours from first to last (inclusive) that have files, each in its own transaction.

    Hours without files get their rows from ``list_hours``. Raises SourceError when a file changes
    while it is read, and adbc_driver_manager.Error; the hours before are landed then.
    """
    source = Source(settings.landing_root)
    with Store(url, settings, source) as store:
        return store.land_hours(first, last, now, progress)


class _Version(NamedTuple):
    file_id: int
    content_sha256: str
    modified_at: datetime


class Store:
    """A connection that lands hour after hour; opening one costs more than landing a small hour.

    With ``keep`` false all is one transaction that is never committed: what lands is seen through
    ``connection`` only, and gone when the store is closed.
    """

    def __init__(self, url: str, settings: Settings, source: Source, keep: bool = True) -> None:
        self._url = url
        self._settings = settings
        self._source = source
        self._keep = keep
        self.connection = dbapi.connect(url, autocommit=False)
        self._cursor = self.connection.cursor()
        self._days_made: set[datetime] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cursor.close()
        self.connection.close()

    def land_hours(
        self, first: datetime, last: datetime, now: datetime, progress: Progress | None = None
    ) -> list[LandedHour]:
        """Land the hours from first to last (inclusive) that have files; see ``land_hours``."""
        contents = self._source.list_since(first, last)
        unknown = (each.landed_hour for each in contents.unknown)
        found = {*contents.files, *contents.manifests, *unknown}
        hours = sorted(hour for hour in found if hour is not None and first <= hour <= last)
        if not self._keep:
            # All of them before the ledger's lock: who lands one of these hours holds its lock, and may
            # wait for the ledger's.
            for hour in hours:
                self._lock_hour(hour)
        landed: list[LandedHour] = []
        for hour in hours:
            landed.append(self.land_hour(hour, now))
            if progress is not None:
                progress(str(landed[-1]))
        return landed

    def land_hour(self, landed_hour: datetime, now: datetime) -> LandedHour:
        """Land the files and manifests of one hour that are new or have new content; all or none.

        A file with the content of its current version changes nothing but that version's
        modification time; other content, an older one again included, is a new version. An
        unreadable file is one rejected record, and keeps the hour from being sealed.
        Raises SourceError, adbc_driver_manager.Error; then nothing of the hour is written.
        """
        contents = self._source.list_hour(landed_hour)
        files = contents.files.get(landed_hour, [])
        manifests = contents.manifests.get(landed_hour, [])
        if self._is_in_database(landed_hour, [*files, *manifests], now) and files:
            self._make_partition(landed_hour)
        with self._transaction():
            # Files may take long to fetch and read. Until what they hold is to be seen, only those wait
            # that land the same hour; the ledger may post another one meanwhile.
            self._lock_hour(landed_hour)
            landed = LandedHour(landed_hour, unknown=tuple(contents.unknown))
            current = self._current_versions(landed_hour) if files else {}
            versions = [self._land_file(file, current.get(file.key), now, landed) for file in files]
            said = self._read_manifests(landed_hour, manifests)
            for lock in (LANDED_LOCK, LEDGER_LOCK):
                self._execute("select pg_advisory_xact_lock($1::bigint)", lock)
            if landed.files_landed:
                # what shall be erased may come again, in another file or another version of this one
                self._execute(
                    "select landed from landing.erase_landed($1::timestamptz, $1::timestamptz)",
                    landed_hour,
                )
            if landed.accepted:
                self._execute("select catalog.make_hours_known('landing', 'usage_events')")
            for each in said:
                self._write_manifest(each, now)
            landed.manifests_landed = sum(each.manifest is not None for each in said)
            for file, version in zip(files, versions, strict=True):
                self._make_current(file, current.get(file.key), version)
            landed.unknown += self._unreadable_files(files)
            self._write_hour(landed, len(files), now)
        return landed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with hiding_rows(adbc_driver_manager.Error):
            if not self._keep:
                yield
                return
            try:
                yield
                self.connection.commit()
            except BaseException:
                self.connection.rollback()
                raise

    def _lock_hour(self, landed_hour: datetime) -> None:
        self._execute(
            "select pg_advisory_xact_lock(hashtextextended('landing of ' || $1::text, 0))",
            landed_hour.isoformat(),
        )

    def _execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, parameters=list(parameters) or None)
        return self._cursor.fetchall() if self._cursor.description else []

    def _is_in_database(
        self, landed_hour: datetime, files: Sequence[SourceFile], now: datetime
    ) -> bool:
        """Whether the hour's day is not archived. If it is and something new has come, it is attached first.

        Raises ArchiveError, also where nothing is to be kept.
        """
        day = landed_hour.date()
        if landed_hour.replace(hour=0) in self._days_made:
            return True
        with self._transaction():
            if not self._execute(_IS_ARCHIVED, day):
                return True
            known = {*self._execute(_KNOWN_CONTENTS, landed_hour)}
        if all((file.key, self._sha256(file)) in known for file in files):
            return False
        if not self._keep:
            raise ArchiveError(
                f"Something new has come for {day}, which is archived: metering archive attach --stage landing {day} first."
            )
        log.info("landing of %s is archived, and attached again: something new has come", day)
        Archives(Database(self._url, ""), self._settings).attach([day], now, Stage.LANDING)
        return True

    def _sha256(self, file: SourceFile) -> str:
        with self._source.snapshot(file) as snapshot:
            return snapshot.content_sha256

    def _make_partition(self, landed_hour: datetime) -> None:
        day = landed_hour.replace(hour=0)
        if day in self._days_made:
            return
        with self._transaction():
            self._execute(
                "select catalog.ensure_day_partitions('landing', 'usage_events', array[$1::date])",
                day.date(),
            )
        self._days_made.add(day)

    def _current_versions(self, landed_hour: datetime) -> dict[str, _Version]:
        rows = self._execute(
            "select file_key, file_id, content_sha256, modified_at from landing.files"
            " where landed_hour = $1::timestamptz and superseded_by is null",
            landed_hour,
        )
        return {key: _Version(*version) for key, *version in rows}

    def _unreadable_files(self, files: Sequence[SourceFile]) -> tuple[Unknown, ...]:
        """The files of an hour, all landed, whose content cannot be read."""
        if not files:
            return ()
        rows = self._execute(
            """
            select files.file_key, rejected.detail
            from landing.files
            inner join landing.rejected_events as rejected on files.file_id = rejected.file_id
            where
                files.landed_hour = $1::timestamptz
                and files.superseded_by is null
                and rejected.line_number = 0
                and rejected.reason = 'unreadable_file'
            """,
            files[0].landed_hour,
        )
        details = dict(rows)
        return tuple(
            unreadable(file.key, file.landed_hour, details[file.key])
            for file in files
            if file.key in details
        )

    def _land_file(
        self, file: SourceFile, current: _Version | None, now: datetime, landed: LandedHour
    ) -> int | None:
        """Append a version of the file, not yet the current one, and return its file_id; None if it
        has the content of the current version."""
        with self._source.snapshot(file) as snapshot:
            if current is not None and current.content_sha256 == snapshot.content_sha256:
                landed.files_unchanged += 1
                return None
            file_id = self._write_file(file, snapshot.content_sha256, current, now)
            limits = Limits.of_hour(
                file.landed_hour,
                self._settings.earliest_event_date,
                self._settings.future_tolerance_minutes,
            )
            ingest = _Ingest(self._cursor, file.landed_hour, file_id)
            self._execute("savepoint unread")
            try:
                ingest.run(_ahead(readers.read(file.key, snapshot.stream, limits)))
            except UnreadableFile as error:
                self._execute("rollback to savepoint unread")
                ingest = _Ingest(self._cursor, file.landed_hour, file_id)
                ingest.write_rejected([readers.unreadable(error, snapshot.stream)])
            self._execute("release savepoint unread")
        self._execute(
            "update landing.files set accepted_count = $1::bigint, rejected_count = $2::bigint"
            " where file_id = $3::bigint",
            ingest.accepted,
            ingest.rejected,
            file_id,
        )
        landed.files_landed += 1
        landed.accepted += ingest.accepted
        landed.rejected += ingest.rejected
        landed.reasons += ingest.reasons
        return file_id

    def _write_file(
        self, file: SourceFile, content_sha256: str, current: _Version | None, now: datetime
    ) -> int:
        # Only one version of a key may be current: until the two change places the new one is superseded.
        [(file_id,)] = self._execute(
            """
            insert into landing.files (
                file_key, landed_hour, content_sha256, size_bytes, accepted_count, rejected_count,
                earliest_event_date, future_tolerance_minutes, superseded_by, landed_at, modified_at
            )
            values (
                $1::text, $2::timestamptz, $3::text, $4::bigint, 0, 0, $5::date, $6::bigint::integer,
                nullif($7::bigint, 0), $8::timestamptz, $9::timestamptz
            )
            returning file_id
            """,
            file.key,
            file.landed_hour,
            content_sha256,
            file.size_bytes,
            self._settings.earliest_event_date,
            self._settings.future_tolerance_minutes,
            0 if current is None else current.file_id,
            now,
            file.modified,
        )
        return int(file_id)

    def _make_current(
        self, file: SourceFile, current: _Version | None, new_file_id: int | None
    ) -> None:
        """Let the new version supersede the current one; without a new one, note that the file was seen."""
        if current is None:
            return
        if new_file_id is not None:
            supersede = (
                "update landing.files set superseded_by = nullif($1::bigint, 0)"
                " where file_id = $2::bigint"
            )
            self._execute(supersede, new_file_id, current.file_id)
            self._execute(supersede, 0, new_file_id)
        elif current.modified_at != file.modified:
            self._execute(
                "update landing.files set modified_at = $1::timestamptz where file_id = $2::bigint",
                file.modified,
                current.file_id,
            )

    def _read_manifests(
        self, landed_hour: datetime, manifests: Sequence[SourceFile]
    ) -> list["_Said"]:
        """The hour's manifests, those read that are new or have new content; what they and earlier ones
        name is added up."""
        rows = self._execute(
            "select file_key, content_sha256 from landing.manifests"
            " where landed_hour = $1::timestamptz and superseded_by is null",
            landed_hour,
        )
        if not rows and not manifests:
            return []
        known = dict(rows)
        said = []
        for file in manifests:
            with self._source.snapshot(file) as snapshot:
                sha256 = snapshot.content_sha256
                manifest = None
                if known.get(file.key) != sha256:
                    manifest = read_manifest(
                        file.key, landed_hour, file.size_bytes, snapshot.stream
                    )
            said.append(_Said(file, sha256, manifest))
        named = [key for each in said for key in each.file_keys()]
        self._execute(_ADD_UP_FILES, landed_hour, json.dumps(named))
        return said

    def _write_manifest(self, said: "_Said", now: datetime) -> None:
        """A version of a manifest that takes the current one's place; or that the current one was seen."""
        file, manifest = said.file, said.manifest
        if manifest is None:
            self._execute(
                "update landing.manifests set modified_at = $1::timestamptz"
                " where file_key = $2::text and superseded_by is null"
                " and modified_at <> $1::timestamptz",
                file.modified,
                file.key,
            )
            return
        [(manifest_id,)] = self._execute(
            "select nextval(pg_get_serial_sequence('landing.manifests', 'manifest_id'))"
        )
        self._execute(
            "update landing.manifests set superseded_by = $1::bigint, missing_since = null"
            " where file_key = $2::text and superseded_by is null",
            manifest_id,
            file.key,
        )
        self._execute(
            """
            insert into landing.manifests (
                manifest_id, file_key, landed_hour, source, problems, content_sha256, size_bytes,
                landed_at, modified_at
            )
            overriding system value
            values (
                $1::bigint, $2::text, $3::timestamptz, nullif($4::text, ''),
                array(select jsonb_array_elements_text($5::text::jsonb)), $6::text, $7::bigint,
                $8::timestamptz, $9::timestamptz
            )
            """,
            manifest_id,
            file.key,
            file.landed_hour,
            manifest.source or "",
            json.dumps(manifest.problems),
            said.content_sha256,
            file.size_bytes,
            now,
            file.modified,
        )
        self._execute(_WRITE_NAMED_FILES, manifest_id, said.files_text())
        self._execute(_WRITE_TOTALS, manifest_id, said.totals_text())

    def _write_hour(self, landed: LandedHour, file_count: int, now: datetime) -> None:
        settle = timedelta(minutes=self._settings.settle_minutes)
        sealed = now >= landed.landed_hour + HOUR + settle and not landed.unknown
        self._execute(
            """
            insert into landing.hours as hours (landed_hour, file_count, listed_at, landed_at, sealed)
            values (
                $1::timestamptz, $2::bigint::integer, $3::timestamptz,
                case when $4::boolean then $3::timestamptz end, $5::boolean
            )
            on conflict (landed_hour) do update
                set
                    file_count = excluded.file_count,
                    listed_at = excluded.listed_at,
                    landed_at = coalesce(excluded.landed_at, hours.landed_at),
                    posted_at = case when excluded.landed_at is null then hours.posted_at end,
                    sealed = excluded.sealed
            """,
            landed.landed_hour,
            file_count,
            now,
            landed.files_landed > 0,
            sealed,
        )


_IS_ARCHIVED = (
    "select 1 from catalog.archives"
    " where stage = 'landing' and day = $1::date and attached_at is null"
)

_KNOWN_CONTENTS = """
select file_key, content_sha256
from landing.files
where landed_hour = $1::timestamptz and superseded_by is null
union all
select file_key, content_sha256
from landing.manifests
where landed_hour = $1::timestamptz and superseded_by is null
"""

_ADD_UP_FILES = """
insert into landing.file_totals (file_id, event_type, event_count, quantity, event_digest)
select
    events.file_id,
    events.event_type,
    count(*),
    sum(events.quantity),
    sum(catalog.low_64_bits(encode(substring(sha256(convert_to(concat_ws(
        chr(31), events.tenant_id, events.event_type, (extract(epoch from events.occurred_at) * 1000000)::bigint,
        events.correlation_id
    ), 'UTF8')) for 16), 'hex')::uuid))
from landing.usage_events as events
where
    events.landed_hour = $1::timestamptz
    and events.file_id in (
        select files.file_id
        from landing.files
        where
            files.landed_hour = $1::timestamptz
            and files.accepted_count > 0
            and (
                files.file_key in (select jsonb_array_elements_text($2::text::jsonb))
                or files.file_key in (
                    select named.file_key
                    from landing.manifests
                    inner join landing.manifest_files as named on manifests.manifest_id = named.manifest_id
                    where manifests.landed_hour = $1::timestamptz
                )
            )
            and not exists (
                select 1
                from landing.file_totals as added
                where added.file_id = files.file_id
            )
    )
group by events.file_id, events.event_type
"""

_WRITE_NAMED_FILES = """
insert into landing.manifest_files (manifest_id, file_key, size_bytes, content_sha256)
select
    $1::bigint,
    named.file_key,
    named.size_bytes,
    named.content_sha256
from jsonb_to_recordset($2::text::jsonb) as named (file_key text, size_bytes bigint, content_sha256 text)
"""

_WRITE_TOTALS = """
insert into landing.manifest_totals (manifest_id, event_type, event_count, quantity, event_digest)
select
    $1::bigint,
    totals.event_type,
    totals.event_count,
    totals.quantity,
    totals.event_digest
from jsonb_to_recordset($2::text::jsonb) as totals (
    event_type text, event_count bigint, quantity numeric, event_digest numeric
)
"""


class _Said(NamedTuple):
    """A manifest as listed; ``manifest`` is None where its content is the current version's."""

    file: SourceFile
    content_sha256: str
    manifest: Manifest | None

    def file_keys(self) -> list[str]:
        folder = self.file.key.rpartition("/")[0]
        return [f"{folder}/{each.name}" for each in self.manifest.files] if self.manifest else []

    def files_text(self) -> str:
        files = self.manifest.files if self.manifest else ()
        return json.dumps(
            [
                {"file_key": key, "size_bytes": size, "content_sha256": sha256}
                for key, (_, size, sha256) in zip(self.file_keys(), files, strict=True)
            ]
        )

    def totals_text(self) -> str:
        totals = self.manifest.totals if self.manifest else ()
        return json.dumps([each._asdict() | {"quantity": str(each.quantity)} for each in totals])


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks, each read while the one before it is written."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


class _Ingest:
    """Streams one file's chunks into the tables, within the caller's transaction."""

    def __init__(self, cursor: dbapi.Cursor, landed_hour: datetime, file_id: int) -> None:
        self._cursor = cursor
        self._landed_hour = pa.scalar(landed_hour, INSTANT)
        self._file_id = pa.scalar(file_id, pa.int64())
        self.accepted = 0
        self.rejected = 0
        self.reasons: Counter[str] = Counter()
        self._held: list[RejectedRecord] = []
        self._held_bytes = 0
        self._failure: Exception | None = None

    def run(self, chunks: Iterator[Chunk]) -> None:
        """Write all chunks. Raises what reading raises, with the transaction still usable."""
        for chunk in chunks:
            # One COPY takes the events up to the point where the rejected records must be written.
            stream = pa.RecordBatchReader.from_batches(EVENTS_SCHEMA, self._events(chunk, chunks))
            self._cursor.adbc_ingest(
                "usage_events", stream, mode="append", db_schema_name="landing"
            )
            if self._failure is not None:
                raise self._failure
            self._write_held()

    def _events(self, chunk: Chunk, chunks: Iterator[Chunk]) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                self._hold(chunk.rejected)
                if chunk.events.num_rows:
                    self.accepted += chunk.events.num_rows
                    yield self._with_provenance(chunk.events)
                if self._held_bytes >= REJECTED_BYTES:
                    return
                chunk = next(chunks)
        except StopIteration:
            return
        except UnreadableFile as error:
            # An exception inside the COPY would abort the transaction and with it the other files:
            # end the COPY in good order, the caller rolls back to the savepoint.
            self._failure = error

    def _with_provenance(self, events: pa.RecordBatch) -> pa.RecordBatch:
        rows = events.num_rows
        provenance = [pa.repeat(self._landed_hour, rows), pa.repeat(self._file_id, rows)]
        return pa.RecordBatch.from_arrays([*provenance, *events.columns], schema=EVENTS_SCHEMA)

    def _hold(self, rejected: Sequence[RejectedRecord]) -> None:
        self._held.extend(rejected)
        self._held_bytes += sum(len(record.raw) + 200 for record in rejected)

    def write_rejected(self, rejected: list[RejectedRecord]) -> None:
        """Write rejected records."""
        self._hold(rejected)
        self._write_held()

    def _write_held(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if not held:
            return
        rows = len(held)
        numbers, reasons, details, raw = zip(*held, strict=True)
        table = pa.Table.from_arrays(
            [
                pa.repeat(self._landed_hour, rows),
                pa.repeat(self._file_id, rows),
                pa.array(numbers, pa.int64()),
                pa.array([str(reason) for reason in reasons], pa.string()),
                pa.array(details, pa.string()),
                pa.array(raw, pa.binary()),
            ],
            schema=REJECTED_SCHEMA,
        )
        self._cursor.adbc_ingest("rejected_events", table, mode="append", db_schema_name="landing")
        self.rejected += rows
        self.reasons.update(str(reason) for reason in reasons)
