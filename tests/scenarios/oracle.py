"""What ledger and rollups must be, in plain Python over the records of the current files.

Written from the rules, not from the SQL: it knows files, lines and events, and recomputes everything
from nothing.
"""

import hashlib
import json
import math
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NUMBER = re.compile(r"-?[0-9]{1,20}([.][0-9]{1,18})?")


@dataclass(frozen=True)
class Metric:
    """A metric of the catalog: without a property it reads the quantity."""

    name: str
    event_type: str
    aggregation: str
    value_property: str | None = None
    dimensions: tuple[str, ...] = ()
    filter: tuple[tuple[str, str], ...] = ()
    percentile: Decimal | None = None

    @property
    def keeps_values(self) -> bool:
        return self.aggregation in ("unique_count", "percentile")

    def reads(self, record: "Record") -> bool:
        properties = record.event.get("properties", {})
        return self.event_type == record.event["event_type"] and all(
            properties.get(name) == value for name, value in self.filter
        )


@dataclass(frozen=True)
class Record:
    """One accepted line: where it stands, and what it says."""

    landed_hour: datetime
    file_key: str
    line: int
    event: Mapping[str, Any]

    @property
    def place(self) -> tuple[datetime, str, int]:
        return (self.landed_hour, self.file_key, self.line)

    @cached_property
    def occurred_at(self) -> datetime:
        return datetime.fromisoformat(self.event["occurred_at"])

    @cached_property
    def hour(self) -> datetime:
        return self.occurred_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)

    @property
    def void(self) -> bool:
        return bool(self.event.get("void", False))

    @property
    def removes(self) -> bool:
        return bool(self.event.get("properties", {}).get("operation") == "remove")

    @property
    def kind(self) -> str:
        return "void" if self.void else "event"

    @cached_property
    def fingerprint(self) -> uuid.UUID:
        micros = (self.occurred_at - EPOCH) // (datetime.resolution)
        fields = (
            self.event["tenant_id"],
            self.event["event_type"],
            str(micros),
            self.event["correlation_id"],
        )
        return uuid.UUID(bytes=hashlib.sha256("\x1f".join(fields).encode()).digest()[:16])

    @cached_property
    def payload_hash(self) -> uuid.UUID:
        quantity = str(self.event.get("quantity", 1))
        properties = json.dumps(
            self.event.get("properties", {}), sort_keys=True, separators=(",", ":")
        )
        return uuid.UUID(bytes=hashlib.sha256(f"{quantity}\x1f{properties}".encode()).digest()[:16])


def low_bits(identifier: uuid.UUID) -> int:
    return int.from_bytes(identifier.bytes[8:], "big", signed=True)


