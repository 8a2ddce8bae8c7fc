"""Days of landing and of the ledger as Parquet files: written, read back and taken out of the database; and put back.

A file is written and read back before anything is taken out; what is recorded of it is what the database has at that
moment. To put a day back is one transaction. So whatever is cut off leaves the day in one of the two places, whole.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql
from pyarrow import fs

from metering_pipeline.errors import MeteringError
from metering_pipeline.landing.columns import INSTANT
from metering_pipeline.landing.sources import open_filesystem, without_secrets
from metering_pipeline.postgres import Database
from metering_pipeline.settings import Settings

ROWS = 50_000
"""Rows in memory at a time."""

TEXT = pa.string()


class Stage(StrEnum):
    """A stage whose table usage_events is archived by UTC days, in the order in which they are."""

    LANDING = "landing"
    LEDGER = "ledger"


@dataclass(frozen=True)
class _Table:
    """A stage's table: the column that says a row's day, the columns as a file has them, and the rows' order in it.

    Hashes, numerics and JSON are text: exact to the last zero.
    """

    day_column: str
    columns: pa.Schema
    order: str

    def selected(self) -> sql.Composable:
        return sql.SQL(", ").join(
            sql.SQL("{}::text" if each.type == TEXT else "{}").format(sql.Identifier(each.name))
            for each in self.columns
        )


TABLES = {
    Stage.LANDING: _Table(
        "landed_hour",
        pa.schema(
            [
                ("landed_hour", INSTANT), ("file_id", pa.int64()), ("line_number", pa.int64()), ("tenant_id", TEXT),
                ("event_type", TEXT), ("occurred_at", INSTANT), ("correlation_id", TEXT), ("quantity", TEXT),
                ("properties", TEXT), ("void", pa.bool_()), ("erased_payload_hash", TEXT),
            ]
        ),
        "landed_hour, file_id, line_number",
    ),
    Stage.LEDGER: _Table(
        "occurred_at",
        pa.schema(
            [
                ("tenant_id", TEXT), ("event_type", TEXT), ("occurred_at", INSTANT), ("correlation_id", TEXT),
                ("fingerprint", TEXT), ("payload_hash", TEXT), ("quantity", TEXT), ("properties", TEXT),
                ("landed_hour", INSTANT), ("file_id", pa.int64()), ("line_number", pa.int64()),
                ("recorded_at", INSTANT),
            ]
        ),
        "landed_hour, occurred_at, fingerprint",
    ),
}  # fmt: skip


_COMMAND = re.compile(r"metering archive attach --stage (landing|ledger)((?: \d{4}-\d\d-\d\d)+)")


def needed_days(message: str) -> list[tuple[Stage, date]]:
    """The archived days that an error of the database asks for, by the command that it names; none: another error."""
    return [
        (Stage(stage), date.fromisoformat(day))
        for stage, days in _COMMAND.findall(message)
        for day in days.split()
    ]


class ArchiveError(MeteringError):
    """A day was not archived or attached; the message says why. It is where it was."""


@dataclass(frozen=True)
class Archive:
    """A day of a stage in a file below the archive's root, and what the file holds.

    Landed days: of landing the day itself, of the ledger the days on which records of it landed; of one that is
    only written not known yet.
    """

    archive_id: int
    stage: Stage
    day: date
    landed_days: list[date]
    file_key: str
    row_count: int
    content_digest: Decimal
    size_bytes: int
    content_sha256: str
    archived_at: datetime


class Archives:
    """The archive's root, and the days in it. Raises ArchiveError where it cannot be opened."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._shown = without_secrets(settings.archive_root)
        with self._explained():
            filesystem, path = open_filesystem(settings.archive_root)
            self._local_root = path if filesystem.type_name == "local" else None
            self._files = fs.SubTreeFileSystem(path, filesystem)

    def in_force(self) -> list[Archive]:
        """The days that are in files and not in the database, in order."""
        with self._database.connect() as connection:
            return _archives(connection, "attached_at is null")

    def due(self, stage: Stage, now: datetime) -> list[date]:
        """The UTC days of a stage that are older than the setting and in the database, in order."""
        if not self._settings.archive_after_days:
            return []
        last = (now - timedelta(days=self._settings.archive_after_days)).astimezone(UTC).date()
        with self._database.connect() as connection:
            return [
                day
                for (day,) in connection.execute(
                    """
                    select to_date(right(partitions.relname, 8), 'YYYYMMDD') as day
                    from pg_inherits
                    inner join pg_class as partitions on pg_inherits.inhrelid = partitions.oid
                    where pg_inherits.inhparent = to_regclass(%s)
                    order by day
                    """,
                    (f"{stage}.usage_events",),
                )
                if day < last
            ]

    def why_ledger_stays(self, day: date, now: datetime) -> str | None:
        """Why a day must stay in the ledger; None: it may go."""
        with self._database.connect() as connection:
            connection.execute("set role metering_archive")
            [(reason,)] = connection.execute(
                "select ledger.why_day_stays(%s, %s)", (day, now)
            ).fetchall()
            return None if reason is None else str(reason)

    @contextmanager
    def alone(self, wait: bool = True) -> Iterator[bool]:
        """Be the only one that writes or removes files; whether that is so. Without ``wait`` it may not be."""
        asked = "select pg_advisory_lock(key)" if wait else "select pg_try_advisory_lock(key)"
        with self._database.connect(autocommit=True) as connection:
            [(got,)] = connection.execute(
                sql.SQL("{} from hashtextextended('metering archives', 0) as key").format(
                    sql.SQL(asked)
                )
            ).fetchall()
            yield got is not False

    def write(self, stage: Stage, day: date) -> Archive:
        """Write a day's rows into a file, and read it back into the database to see that it has them.

        Nothing is taken out, and until it is the file is a loose one: be alone. Written again it is the same file.
        Raises ArchiveError.
        """
        with self._database.connect() as connection, self._explained():
            rows, digest = _content(connection, sql.Identifier(stage, "usage_events"), stage, day)
            key = f"{stage}/usage_events/{day}-{int(digest) & (2**64 - 1):016x}.parquet"
            with self._database.connect() as noting:
                noting.execute("set role metering_archive")
                noting.execute("select catalog.note_archive_file(%s)", (key,))
            self._make_folder(key)
            with self._files.open_output_stream(f"{key}.tmp") as stream:
                _write_parquet(connection, stage, day, stream)
            self._settle(f"{key}.tmp", key)
            sha256, size = self._hash(key)
            _read_back(connection, stage, self._batches(key))
            read_back = _content(connection, sql.Identifier("pg_temp", "read_back"), stage, day)
            if read_back != (rows, digest):
                raise ArchiveError(f"{_named(stage, day)}: {key} does not hold what was written; nothing was taken out.")  # fmt: skip
        return Archive(0, stage, day, [], key, rows, digest, size, sha256, datetime.now(UTC))

    def take_out(self, connection: psycopg.Connection, written: Archive, now: datetime) -> None:
        """Take a written day out of the database, in the caller's transaction. Raises ArchiveError."""
        try:
            connection.execute(
                "select catalog.archive_day(%s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    written.stage, written.day, written.file_key, written.row_count, written.content_digest,
                    written.size_bytes, written.content_sha256, now,
                ),
            )  # fmt: skip
        except psycopg.errors.RaiseException as error:
            raise ArchiveError(
                f"{_named(written.stage, written.day)} was not archived: {error.diag.message_primary}."
            ) from None

    def attach(
        self, days: Sequence[date], now: datetime, stage: Stage | None = None
    ) -> list[Archive]:
        """Put archived days back into the database, of a stage or of both, and remove their files; what they had.

        Days of the ledger that have records of a day of landing come back before it. Raises ArchiveError.
        """
        archived = self.in_force()
        found = [each for each in archived if each.day in days and stage in (None, each.stage)]
        for day in days:
            if day not in {each.day for each in found}:
                raise ArchiveError(f"{_named(stage, day)} is not archived. metering archive list shows the days that are.")  # fmt: skip
        landed = {each.day for each in found if each.stage == Stage.LANDING}
        with_them = [
            each
            for each in archived
            if each.stage == Stage.LEDGER and landed.intersection(each.landed_days)
        ]
        wanted = [each for each in archived if each in found or each in with_them]
        for each in sorted(wanted, key=lambda each: each.stage != Stage.LEDGER):
            self._attach(each, now)
        self.remove_loose(wait=False)
        return wanted

    def _attach(self, archive: Archive, now: datetime) -> None:
        with self._explained(archive.file_key):
            if self._hash(archive.file_key) != (archive.content_sha256, archive.size_bytes):
                raise ArchiveError(
                    f"{_named(archive.stage, archive.day)} was not attached: {self._place(archive.file_key)} has not "
                    "the SHA-256 that was recorded. Put the file back from a backup."
                )
            with self._database.connect() as connection:
                self._put_back(connection, archive, now)

    def _put_back(self, connection: psycopg.Connection, archive: Archive, now: datetime) -> None:
        day = (archive.stage, archive.day)
        try:
            connection.execute("select catalog.open_archived_day(%s, %s)", day)
            table = sql.Identifier(archive.stage, f"usage_events_{archive.day:%Y%m%d}")
            _copy_in(connection, table, archive.stage, self._batches(archive.file_key))
            connection.execute("select catalog.attach_archived_day(%s, %s, %s)", (*day, now))
        except psycopg.errors.RaiseException as error:
            raise ArchiveError(
                f"{_named(*day)} was not attached: {error.diag.message_primary}."
            ) from None

    def remove_loose(self, wait: bool = True) -> None:
        """Remove the files that stand for no rows; without ``wait`` only if nobody is writing one."""
        with self.alone(wait) as is_alone, self._database.connect(autocommit=True) as connection:
            if not is_alone:
                return
            loose = connection.execute(
                "select file_key from catalog.loose_archive_files"
            ).fetchall()
            for (key,) in loose:
                with self._explained(key):
                    for each in (f"{key}.tmp", key):
                        if self._files.get_file_info(each).type != fs.FileType.NotFound:
                            self._files.delete_file(each)
                connection.execute("select catalog.forget_archive_file(%s)", (key,))

    def records(self, archive: Archive, tenant_id: str, requests: list[str]) -> int:
        """How many records of a tenant's requests an archived day has."""
        wanted = pa.array(requests, TEXT)
        with self._explained(archive.file_key), self._open(archive.file_key) as file:
            return sum(
                pc.sum(
                    pc.and_(
                        pc.equal(batch["tenant_id"], tenant_id),
                        pc.is_in(batch["correlation_id"], wanted),
                    )
                ).as_py()
                or 0
                for batch in file.iter_batches(ROWS, columns=["tenant_id", "correlation_id"])
            )

    def _make_folder(self, key: str) -> None:
        if self._local_root is not None:
            (Path(self._local_root) / key).parent.mkdir(parents=True, exist_ok=True)

    def _settle(self, unfinished: str, key: str) -> None:
        """Give a complete file its name; on a disk it is on the disk before."""
        if self._local_root is not None:
            with (Path(self._local_root) / unfinished).open("rb") as file:
                os.fsync(file.fileno())
        self._files.move(unfinished, key)

    def _hash(self, key: str) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        with self._files.open_input_stream(key) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    @contextmanager
    def _open(self, key: str) -> Iterator[pq.ParquetFile]:
        with self._files.open_input_file(key) as file, pq.ParquetFile(file) as parquet:
            yield parquet

    def _batches(self, key: str) -> Iterator[pa.RecordBatch]:
        with self._open(key) as parquet:
            yield from parquet.iter_batches(ROWS)

    def _place(self, key: str) -> str:
        return f"{self._shown.partition('?')[0].rstrip('/')}/{key}"

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            # not as its cause: the client's own words may hold the URL with its secrets
            detail = str(error).replace(self._settings.archive_root, self._shown)
            raise ArchiveError(
                f"{self._place(key)} cannot be read or written: check METERING_ARCHIVE_URL, the store and its "
                f"credentials. {detail}"
            ) from None


