"""The evidence of one issued document as a folder: Parquet files, an index with their hashes, and how to check it.

It holds the document's own tenant alone, and what the document knew when it was issued: where usage has changed
since, what files brought is left out and what they took back is put in again. Events are streamed, a UTC day of a
line at a time; memory does not grow with their number.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from metering_pipeline.errors import MeteringError
from metering_pipeline.reconciliation.laws import one_snapshot
from metering_pipeline.reconciliation.line_proof import (
    NOTHING,
    Figures,
    UnknownLineError,
    changes_of,
    counted_span,
    digest_term,
    find_document,
    lines_of,
)
from metering_pipeline.reconciliation.statements import rows, statement
from metering_pipeline.settings import hour_of

PACKAGE = "metering_pipeline.reconciliation"
SCHEMA_VERSION = 2
FETCHED = 10_000
"""Events in memory at a time."""

INSTANT = pa.timestamp("us", tz="UTC")
TEXT = pa.string()
"""Also every decimal: exact, as the document writes it."""

SCHEMAS = {
    "document": pa.schema([(name, TEXT) for name in (
        "invoice_number", "document_kind", "tenant_id", "tenant_name", "subscription_id", "currency", "total",
        "coupon_amount", "tax_amount", "credit_amount", "amount_due", "billing_date", "content_sha256",
        "previous_sha256", "refers_to",
    )] + [("minor_digits", pa.int64()), ("issued_at", INSTANT)]),
    "lines": pa.schema([
        ("line_number", pa.int64()), ("component", TEXT), ("metric", TEXT), ("aggregation", TEXT), ("unit", TEXT),
        ("slice_start", INSTANT), ("slice_end", INSTANT), ("counted_from", INSTANT), ("quantity", TEXT),
        ("event_count", pa.int64()), ("event_digest", TEXT), ("payload_digest", TEXT), ("rated_amount", TEXT),
        ("amount", TEXT), ("currency", TEXT), ("kind", TEXT), ("description", TEXT),
    ]),
    "slices": pa.schema([
        ("line_number", pa.int64()), ("tier", pa.int64()), ("quantity", TEXT), ("unit_amount", TEXT),
        ("flat_amount", TEXT), ("rate_percent", TEXT), ("dimension_values", TEXT), ("amount", TEXT),
    ]),
    "days": pa.schema([
        ("line_number", pa.int64()), ("day", pa.date32()), ("event_count", pa.int64()), ("value_sum", TEXT),
        ("event_digest", TEXT), ("payload_digest", TEXT),
    ]),
    "buckets": pa.schema([
        ("line_number", pa.int64()), ("day", pa.date32()), ("hour", INSTANT), ("dimensions", TEXT),
        ("event_count", pa.int64()), ("value_sum", TEXT), ("event_digest", TEXT), ("payload_digest", TEXT),
    ]),
    "events": pa.schema([
        ("line_number", pa.int64()), ("day", pa.date32()), ("hour", INSTANT), ("dimensions", TEXT), ("value", TEXT),
        ("tenant_id", TEXT), ("event_type", TEXT), ("occurred_at", INSTANT), ("occurred_us", pa.int64()),
        ("correlation_id", TEXT), ("quantity", TEXT), ("properties", TEXT), ("fingerprint", TEXT),
        ("payload_hash", TEXT), ("file_key", TEXT), ("file_line", pa.int64()), ("erased_at", INSTANT),
    ]),
    "files": pa.schema([
        ("file_key", TEXT), ("content_sha256", TEXT), ("size_bytes", pa.int64()), ("landed_hour", INSTANT),
        ("landed_at", INSTANT),
    ]),
}  # fmt: skip
"""The Parquet files and their columns, in the order in which one leads to the next."""

logger = logging.getLogger(__name__)


class EvidenceError(MeteringError):
    """The evidence cannot be written, and why."""


@dataclass
class Evidence:
    """What was written: the folder, rows by file, and the days that the events at hand do not prove."""

    folder: Path
    counts: dict[str, int]
    unproven: list[str] = field(default_factory=list)


def write_evidence(connection: psycopg.Connection, number: str, folder: Path) -> Evidence:
    """Write the evidence of an issued document into a new folder, in one snapshot.

    It appears there as a whole or not at all. Raises UnknownLineError for a number that was not issued, and
    EvidenceError where the folder exists or a document takes another one back and has no usage of its own.
    """
    document = find_document(connection, number)
    if document.document_kind == "draft":
        raise UnknownLineError(f"{number} is a draft: only what is issued has evidence.")
    if document.refers_to:
        raise EvidenceError(
            f"{number} takes back or writes off {document.refers_to}, and counts nothing of its own: "
            f"metering evidence {document.refers_to}"
        )
    if folder.exists():
        raise EvidenceError(f"{folder} exists already; name another folder.")
    unfinished = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise EvidenceError(f"{folder} cannot be written: {error.strerror}.") from error
    try:
        evidence = _write(connection, number, unfinished)
        unfinished.rename(folder)
    except BaseException:
        for path in unfinished.iterdir():
            path.unlink()
        unfinished.rmdir()
        raise
    evidence.folder = folder
    return evidence


def _write(connection: psycopg.Connection, number: str, folder: Path) -> Evidence:
    with one_snapshot(connection), ExitStack() as stack:
        tables = {name: stack.enter_context(_Table(folder, name)) for name in SCHEMAS}
        head = _write_document(connection, number, folder, tables)
        unproven = list(_write_usage(connection, number, tables))
    counts = {name: table.rows for name, table in tables.items()}
    recipe = files(PACKAGE).joinpath("templates", "evidence.md").read_text()
    (folder / "README.md").write_text(recipe.replace("NUMBER", number))
    _write_index(folder, head, counts, unproven)
    return Evidence(folder, counts, unproven)


class _Table:
    """A Parquet file that rows are added to, written in groups."""

    def __init__(self, folder: Path, name: str) -> None:
        self.schema = SCHEMAS[name]
        self.rows = 0
        self._path = folder / f"{name}.parquet"
        self._waiting: list[Mapping[str, Any]] = []

    def __enter__(self) -> "_Table":
        self._writer = pq.ParquetWriter(self._path, self.schema, compression="zstd")
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, found: Iterable[Mapping[str, Any]]) -> None:
        for each in found:
            self.rows += 1
            self._waiting.append({name: _exact(each[name]) for name in self.schema.names})
            if len(self._waiting) == FETCHED:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, self.schema))
            self._waiting = []


def _exact(value: Any) -> Any:
    """Decimals as the document writes them, objects as JSON, other things as they are."""
    match value:
        case Decimal():
            return format(value, "f")
        case dict():
            return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return value


def _write_document(
    connection: psycopg.Connection, number: str, folder: Path, tables: Mapping[str, _Table]
) -> dict[str, Any]:
    (head,) = _dicts(connection, "evidence_document", number=number)
    (folder / "content.json").write_bytes(head["content"].encode())
    head["billing_date"] = head["billing_date"].isoformat()
    tables["document"].add([head])
    tables["lines"].add(_dicts(connection, "explain_document_lines", document=number))
    tables["slices"].add(_dicts(connection, "evidence_slices", number=number))
    tables["days"].add(_dicts(connection, "evidence_days", number=number))
    return head


def _write_usage(
    connection: psycopg.Connection, number: str, tables: Mapping[str, _Table]
) -> Iterator[str]:
    """Write the events of every line and their sums by hour; the days whose events are not what is frozen."""
    days = _dicts(connection, "evidence_days", number=number)
    lines = {line.line_number: line for line in lines_of(connection, number)}
    changed = {
        (line_number, day)
        for line_number in {each["line_number"] for each in days}
        for day in _changed_days(connection, number, line_number)
    }
    keys: set[str] = set()
    for place, day in enumerate(days, start=1):
        logger.info("day %s of %s, %s events", place, len(days), f"{tables['events'].rows:,}")
        line = lines[day["line_number"]]
        buckets: defaultdict[tuple[datetime, str], Figures] = defaultdict(Figures)
        changes = (
            changes_of(connection, line, day["day"], known_after=line.issued_at)
            if (line.line_number, day["day"]) in changed
            else []
        )
        events = _bucketed(_events_as_issued(connection, line, day, changes), buckets, keys)
        tables["events"].add(events)
        tables["buckets"].add(_bucket_rows(line.line_number, day["day"], buckets))
        if sum(buckets.values(), start=NOTHING) != _figures(day):
            yield f"line {line.line_number}, {day['day']}"
    tables["files"].add(_dicts(connection, "evidence_files", file_keys=sorted(keys)))


def _changed_days(connection: psycopg.Connection, number: str, line_number: int) -> set[Any]:
    """The days of a line whose usage is another one now."""
    parameters = {"document": number, "line_number": line_number}
    found = rows(connection, PACKAGE, "explain_days", parameters)
    return {each.day for each in found if each.state != "identical"}


def _events_as_issued(
    connection: psycopg.Connection, line: Any, day: Mapping[str, Any], changes: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    """The events of a line's day as they were when it was issued: those of now, less what came since, and
    what was taken back since."""
    came_since = {each.fingerprint for each in changes if each.sign > 0}
    starts_at, ends_at = counted_span(line, day["day"])
    parameters = {
        "tenant_id": line.tenant_id,
        "metric": line.metric,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "dimensions": Jsonb(line.dimension_route),
    }
    for event in _streamed(connection, "evidence_events", parameters):
        if event["fingerprint"] not in came_since:
            yield _event(line, day, event)
    for each in changes:
        if each.sign < 0:
            yield _event(line, day, each._asdict())


def _event(line: Any, day: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **event,
        "line_number": line.line_number,
        "day": day["day"],
        "hour": hour_of(event["occurred_at"]),
        "tenant_id": line.tenant_id,
        "occurred_us": _microseconds(event["occurred_at"]),
        "properties": event["properties_text"],
        "dimensions": json.dumps(event["dimensions"], sort_keys=True, ensure_ascii=False),
        "file_line": event["line_number"],
        "digests": (digest_term(event["fingerprint"]), digest_term(event["payload_hash"])),
        "fingerprint": str(event["fingerprint"]),
        "payload_hash": str(event["payload_hash"]),
    }


def _bucketed(
    events: Iterable[dict[str, Any]],
    buckets: defaultdict[tuple[datetime, str], Figures],
    keys: set[str],
) -> Iterator[dict[str, Any]]:
    """The events, added up by hour and dimensions on their way; the keys of their files are noted."""
    for event in events:
        figures = Figures(Decimal(1), event["value"], *map(Decimal, event["digests"]))
        buckets[event["hour"], event["dimensions"]] += figures
        if event["file_key"]:
            keys.add(event["file_key"])
        yield event


def _bucket_rows(
    line_number: int, day: Any, buckets: Mapping[tuple[datetime, str], Figures]
) -> Iterator[dict[str, Any]]:
    for (hour, dimensions), figures in sorted(buckets.items()):
        yield {
            "line_number": line_number,
            "day": day,
            "hour": hour,
            "dimensions": dimensions,
            "event_count": int(figures.count),
            "value_sum": figures.total,
            "event_digest": figures.event_digest,
            "payload_digest": figures.payload_digest,
        }


def _write_index(
    folder: Path, head: Mapping[str, Any], counts: Mapping[str, int], unproven: list[str]
) -> None:
    index = {
        "schema_version": SCHEMA_VERSION,
        "invoice_number": head["invoice_number"],
        "tenant_id": head["tenant_id"],
        "content_sha256": head["content_sha256"],
        "previous_invoice_number": head["previous_invoice_number"],
        "previous_sha256": head["previous_sha256"],
        "total": format(head["total"], "f"),
        "amount_due": format(head["amount_due"], "f"),
        "currency": head["currency"],
        "rows": dict(counts),
        "event_digest": format(head["event_digest"], "f"),
        "payload_digest": format(head["payload_digest"], "f"),
        "days_not_proven": unproven,
        "files": {
            path.name: {"sha256": _sha256(path), "size_bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
        },
    }
    (folder / "index.json").write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n")
    names = [*index["files"], "index.json"]
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _figures(day: Mapping[str, Any]) -> Figures:
    names = ("event_count", "value_sum", "event_digest", "payload_digest")
    return Figures(*(day[name] for name in names))


def _microseconds(instant: datetime) -> int:
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _dicts(connection: psycopg.Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(PACKAGE, name), parameters).fetchall()


def _streamed(
    connection: psycopg.Connection, name: str, parameters: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    with connection.cursor(f"evidence_{uuid4().hex}", row_factory=dict_row) as cursor:
        cursor.itersize = FETCHED
        yield from cursor.execute(statement(PACKAGE, name), parameters)
