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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metering_pipeline.landing import events
from metering_pipeline.landing.canonical import MAX_FRACTION_DIGITS
from metering_pipeline.landing.events import MAX_LINE_BYTES, Event, Limits, Rejection
from metering_pipeline.landing.reasons import Reason, Refused

BLOCK_BYTES = 2 << 20
BATCH_ROWS = 16_384
KEPT_BYTES = 4096
"""Of a record that is too long, and of an unreadable file, so many first bytes are kept."""

_BLANKS = b" \t\r"

QUANTITY = pa.decimal128(38, MAX_FRACTION_DIGITS)
INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("line_number", pa.int64()),
        ("tenant_id", pa.string()),
        ("event_type", pa.string()),
        ("occurred_at", INSTANT),
        ("correlation_id", pa.string()),
        ("quantity", QUANTITY),
        ("properties", pa.string()),
        ("void", pa.bool_()),
    ]
)


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


def _blocks(stream: IO[bytes] | gzip.GzipFile) -> Iterator[list[bytes]]:
    """The lines of a file, some at a time, without their newlines.

    Of a line longer than MAX_LINE_BYTES more than so many bytes come out, but not the whole line.
    """
    rest = b""
    first = True
    while block := stream.read(BLOCK_BYTES):
        if first:
            block = block.removeprefix(b"\xef\xbb\xbf")
            first = False
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[: MAX_LINE_BYTES + 1]
        yield lines
    if rest:
        yield [rest]


def _read_ndjson(stream: IO[bytes] | gzip.GzipFile, limits: Limits) -> Iterator[Chunk]:
    parse = events.parse
    last_number = 0
    for lines in _blocks(stream):
        accepted = _Columns()
        add = accepted.add
        rejected: list[RejectedRecord] = []
        for number, line in enumerate(lines, last_number + 1):
            outcome = parse(line, limits)
            if isinstance(outcome, Event):
                add(number, outcome)
            elif line.strip(_BLANKS):
                rejected.append(_rejected(number, outcome, line))
        last_number += len(lines)
        yield Chunk(accepted.batch(), rejected)


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
        self._lines = (line for lines in _blocks(stream) for line in lines)
        self._returned: list[bytes] = []
        self._number = 0
        self._record_bytes = 0
        self.record: list[bytes] = []

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        if self.is_too_long:
            raise csv.Error(events.TOO_LONG)
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
        self._number -= len(self.record) - 1
        del self.record[1:]


def _read_csv(stream: IO[bytes], limits: Limits) -> Iterator[Chunk]:
    # The limit is the process's own; without this, long properties would be refused in CSV only.
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _CsvLines(stream)
    reader = csv.reader(lines, strict=True)
    columns = _csv_header(reader)
    accepted = _Columns()
    rejected: list[RejectedRecord] = []
    size = 0
    while True:
        lines.begin_record()
        try:
            outcome = _csv_outcome(next(reader), columns, lines, limits)
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
        columns = next(reader, [])
    except csv.Error as error:
        raise UnreadableFile(f"the CSV header cannot be read: {error}") from None
    _check_columns(columns, "CSV header")
    return columns


def _check_columns(columns: list[str], place: str) -> None:
    missing = [name for name in events.REQUIRED_FIELDS if name not in columns]
    unknown = [name for name in columns if name not in events.FIELDS]
    if missing or unknown or len(set(columns)) < len(columns):
        raise UnreadableFile(
            f"the {place} must name {', '.join(events.REQUIRED_FIELDS)} and may name"
            f" {', '.join(events.FIELDS[4:])}, each once; missing: {', '.join(missing) or 'none'};"
            f" unknown: {', '.join(repr(name[:60]) for name in unknown[:10]) or 'none'}"
        )


def _csv_outcome(
    cells: list[str], columns: list[str], lines: _CsvLines, limits: Limits
) -> Event | Rejection | None:
    """None for a blank line, which is no record."""
    if lines.is_too_long:
        return Rejection(Reason.LINE_TOO_LONG, events.TOO_LONG)
    if len(cells) != len(columns):
        if not lines.raw.strip(_BLANKS):
            return None
        return Rejection(
            Reason.INVALID_CSV, f"{len(cells)} cells, the header has {len(columns)}; send them all"
        )
    row = {column: _cell(cell) for column, cell in zip(columns, cells, strict=True)}
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
_CONTROL_CHARACTERS = r"[\x00-\x1f\x7f\x{80}-\x{9f}]"
_TEXTS = ("tenant_id", "event_type", "correlation_id")


