"""Files to chunks: accepted events as Arrow record batches, rejected records beside them.

Files are streamed in blocks, so memory is bounded whatever their size. Every record comes out
exactly once, as an event or as a rejected record, with the number of its line.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metering_pipeline.landing import columns, events
from metering_pipeline.landing.events import MAX_LINE_BYTES, Event, Limits, Rejection
from metering_pipeline.landing.reasons import Reason

BLOCK_BYTES = 1 << 20
BATCH_ROWS = 16_384
BATCH_BYTES = 16 << 20
REREAD_BYTES = 16 << 20
"""Of a CSV file, so many bytes after quotes left open are read again; then a record ends with its line.
Else a small file of nothing but open quotes would be read for hours."""
KEPT_BYTES = 4096
"""Of a record that is too long, and of an unreadable file, so many first bytes are kept."""

_BLANKS = b" \t\r"

FEW_RECORDS = 16
"""So few lines, among which one is in doubt, are looked at one by one."""

SCHEMA = pa.schema([pa.field("line_number", pa.int64()), *columns.SCHEMA])


Numbers = np.ndarray[Any, np.dtype[np.int64]]


class UnreadableFile(Exception):
    """The file as a whole cannot be read; nothing of it may be taken. The message says why."""


class RejectedRecord(NamedTuple):
    """A record that is no valid event: its line, the reason, what to do, and its bytes as they came."""

    line_number: int
    reason: Reason
    detail: str
    raw: bytes


class Chunk(NamedTuple):
    """Some records of a file, decided. ``events`` has SCHEMA."""

    events: pa.RecordBatch
    rejected: list[RejectedRecord]


def read(name: str, stream: IO[bytes], limits: Limits) -> Iterator[Chunk]:
    """The records of a file, by the extension of its name. ``stream`` must be seekable.

    Raises UnreadableFile, at any point: then nothing read before counts either.
    """
    if name.endswith(".parquet"):
        return _read_parquet(stream, limits)
    if name.endswith(".csv"):
        return _read_csv(stream, limits)
    if name.endswith(".gz"):
        return _read_gzip(stream, limits)
    return _read_ndjson(stream, limits)


def unreadable(error: UnreadableFile, stream: IO[bytes]) -> RejectedRecord:
    """The one rejected record of an unreadable file."""
    stream.seek(0)
    return RejectedRecord(0, Reason.UNREADABLE_FILE, str(error), stream.read(KEPT_BYTES))


class _Columns:
    """Gathers events by column. No container is kept for an event: Python's collector of cycles
    would visit thousands of them again and again."""

    def __init__(self) -> None:
        self._columns: list[list[object]] = [[] for _ in SCHEMA]
        appends = [column.append for column in self._columns]
        (
            self._number,
            self._tenant_id,
            self._event_type,
            self._occurred_at,
            self._correlation_id,
            self._quantity,
            self._properties,
            self._void,
        ) = appends

    def add(self, number: int, event: Event) -> None:
        tenant_id, event_type, occurred_at, correlation_id, quantity, properties, void = event
        self._number(number)
        self._tenant_id(tenant_id)
        self._event_type(event_type)
        self._occurred_at(occurred_at)
        self._correlation_id(correlation_id)
        self._quantity(quantity)
        self._properties(properties)
        self._void(void)

    def batch(self) -> pa.RecordBatch:
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(self._columns, SCHEMA, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _rejected(number: int, rejection: Rejection, raw: bytes) -> RejectedRecord:
    kept = raw if len(raw) <= MAX_LINE_BYTES else raw[:KEPT_BYTES]
    return RejectedRecord(number, rejection.reason, rejection.detail, kept)


# Lines


def _blocks(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """The file in blocks of whole lines.

    Of a line longer than MAX_LINE_BYTES more than so many bytes come out, but not the whole line.
    """
    rest = b""
    first = True
    while block := stream.read(BLOCK_BYTES):
        if first:
            block = block.removeprefix(b"\xef\xbb\xbf")
            first = False
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = b""
        rest = (rest + block[end:])[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _read_ndjson(stream: IO[bytes] | gzip.GzipFile, limits: Limits) -> Iterator[Chunk]:
    first_number = 1
    for block in _blocks(stream):
        rows = block.count(b"\n") + (not block.endswith(b"\n"))
        yield from _lines(block, np.arange(first_number, first_number + rows), limits)
        first_number += rows


def _lines(block: bytes, numbers: Numbers, limits: Limits) -> Iterator[Chunk]:
    """A block decided as a whole or, if anything in it is in doubt, in ever smaller groups of its lines."""
    decided = columns.of_lines(block, limits)
    if decided is not None and decided.good.all():
        yield _chunk(decided, numbers)
        return
    lines = block.removesuffix(b"\n").split(b"\n")
    records = [place for place, line in enumerate(lines) if _is_record(line)]
    # An escape makes no group better by being smaller.
    doubtful = [place for place in records if b"\\" in lines[place]]
    plain = [place for place in records if b"\\" not in lines[place]]
    yield from _groups(lines, numbers, np.array(plain, np.int64), limits, doubtful)
    doubtful.sort()
    for start in range(0, len(doubtful), BATCH_ROWS):
        yield _lines_one_by_one(lines, numbers, doubtful[start : start + BATCH_ROWS], limits)


def _is_record(line: bytes) -> bool:
    """A blank line is none; but of a line that is too long not everything is seen."""
    return len(line) > MAX_LINE_BYTES or line.strip(_BLANKS) != b""


def _groups(
    lines: list[bytes], numbers: Numbers, places: Numbers, limits: Limits, doubtful: list[int]
) -> Iterator[Chunk]:
    """The lines at these places, halved until what is in doubt stands among few; these are handed back."""
    if len(places) <= FEW_RECORDS:
        doubtful.extend(places.tolist())
        return
    decided = columns.of_lines(b"\n".join([lines[place] for place in places]), limits)
    if decided is None:
        middle = len(places) // 2
        yield from _groups(lines, numbers, places[:middle], limits, doubtful)
        yield from _groups(lines, numbers, places[middle:], limits, doubtful)
        return
    doubtful.extend(places[~decided.good].tolist())
    yield _chunk(decided, numbers[places])


def _chunk(decided: columns.Columns, numbers: Numbers) -> Chunk:
    """The good rows of what was decided as a whole."""
    whole = pa.RecordBatch.from_arrays([pa.array(numbers), *decided.arrays], schema=SCHEMA)
    return Chunk(whole if decided.good.all() else whole.filter(pa.array(decided.good)), [])


def _lines_one_by_one(
    lines: list[bytes], numbers: Numbers, places: list[int], limits: Limits
) -> Chunk:
    accepted = _Columns()
    rejected: list[RejectedRecord] = []
    for place in places:
        line = lines[place]
        outcome = events.parse(line, limits)
        if isinstance(outcome, Event):
            accepted.add(int(numbers[place]), outcome)
        else:
            rejected.append(_rejected(int(numbers[place]), outcome, line))
    return Chunk(accepted.batch(), rejected)


def _read_gzip(stream: IO[bytes], limits: Limits) -> Iterator[Chunk]:
    if not stream.read(1):
        raise UnreadableFile("the gzip file is empty; write it again")
    stream.seek(0)
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            yield from _read_ndjson(unpacked, limits)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFile(f"the gzip file is torn or damaged: {error}; write it again") from None


# CSV


class _CsvLines:
    """Feeds physical lines to the CSV reader, and remembers those of the record being read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines = (
            line for block in _blocks(stream) for line in block.removesuffix(b"\n").split(b"\n")
        )
        self._returned: list[bytes] = []
        self._number = 0
        self._record_bytes = 0
        self._reread_bytes = 0
        self.record: list[bytes] = []

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        if self.is_too_long:
            raise csv.Error(events.TOO_LONG)
        if self.record and self._reread_bytes > REREAD_BYTES:
            raise csv.Error("a quote is left open, as too often in this file")
        line = self._returned.pop() if self._returned else next(self._lines)
        self._number += 1
        self._record_bytes += len(line) + bool(self.record)
        self.record.append(line)
        return line.decode("utf-8", "surrogateescape") + "\n"

    def begin_record(self) -> None:
        self.record = []
        self._record_bytes = 0

    @property
    def is_too_long(self) -> bool:
        return self._record_bytes > MAX_LINE_BYTES

    @property
    def record_start(self) -> int:
        return self._number - len(self.record) + 1

    @property
    def raw(self) -> bytes:
        return b"\n".join(self.record)

    def return_all_but_first(self) -> None:
        """A quote left open swallows the lines that follow: let them be records of their own."""
        self._returned.extend(reversed(self.record[1:]))
        self._reread_bytes += self._record_bytes
        self._number -= len(self.record) - 1
        del self.record[1:]


