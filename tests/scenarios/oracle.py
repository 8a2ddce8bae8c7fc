"""What ledger and rollups must be, in plain Python over the records of the current files.

Written from the rules, not from the SQL: it knows files, lines and events, and recomputes everything
from nothing.
"""

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Metric:
    """A metric of the catalog: value_property None counts events."""

    name: str
    event_type: str
    value_property: str | None
    dimensions: tuple[str, ...]


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

    @property
    def occurred_at(self) -> datetime:
        return datetime.fromisoformat(self.event["occurred_at"])

    @property
    def void(self) -> bool:
        return bool(self.event.get("void", False))

    @property
    def fingerprint(self) -> uuid.UUID:
        micros = (self.occurred_at - EPOCH) // (datetime.resolution)
        fields = (
            self.event["tenant_id"],
            self.event["event_type"],
            str(micros),
            self.event["correlation_id"],
        )
        return uuid.UUID(bytes=hashlib.sha256("\x1f".join(fields).encode()).digest()[:16])

    @property
    def payload_hash(self) -> uuid.UUID:
        quantity = str(self.event.get("quantity", 1))
        properties = json.dumps(
            self.event.get("properties", {}), sort_keys=True, separators=(",", ":")
        )
        return uuid.UUID(bytes=hashlib.sha256(f"{quantity}\x1f{properties}".encode()).digest()[:16])


def low_bits(identifier: uuid.UUID) -> int:
    return int.from_bytes(identifier.bytes[8:], "big", signed=True)


@dataclass
class Ledger:
    """Records by the table they belong to."""

    events: list[Record]
    duplicates: list[Record]
    conflicts: list[Record]
    voids: list[Record]


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


Figures = tuple[int, Decimal, Decimal | None, Decimal | None, Decimal | None, int, int]


def contributions(ledger: Ledger, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Figures]:
    """Figures by (landed hour, tenant, metric, hour, dimensions as JSON)."""
    voided = {void.fingerprint: void.landed_hour for void in ledger.voids}
    signed: dict[tuple[Any, ...], list[tuple[int, Record, Decimal]]] = defaultdict(list)
    for record in ledger.events:
        for key, value in _metered(record, metrics):
            signed[record.landed_hour, *key].append((1, record, value))
            if record.fingerprint in voided:
                booked = max(record.landed_hour, voided[record.fingerprint])
                signed[booked, *key].append((-1, record, value))
    return {key: _figures(entries) for key, entries in signed.items()}


def hourly(ledger: Ledger, metrics: Sequence[Metric]) -> dict[tuple[Any, ...], Figures]:
    """Figures by (tenant, metric, hour, dimensions as JSON), of the events that stand."""
    voided = {void.fingerprint for void in ledger.voids}
    standing: dict[tuple[Any, ...], list[tuple[int, Record, Decimal]]] = defaultdict(list)
    for record in ledger.events:
        if record.fingerprint not in voided:
            for key, value in _metered(record, metrics):
                standing[key].append((1, record, value))
    return {key: _figures(entries) for key, entries in standing.items()}


def _metered(
    record: Record, metrics: Sequence[Metric]
) -> list[tuple[tuple[str, str, datetime, str], Decimal]]:
    hour = record.occurred_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    properties = record.event.get("properties", {})
    found = []
    for metric in metrics:
        if metric.event_type != record.event["event_type"]:
            continue
        if metric.value_property is None:
            value = Decimal(1)
        elif metric.value_property in properties:
            value = Decimal(str(properties[metric.value_property]))
        else:
            continue
        dimensions = json.dumps({name: properties.get(name) for name in metric.dimensions})
        found.append(((record.event["tenant_id"], metric.name, hour, dimensions), value))
    return found


def _figures(entries: list[tuple[int, Record, Decimal]]) -> Figures:
    counted = [(record, value) for sign, record, value in entries if sign > 0]
    values = [value for _, value in counted]
    latest = max(counted, key=lambda each: (each[0].occurred_at, each[0].fingerprint), default=None)
    return (
        sum(sign for sign, _, _ in entries),
        sum((sign * value for sign, _, value in entries), Decimal(0)),
        min(values, default=None),
        max(values, default=None),
        latest[1] if latest else None,
        sum(sign * low_bits(record.fingerprint) for sign, record, _ in entries),
        sum(sign * low_bits(record.payload_hash) for sign, record, _ in entries),
    )