@dataclass
class Landing:
    """Every version of every file that was landed: by key, oldest first."""

    versions: dict[str, list[list[Record]]] = field(default_factory=dict)

    def land(self, landed_hour: datetime, key: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Take a file's content; nothing happens if it is that of the newest version."""
        version = [
            Record(landed_hour, key, line, each) for line, each in enumerate(events, start=1)
        ]
        versions = self.versions.setdefault(key, [])
        if not versions or versions[-1] != version:
            versions.append(version)

    def records(self) -> list[Record]:
        """The records of the current versions."""
        return [record for versions in self.versions.values() for record in versions[-1]]

    def withdrawn(self) -> list[Record]:
        """What only superseded versions hold: one record a file, kind and fingerprint, the newest's."""
        found: dict[tuple[str, str, uuid.UUID], Record] = {}
        for key, (*superseded, current) in self.versions.items():
            held = {(each.kind, each.fingerprint) for each in current}
            for version in superseded:
                for record in reversed(version):
                    if (record.kind, record.fingerprint) not in held:
                        found[key, record.kind, record.fingerprint] = record
        return list(found.values())


@dataclass
class Ledger:
    """Records by the table they belong to."""

    events: list[Record]
    duplicates: list[Record]
    conflicts: list[Record]
    voids: list[Record]

    @cached_property
    def voided(self) -> dict[uuid.UUID, datetime]:
        """The landing hours of the voids, by fingerprint."""
        return {void.fingerprint: void.landed_hour for void in self.voids}

    def standing(self) -> list[Record]:
        return [record for record in self.events if record.fingerprint not in self.voided]


def post(records: Sequence[Record]) -> Ledger:
    """Each event once, owned by its smallest copy."""
    copies: dict[tuple[bool, uuid.UUID], list[Record]] = defaultdict(list)
    for record in records:
        copies[record.void, record.fingerprint].append(record)
    ledger = Ledger([], [], [], [])
    for (void, _), group in copies.items():
        owner, *others = sorted(group, key=lambda each: each.place)
        (ledger.voids if void else ledger.events).append(owner)
        for other in others:
            differs = not void and other.payload_hash != owner.payload_hash
            (ledger.conflicts if differs else ledger.duplicates).append(other)
    return ledger


def arrival_delays(ledger: Ledger) -> Counter[tuple[Any, ...]]:
    """Owned events by landing hour, event type and hours from the event's hour to it."""
    return Counter(
        (
            record.landed_hour,
            record.event["event_type"],
            (record.landed_hour - record.hour) // timedelta(hours=1),
        )
        for record in ledger.events
    )


def suspects(
    ledger: Ledger, since: datetime, listed: Container[uuid.UUID] = ()
) -> set[tuple[Any, ...]]:
    """Standing events that say what an earlier one says, at another time; with that first one. Those before
    ``since`` only if they were listed, as one or the other."""
    requests: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in ledger.standing():
        if record.occurred_at >= since or record.fingerprint in listed:
            names = ("tenant_id", "event_type", "correlation_id")
            requests[tuple(record.event[name] for name in names)].append(record)
    found = set()
    for group in requests.values():
        first, *others = sorted(group, key=lambda each: (each.occurred_at, each.fingerprint))
        found |= {(*each.place, each.fingerprint, first.fingerprint) for each in others}
    return found


Figures = tuple[
    int, Decimal, Decimal | None, Decimal | None, Decimal | None, Decimal | None, datetime | None, uuid.UUID | None,
    int, int,
]  # fmt: skip
Members = tuple[int, datetime | None, uuid.UUID | None, bool | None]
"""How often a value came, and of the latest event that has it: when, which, and whether it removes it."""
Signed = list[tuple[int, Record]]


def booked(ledger: Ledger) -> dict[datetime, Signed]:
    """By landing hour, what it brings (+1) and what it takes back (-1)."""
    entries: dict[datetime, Signed] = defaultdict(list)
    for record in ledger.events:
        entries[record.landed_hour].append((1, record))
        if record.fingerprint in ledger.voided:
            hour = max(record.landed_hour, ledger.voided[record.fingerprint])
            entries[hour].append((-1, record))
    return entries


def contributions(ledger: Ledger, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Figures]:
    """Figures by (landed hour, tenant, metric, hour, dimensions as JSON)."""
    return {
        (landed_hour, *key): figures
        for landed_hour, entries in booked(ledger).items()
        for key, figures in _by_bucket(entries, metrics).items()
    }


def hourly(ledger: Ledger, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Figures]:
    """Figures by (tenant, metric, hour, dimensions as JSON), of the events that stand."""
    return _by_bucket([(1, record) for record in ledger.standing()], metrics)


def daily(ledger: Ledger, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Figures]:
    """Figures by (tenant, metric, UTC day, dimensions as JSON), of the events that stand."""
    standing = [(1, record) for record in ledger.standing()]
    return {
        (tenant_id, metric, start.date(), dimensions): figures
        for (tenant_id, metric, start, dimensions), figures in _by_bucket(
            standing, metrics, bucket=timedelta(days=1)
        ).items()
    }


def chosen(
    ledger: Ledger, metrics: Sequence[Metric], wanted: Callable[[Record], bool]
) -> dict[tuple[str, str, str], Figures]:
    """Figures by (tenant, metric, dimensions as JSON), of the events that stand and are wanted."""
    entries = [(1, record) for record in ledger.standing() if wanted(record)]
    everything = timedelta(days=1_000_000)
    return {
        (tenant_id, metric, dimensions): figures
        for (tenant_id, metric, _, dimensions), figures in _by_bucket(
            entries, metrics, bucket=everything
        ).items()
    }


def quantities(
    ledger: Ledger, metrics: Sequence[Metric], start: datetime, end: datetime, apart: bool = True
) -> dict[tuple[str, str, str], Decimal]:
    """What each aggregation makes of the events that stand in [start, end), by (tenant, metric, dimensions as JSON);
    not kept apart by dimensions, these are empty."""
    entries = [(1, record) for record in ledger.standing() if start <= record.occurred_at < end]
    found: dict[tuple[str, str, str], list[tuple[Record, Decimal]]] = defaultdict(list)
    by_name = {metric.name: metric for metric in metrics}
    for key, metric, _, record, value in _readable(entries, metrics, timedelta(hours=1)):
        found[key[0], metric.name, key[3] if apart else "{}"].append((record, value))
    return {
        key: _quantity(by_name[key[1]], sorted(values, key=_order), start, end)
        for key, values in found.items()
    }


def _order(entry: tuple[Record, Decimal]) -> tuple[datetime, uuid.UUID]:
    return entry[0].occurred_at, entry[0].fingerprint


def _quantity(
    metric: Metric, entries: Sequence[tuple[Record, Decimal]], start: datetime, end: datetime
) -> Decimal:
    values = [value for _, value in entries]
    match metric.aggregation:
        case "count":
            return Decimal(len(values))
        case "sum":
            return sum(values, Decimal(0))
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "latest":
            return values[-1]
        case "unique_count":
            removed = {
                _unique_value(record, metric, value): record.removes for record, value in entries
            }
            return Decimal(list(removed.values()).count(False))
        case "percentile":
            assert metric.percentile is not None
            rank = math.ceil(Fraction(metric.percentile) * len(values) / 100)
            return sorted(values)[rank - 1]
        case "weighted_sum":
            level = sum(
                Fraction(value) * Fraction(_micros(end - record.occurred_at), _micros(end - start))
                for record, value in entries
            )
            half_up = math.floor(abs(level) * 10**18 + Fraction(1, 2))
            return Decimal(half_up if level >= 0 else -half_up).scaleb(-18)
    raise ValueError(metric.aggregation)


def _micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def as_landed_by(ledger: Ledger, landed_before: datetime) -> Ledger:
    """The ledger less the events and voids that landed at that instant or later."""
    return Ledger(
        [record for record in ledger.events if record.landed_hour < landed_before],
        [],
        [],
        [void for void in ledger.voids if void.landed_hour < landed_before],
    )


def unreadable(ledger: Ledger, metrics: Sequence[Metric]) -> Counter[tuple[Any, ...]]:
    """Values that a metric cannot read, by (landed hour, tenant, metric, hour, reason)."""
    found: Counter[tuple[Any, ...]] = Counter()
    for landed_hour, entries in booked(ledger).items():
        for sign, record in entries:
            for metric in metrics:
                reason = _value(record, metric)
                if metric.reads(record) and isinstance(reason, str):
                    tenant_id = record.event["tenant_id"]
                    found[landed_hour, tenant_id, metric.name, record.hour, reason] += sign
    return found


def unmetered(ledger: Ledger, metrics: Sequence[Metric]) -> Counter[tuple[Any, ...]]:
    """Events whose type no metric reads, by (landed hour, tenant, type, hour)."""
    types = {metric.event_type for metric in metrics}
    found: Counter[tuple[Any, ...]] = Counter()
    for landed_hour, entries in booked(ledger).items():
        for sign, record in entries:
            if record.event["event_type"] not in types:
                event = record.event
                found[landed_hour, event["tenant_id"], event["event_type"], record.hour] += sign
    return found


def unique_value_contributions(
    ledger: Ledger, metrics: Sequence[Metric]
) -> dict[tuple[Any, ...], Members]:
    """Members by (landed hour, tenant, metric, hour, dimensions as JSON, value)."""
    return {
        (landed_hour, *key): members
        for landed_hour, entries in booked(ledger).items()
        for key, members in _by_value(entries, metrics).items()
    }


def unique_values(ledger: Ledger, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Members]:
    """Members by (tenant, metric, hour, dimensions as JSON, value), of the events that stand."""
    return _by_value([(1, record) for record in ledger.standing()], metrics)


def _value(record: Record, metric: Metric) -> Decimal | str:
    """The number that the metric reads from the event, or why it cannot."""
    properties = record.event.get("properties", {})
    if metric.aggregation == "count":
        return Decimal(1)
    if metric.value_property is None:
        return Decimal(str(record.event.get("quantity", 1)))
    value = properties.get(metric.value_property)
    if value is None:
        return "value_missing"
    if metric.aggregation == "unique_count":
        if len(str(value).encode()) > 255:
            return "value_too_long"
        known = properties.get("operation") in (None, "add", "remove")
        return Decimal(1) if known else "unknown_operation"
    return Decimal(str(value)) if NUMBER.fullmatch(str(value)) else "value_not_a_number"


def _unique_value(record: Record, metric: Metric, value: Decimal) -> str:
    if metric.aggregation == "unique_count":
        return str(record.event["properties"][metric.value_property])
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


Bucket = tuple[str, str, datetime, str]


def _readable(
    entries: Signed, metrics: Sequence[Metric], bucket: timedelta
) -> Iterator[tuple[Bucket, Metric, int, Record, Decimal]]:
    for sign, record in entries:
        start = record.hour - (record.hour - EPOCH) % bucket
        properties = record.event.get("properties", {})
        for metric in metrics:
            value = _value(record, metric)
            if metric.reads(record) and isinstance(value, Decimal):
                dimensions = {name: properties.get(name) for name in metric.dimensions}
                key = json.dumps(dimensions, sort_keys=True)
                yield (
                    (record.event["tenant_id"], metric.name, start, key),
                    metric,
                    sign,
                    record,
                    value,
                )


def _by_bucket(
    entries: Signed, metrics: Sequence[Metric], bucket: timedelta = timedelta(hours=1)
) -> dict[Bucket, Figures]:
    buckets: dict[Bucket, list[tuple[int, Record, Decimal]]] = defaultdict(list)
    weighted = set()
    for key, metric, sign, record, value in _readable(entries, metrics, bucket):
        buckets[key].append((sign, record, value))
        if metric.aggregation == "weighted_sum":
            weighted.add(key)
    return {key: _figures(found, key in weighted) for key, found in buckets.items()}


def _by_value(entries: Signed, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Members]:
    keeping = [metric for metric in metrics if metric.keeps_values]
    groups: dict[tuple[Any, ...], list[tuple[int, Record]]] = defaultdict(list)
    counted = {metric.name for metric in keeping if metric.aggregation == "unique_count"}
    for key, metric, sign, record, value in _readable(entries, keeping, timedelta(hours=1)):
        groups[*key, _unique_value(record, metric, value)].append((sign, record))
    return {key: _members(found, key[-4] in counted) for key, found in groups.items()}


def _members(entries: Signed, may_be_removed: bool) -> Members:
    counted = [record for sign, record in entries if sign > 0]
    latest = max(counted, key=lambda each: (each.occurred_at, each.fingerprint), default=None)
    return (
        sum(sign for sign, _ in entries),
        latest.occurred_at if latest else None,
        latest.fingerprint if latest else None,
        may_be_removed and latest.removes if latest else None,
    )


def _figures(entries: list[tuple[int, Record, Decimal]], weighted: bool) -> Figures:
    counted = [(record, value) for sign, record, value in entries if sign > 0]
    values = [value for _, value in counted]
    latest = max(counted, key=lambda each: (each[0].occurred_at, each[0].fingerprint), default=None)
    return (
        sum(sign for sign, _, _ in entries),
        sum((sign * value for sign, _, value in entries), Decimal(0)),
        sum(
            (sign * value * _seconds(record.occurred_at) for sign, record, value in entries),
            Decimal(0),
        )
        if weighted
        else None,
        min(values, default=None),
        max(values, default=None),
        latest[1] if latest else None,
        latest[0].occurred_at if latest else None,
        latest[0].fingerprint if latest else None,
        sum(sign * low_bits(record.fingerprint) for sign, record, _ in entries),
        sum(sign * low_bits(record.payload_hash) for sign, record, _ in entries),
    )


def _seconds(instant: datetime) -> Decimal:
    return Decimal((instant - EPOCH) // timedelta(microseconds=1)) / 1_000_000