def _read_csv(stream: IO[bytes], limits: Limits) -> Iterator[Chunk]:
    # The limit is the process's own; without this, long properties would be refused in CSV only.
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _CsvLines(stream)
    reader = csv.reader(lines, strict=True)
    header = _csv_header(reader)
    accepted = _Columns()
    rejected: list[RejectedRecord] = []
    size = 0
    while True:
        lines.begin_record()
        try:
            outcome = _csv_outcome(next(reader), header, lines, limits)
        except csv.Error as error:
            outcome = _csv_error(error, lines)
        except StopIteration:
            break
        if isinstance(outcome, Event):
            accepted.add(lines.record_start, outcome)
        elif outcome is not None:
            rejected.append(_rejected(lines.record_start, outcome, lines.raw))
        size += sum(map(len, lines.record))
        if size >= BLOCK_BYTES:
            yield Chunk(accepted.batch(), rejected)
            accepted, rejected, size = _Columns(), [], 0
    yield Chunk(accepted.batch(), rejected)


def _csv_header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UnreadableFile(f"the CSV header cannot be read: {error}") from None
    _check_columns(header, "CSV header")
    return header


def _check_columns(names: list[str], place: str) -> None:
    missing = [name for name in events.REQUIRED_FIELDS if name not in names]
    unknown = [name for name in names if name not in events.FIELDS]
    if missing or unknown or len(set(names)) < len(names):
        raise UnreadableFile(
            f"the {place} must name {', '.join(events.REQUIRED_FIELDS)} and may name"
            f" {', '.join(events.FIELDS[4:])}, each once; missing: {', '.join(missing) or 'none'};"
            f" unknown: {', '.join(repr(name[:60]) for name in unknown[:10]) or 'none'}"
        )