def _read_parquet(stream: IO[bytes], limits: Limits) -> Iterator[Chunk]:
    first_row = 1
    try:
        file = pq.ParquetFile(stream)
        _check_parquet_columns(file.schema_arrow)
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from _parquet_chunks(batch, first_row, limits)
            first_row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableFile(
            f"the Parquet file cannot be read: {message}; write it again"
        ) from None


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
    arrays, good = _columns_at_once(batch, limits)
    if arrays is not None:
        numbers = pa.array(np.arange(first_row, first_row + batch.num_rows))
        whole = pa.RecordBatch.from_arrays([numbers, *arrays], schema=SCHEMA)
        if good.all():
            yield Chunk(whole, [])
            return
        yield Chunk(whole.filter(pa.array(good)), [])
    yield _rows_one_by_one(batch, np.flatnonzero(~good).tolist(), first_row, limits)


def _columns_at_once(
    batch: pa.RecordBatch, limits: Limits
) -> tuple[list[pa.Array] | None, "np.ndarray[Any, np.dtype[np.bool_]]"]:
    good = np.ones(batch.num_rows, bool)
    try:
        batch.validate(full=True)
        columns = {name: batch.column(name) for name in batch.schema.names}
        texts = {name: _plain_text(columns[name]) for name in _TEXTS}
        instants = _microseconds(columns["occurred_at"])
        quantities = _quantities(columns.get("quantity"), batch.num_rows)
        voids = _filled(columns.get("void"), pa.bool_(), False, batch.num_rows)
    except pa.ArrowException:
        return None, ~good
    for array in texts.values():
        good &= _true(
            pc.and_(
                pc.greater(pc.binary_length(array), 0),
                pc.less_equal(pc.binary_length(array), events.MAX_TEXT_BYTES),
            )
        )
        good &= ~_true(pc.match_substring_regex(array, _CONTROL_CHARACTERS))
    earliest, end = (pa.scalar(instant, INSTANT) for instant in limits)
    good &= _true(pc.and_(pc.greater_equal(instants, earliest), pc.less(instants, end)))
    properties = _properties(columns.get("properties"), good)
    return [
        texts["tenant_id"],
        texts["event_type"],
        instants,
        texts["correlation_id"],
        quantities,
        properties,
        voids,
    ], good


def _true(mask: pa.Array) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    return mask.fill_null(False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _microseconds(array: pa.Array) -> pa.Array:
    """Instants in UTC, cut off to the microsecond. Raises ArrowInvalid for texts."""
    if not pa.types.is_timestamp(array.type):
        raise pa.ArrowInvalid("texts are read one by one")
    # The values count from 1970 in UTC whatever the zone; without it no zone's rules are asked for.
    naive = array.view(pa.timestamp(array.type.unit))
    return pc.floor_temporal(naive, unit="microsecond").cast(pa.timestamp("us")).view(INSTANT)


def _plain_text(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def _filled(array: pa.Array | None, kind: pa.DataType, value: object, rows: int) -> pa.Array:
    filling = pa.scalar(value, kind)
    return pa.repeat(filling, rows) if array is None else array.cast(kind).fill_null(filling)


def _quantities(array: pa.Array | None, rows: int) -> pa.Array:
    """Exact decimals, 1 where absent. Raises ArrowInvalid if any must be looked at one by one."""
    if array is not None and not (
        pa.types.is_decimal(array.type)
        or pa.types.is_integer(array.type)
        or array.null_count == rows
    ):
        raise pa.ArrowInvalid("texts and floats are read one by one")
    if array is not None and array.null_count == rows:
        array = None
    return _filled(array, QUANTITY, 1, rows)


def _properties(array: pa.Array | None, good: "np.ndarray[Any, np.dtype[np.bool_]]") -> pa.Array:
    """Canonical texts; clears ``good`` where there is none."""
    if array is None:
        return pa.repeat("{}", len(good))
    written: list[str | None] = []
    for row, text in enumerate(_plain_text(array).to_pylist()):
        try:
            written.append("{}" if text is None else events.properties_text(text))
        except Refused:
            good[row] = False
            written.append(None)
    return pa.array(written, pa.string())


def _rows_one_by_one(
    batch: pa.RecordBatch, rows: list[int], first_row: int, limits: Limits
) -> Chunk:
    taken = batch.take(pa.array(rows, pa.int64()))
    columns = {name: _values(taken.column(name)) for name in taken.schema.names}
    accepted = _Columns()
    rejected: list[RejectedRecord] = []
    for position, row in enumerate(rows):
        values = {name: column[position] for name, column in columns.items()}
        outcome = events.from_row(values, limits)
        if isinstance(outcome, Event):
            accepted.add(first_row + row, outcome)
        else:
            raw = json.dumps(values, ensure_ascii=False, default=_shown).encode(errors="replace")
            rejected.append(_rejected(first_row + row, outcome, raw))
    return Chunk(accepted.batch(), rejected)


def _values(array: pa.Array) -> list[object]:
    """Python values that lose nothing; instants as datetimes, bytes where text is not UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_timestamp(array.type):
        per_second = _UNITS_PER_SECOND[array.type.unit]
        return [_instant(value, per_second) for value in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.binary_view())
    elif pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())
    elif pa.types.is_string(array.type):
        array = array.cast(pa.binary())
    else:
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