def _named(stage: Stage | None, day: date) -> str:
    return f"{day}" if stage is None else f"{stage.capitalize()} of {day}"


def _archives(connection: psycopg.Connection, condition: str) -> list[Archive]:
    columns = sql.SQL(", ").join(sql.Identifier(each.name) for each in fields(Archive))
    found = connection.execute(
        sql.SQL("select {} from catalog.archives where {} order by day, archive_id").format(
            columns, sql.SQL(condition)
        )
    )
    return [Archive(archive_id, Stage(stage), *others) for archive_id, stage, *others in found]


def _of_day(stage: Stage, day: date) -> sql.Composable:
    """The condition that a row is of a day."""
    start = datetime.combine(day, datetime.min.time(), UTC)
    return sql.SQL("{column} >= {start} and {column} < {end}").format(
        column=sql.Identifier(TABLES[stage].day_column), start=start, end=start + timedelta(days=1)
    )


def _content(
    connection: psycopg.Connection, table: sql.Identifier, stage: Stage, day: date
) -> tuple[int, Decimal]:
    """How many rows a table has of a day, and the sum of their hashes as catalog.archive_day reckons it."""
    [(rows, digest)] = connection.execute(
        sql.SQL(
            "select count(*), coalesce(sum(hashtextextended(events::text, 0)), 0) from {} as events where {}"
        ).format(table, _of_day(stage, day))
    ).fetchall()
    return rows, digest