def _csv_outcome(
    cells: list[str], header: list[str], lines: _CsvLines, limits: Limits
) -> Event | Rejection | None:
    """None for a blank line, which is no record."""
    if lines.is_too_long:
        return Rejection(Reason.LINE_TOO_LONG, events.TOO_LONG)
    if len(cells) != len(header):
        if not lines.raw.strip(_BLANKS):
            return None
        return Rejection(
            Reason.INVALID_CSV, f"{len(cells)} cells, the header has {len(header)}; send them all"
        )
    row = {column: _cell(cell) for column, cell in zip(header, cells, strict=True)}
    return events.from_row(row, limits)


def _cell(cell: str) -> object:
    if not cell:
        return None
    if not cell.isascii():
        try:
            cell.encode()
        except UnicodeEncodeError:
            return cell.encode("utf-8", "surrogateescape")
    return cell


def _csv_error(error: csv.Error, lines: _CsvLines) -> Rejection:
    if lines.is_too_long:
        return Rejection(Reason.LINE_TOO_LONG, events.TOO_LONG)
    lines.return_all_but_first()
    return Rejection(Reason.INVALID_CSV, f"{error}; quote the cell as CSV asks for")


# Parquet

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _read_parquet(stream: IO[bytes], limits: Limits) -> Iterator[Chunk]:
    first_row = 1
    try:
        file = pq.ParquetFile(stream)
        _check_parquet_columns(file.schema_arrow)
        for group in range(file.num_row_groups):
            rows = _rows_at_once(file.metadata.row_group(group))
            for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                yield from _parquet_chunks(batch, first_row, limits)
                first_row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableFile(
            f"the Parquet file cannot be read: {message}; write it again"
        ) from None


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """Fewer rows where they are large on average. A value that a dictionary repeats weighs little here."""
    average = group.total_byte_size / max(group.num_rows, 1)
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES / max(average, 1))))


def _check_parquet_columns(schema: pa.Schema) -> None:
    _check_columns(schema.names, "Parquet file")
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not _fits(field.name, kind):
            raise UnreadableFile(
                f"column {field.name} has type {field.type}; {_WANTED[field.name]}"
            )


_WANTED = dict.fromkeys(events.FIELDS, "it must be a string") | {
    "occurred_at": "it must be a timestamp with a time zone, or a string",
    "quantity": "it must be a decimal, an integer or a string",
    "properties": "it must be a string that holds a JSON object",
    "void": "it must be a boolean",
}


def _fits(column: str, kind: pa.DataType) -> bool:
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if column == "void":
        return bool(types.is_boolean(kind) or types.is_null(kind))
    if column == "occurred_at":
        return is_text or bool(types.is_timestamp(kind) and kind.tz is not None)
    if column == "quantity":
        # Floats are read, and rejected row by row: a row without a quantity is none the worse.
        number = types.is_decimal(kind) or types.is_integer(kind) or types.is_floating(kind)
        return is_text or bool(number or types.is_null(kind))
    return is_text or bool(column == "properties" and types.is_null(kind))


def _parquet_chunks(batch: pa.RecordBatch, first_row: int, limits: Limits) -> Iterator[Chunk]:
    """Whole columns at once; the rows that are in any doubt one by one, by the exact rules."""
    numbers = np.arange(first_row, first_row + batch.num_rows)
    decided = columns.of_table(batch, limits)
    if decided is None:
        yield _rows_one_by_one(batch, np.arange(batch.num_rows), first_row, limits)
        return
    yield _chunk(decided, numbers)
    if not decided.good.all():
        yield _rows_one_by_one(batch, np.flatnonzero(~decided.good), first_row, limits)


def _rows_one_by_one(batch: pa.RecordBatch, rows: Numbers, first_row: int, limits: Limits) -> Chunk:
    places = pa.array(rows)
    values_of = {name: _values(batch.column(name), places) for name in batch.schema.names}
    accepted = _Columns()
    rejected: list[RejectedRecord] = []
    for position, row in enumerate(rows.tolist()):
        values = {name: column[position] for name, column in values_of.items()}
        outcome = events.from_row(values, limits)
        if isinstance(outcome, Event):
            accepted.add(first_row + row, outcome)
        else:
            raw = json.dumps(values, ensure_ascii=False, default=_shown).encode(errors="replace")
            rejected.append(_rejected(first_row + row, outcome, raw))
    return Chunk(accepted.batch(), rejected)


def _values(array: pa.Array, places: pa.Array) -> list[object]:
    """Python values that lose nothing; instants as datetimes, bytes where text is not UTF-8."""
    if pa.types.is_string_view(array.type):  # which cannot be taken from as it is
        array = array.cast(pa.binary_view()).cast(pa.large_binary())
    array = array.take(places)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_timestamp(array.type):
        per_second = _UNITS_PER_SECOND[array.type.unit]
        return [_instant(value, per_second) for value in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())
    elif pa.types.is_string(array.type):
        array = array.cast(pa.binary())
    elif not pa.types.is_large_binary(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    return [_text_or_bytes(value) for value in array.to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _instant(value: int | None, per_second: int) -> datetime | str | None:
    """Cut off to the microsecond; outside the calendar the number itself, which is no instant."""
    if value is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=value * 1_000_000 // per_second)
    except OverflowError:
        return str(value)


def _shown(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