def _write_parquet(connection: psycopg.Connection, stage: Stage, day: date, stream: Any) -> None:
    table = TABLES[stage]
    with (
        pq.ParquetWriter(stream, table.columns, compression="zstd") as writer,
        connection.cursor("archived_day") as cursor,
    ):
        cursor.itersize = ROWS
        cursor.execute(
            sql.SQL("select {} from {} where {} order by {}").format(
                table.selected(),
                sql.Identifier(stage, "usage_events"),
                _of_day(stage, day),
                sql.SQL(table.order),
            )
        )
        while found := cursor.fetchmany(ROWS):
            columns = zip(*found, strict=True)
            arrays = [
                pa.array(each, kind)
                for each, kind in zip(columns, table.columns.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=table.columns))


def _read_back(
    connection: psycopg.Connection, stage: Stage, batches: Iterator[pa.RecordBatch]
) -> None:
    connection.execute("drop table if exists pg_temp.read_back")
    connection.execute(
        sql.SQL(
            "create temporary table read_back on commit drop as select * from {} with no data"
        ).format(sql.Identifier(stage, "usage_events"))
    )
    _copy_in(connection, sql.Identifier("pg_temp", "read_back"), stage, batches)


def _copy_in(
    connection: psycopg.Connection,
    table: sql.Identifier,
    stage: Stage,
    batches: Iterator[pa.RecordBatch],
) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, TABLES[stage].columns.names))
    into = sql.SQL("copy {} ({}) from stdin").format(table, columns)
    with connection.cursor() as cursor, cursor.copy(into) as copy:
        for batch in batches:
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                copy.write_row(row)
