"""Sample events of an AI-API company: seeded, with everything that real producers do wrong.

Requests with their tokens by model, and hourly storage snapshots, of 24 tenants of very different
size, written into landing folders as NDJSON (plain and gzipped), Parquet and CSV, some lines as
CloudEvents. The same seed gives the same bytes, and the exact totals come back for comparison.
"""

import csv
import gzip
import hashlib
import io
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from metering_pipeline.settings import HOUR, hour_of

API_REQUEST = "api.request"
STORAGE_SNAPSHOT = "storage.snapshot"
MODELS = ("small", "medium", "large")
REGIONS = ("us-east", "eu-west", "ap-south")
LOOKBACK = timedelta(hours=72)

SOURCE = "exporter"
"""The source in the catalog's seeds whose file is the second one of each drop."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MODEL_WEIGHTS = (12, 6, 2)
_TENANTS = (
    "acme", "birch-labs", "cobalt", "delta-health", "ember", "fjord", "granite", "harbor",
    "iris-ai", "juniper", "kestrel", "lumen", "meridian", "nimbus", "orchid", "pioneer",
    "quartz", "riverbend", "sakura", "tundra", "umbra", "vertex", "willow", "zephyr",
)  # fmt: skip
_REQUESTS_BY_HOUR = (2, 1, 1, 1, 1, 2, 3, 5, 8, 10, 11, 11, 10, 10, 11, 11, 10, 9, 7, 6, 5, 4, 3, 2)
_SNAPSHOT_SHARE = Decimal("0.3")


def tenant_ids() -> list[str]:
    """The tenants of the sample, largest first; the catalog's seeds have the same."""
    return list(_TENANTS)


@dataclass(frozen=True)
class Shares:
    """What goes wrong, as shares of the distinct events."""

    duplicates: float = 0.02
    """Delivered a second time, more than half of them in the same landing hour."""
    late: float = 0.03
    """Landed later than they had to, one in ten of them beyond 72 hours."""
    conflicts: float = 0.0005
    """Delivered once more with another payload."""
    voids: float = 0.001
    """Cancelled by a void."""
    bad_lines: float = 0.001
    """Lines that are no valid events."""
    cloud_events: float = 0.05
    """Of the NDJSON lines, written as CloudEvents."""


@dataclass
class GeneratedTotals:
    """What was written, exactly. Net: without the events that a void cancels."""

    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Distinct events by tenant and event type, cancelled ones included."""
    net_events: Counter[tuple[str, str]] = field(default_factory=Counter)
    input_tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By tenant and model, net."""
    output_tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    storage_gb_hours: defaultdict[str, Decimal] = field(
        default_factory=lambda: defaultdict(Decimal)
    )
    """By tenant, net."""
    duplicates: int = 0
    late: int = 0
    late_beyond_lookback: int = 0
    """Distinct events whose first copy landed more than 72 hours after their hour."""
    conflicts: int = 0
    voids: int = 0
    bad_lines: int = 0
    lines: int = 0
    """All records written, bad lines included."""
    files: int = 0
    landing_hours: tuple[datetime, ...] = ()
    """The hours that got files, in order."""


class _Event(NamedTuple):
    tenant_id: str
    event_type: str
    occurred_at: datetime
    correlation_id: str
    quantity: Decimal
    properties: dict[str, str | int]
    void: bool = False


def generate(
    root: Path,
    first_day: date = date(2026, 1, 1),
    days: int = 31,
    landing_hours_per_day: Sequence[int] = (7, 15, 23),
    events: int = 60_000,
    seed: int = 1,
    shares: Shares | None = None,
    source: str | None = None,
) -> GeneratedTotals:
    """Write the events of some UTC days below ``root``; the totals of what was written.

    Files are dropped at the given hours of each day; the events of an hour land in the next hour
    that has a drop. ``events`` is the number of distinct events. The second file of each drop is of
    ``source``, if one is given: it writes a manifest too.
    """
    shares = shares or Shares()
    rng = random.Random(seed)  # noqa: S311
    start = datetime.combine(first_day, datetime.min.time(), UTC)
    drops = _drop_hours(start, days, sorted(set(landing_hours_per_day)))
    distinct = _events(rng, start, days, events)
    totals = _totals(distinct)
    landings = _deliver(rng, distinct, drops, shares, totals)
    bad_lines = Counter(rng.choices(drops, k=round(events * shares.bad_lines)))
    for position, hour in enumerate(drops):
        lines = landings.get(hour, [])
        if lines or bad_lines[hour]:
            _write_hour(
                _Drop(root, hour, position, rng, shares.cloud_events, source),
                lines,
                bad_lines[hour],
                totals,
            )
    return totals


def _drop_hours(start: datetime, days: int, hours: Sequence[int]) -> list[datetime]:
    drops = [start + timedelta(days=day, hours=hour) for day in range(days) for hour in hours]
    if hours[-1] < 23:
        drops.append(start + timedelta(days=days, hours=hours[0]))
    return drops


def _events(rng: random.Random, start: datetime, days: int, count: int) -> list[_Event]:
    grid = [(hour, tenant) for hour in range(days * 24) for tenant in range(len(_TENANTS))]
    snapshots = min(len(grid), int(count * _SNAPSHOT_SHARE))
    made = [
        _snapshot(rng, start, *grid[index * len(grid) // snapshots]) for index in range(snapshots)
    ]
    tenant_weights = [1000 // rank for rank in range(1, len(_TENANTS) + 1)]
    requests = count - snapshots
    tenants = rng.choices(_TENANTS, tenant_weights, k=requests)
    hours = rng.choices(range(24), _REQUESTS_BY_HOUR, k=requests)
    models = rng.choices(MODELS, _MODEL_WEIGHTS, k=requests)
    for tenant, hour, model in zip(tenants, hours, models, strict=True):
        occurred_at = start + timedelta(
            days=rng.randrange(days), hours=hour, microseconds=rng.randrange(3_600_000_000)
        )
        made.append(_request(rng, tenant, occurred_at, model))
    return sorted(made, key=lambda event: (event.occurred_at, event.correlation_id))


def _snapshot(rng: random.Random, start: datetime, hour: int, tenant: int) -> _Event:
    taken_at = start + timedelta(hours=hour, seconds=tenant)
    # Grows through the month; thousandths of a GB.
    stored = (len(_TENANTS) - tenant) * 9_000 + hour * 13 + rng.randrange(4_000)
    return _Event(
        _TENANTS[tenant],
        STORAGE_SNAPSHOT,
        taken_at,
        f"snapshot {taken_at:%Y-%m-%dT%H}",
        Decimal(stored) / 1000,
        {"tier": "archive" if tenant % 5 == 4 else "standard"},
    )


def _request(rng: random.Random, tenant: str, occurred_at: datetime, model: str) -> _Event:
    identifier = f"{rng.getrandbits(64):016x}"
    region = rng.choice(REGIONS)
    return _Event(
        tenant,
        API_REQUEST,
        occurred_at,
        # Source and id of a CloudEvent, joined: any copy may come in either form.
        f"//api.{region} req-{identifier}",
        Decimal(1),
        {
            "model": model,
            "region": region,
            "input_tokens": min(rng.randrange(20, 8_000), rng.randrange(20, 8_000)),
            "output_tokens": min(rng.randrange(1, 2_000), rng.randrange(1, 2_000)),
        },
    )


def _totals(distinct: list[_Event]) -> GeneratedTotals:
    totals = GeneratedTotals()
    for event in distinct:
        totals.events[event.tenant_id, event.event_type] += 1
        _count(totals, event, 1)
    return totals


def _count(totals: GeneratedTotals, event: _Event, sign: int) -> None:
    totals.net_events[event.tenant_id, event.event_type] += sign
    if event.event_type == STORAGE_SNAPSHOT:
        totals.storage_gb_hours[event.tenant_id] += sign * event.quantity
        return
    key = (event.tenant_id, str(event.properties["model"]))
    totals.input_tokens[key] += sign * int(event.properties["input_tokens"])
    totals.output_tokens[key] += sign * int(event.properties["output_tokens"])


def _deliver(
    rng: random.Random,
    distinct: list[_Event],
    drops: list[datetime],
    shares: Shares,
    totals: GeneratedTotals,
) -> dict[datetime, list[_Event]]:
    """The events of each landing hour, copies, conflicts and voids included."""
    count = len(distinct)
    on_time = _on_time(distinct, drops)
    landed = list(on_time)
    for index in rng.sample(range(count), round(count * shares.late)):
        hours = rng.randrange(73, 121) if rng.randrange(10) == 0 else rng.randrange(4, 69)
        landed[index] = _drop_after(drops, on_time[index], hours)
    totals.late = sum(late > early for late, early in zip(landed, on_time, strict=True))
    totals.late_beyond_lookback = sum(
        drops[position] - hour_of(event.occurred_at) > LOOKBACK
        for event, position in zip(distinct, landed, strict=True)
    )
    lines: defaultdict[datetime, list[_Event]] = defaultdict(list)
    for event, position in zip(distinct, landed, strict=True):
        lines[drops[position]].append(event)
    for index in rng.sample(range(count), round(count * shares.duplicates)):
        later = 0 if rng.randrange(10) < 6 else rng.randrange(1, 10)
        position = min(landed[index] + later, len(drops) - 1)
        lines[drops[position]].append(distinct[index])
        totals.duplicates += 1
    # Only what has a later drop: the first copy must be the one that is not changed.
    candidates = [index for index in range(count) if landed[index] < len(drops) - 1]
    for index in rng.sample(candidates, round(len(candidates) * shares.conflicts)):
        lines[drops[landed[index] + 1]].append(_changed(distinct[index]))
        totals.conflicts += 1
    for index in rng.sample(range(count), round(count * shares.voids)):
        position = min(landed[index] + rng.randrange(3), len(drops) - 1)
        lines[drops[position]].append(distinct[index]._replace(void=True))
        totals.voids += 1
        _count(totals, distinct[index], -1)
    return lines


def _on_time(distinct: list[_Event], drops: list[datetime]) -> list[int]:
    """For each event, ordered by time, the position of the first drop of its hour or later."""
    positions = []
    position = 0
    for event in distinct:
        while drops[position] + HOUR <= event.occurred_at:
            position += 1
        positions.append(position)
    return positions


def _drop_after(drops: list[datetime], position: int, hours: int) -> int:
    """A later drop: the last one no more than so many hours later, but at least the next.

    Beyond the lookback the first one no fewer hours later. The last drop is never passed.
    """
    last = len(drops) - 1
    wanted = drops[position] + timedelta(hours=hours)
    position = min(position + 1, last)
    while position < last and drops[position + 1] <= wanted:
        position += 1
    if wanted - drops[position] > timedelta() and hours > LOOKBACK / HOUR and position < last:
        position += 1
    return position


def _changed(event: _Event) -> _Event:
    if event.event_type == STORAGE_SNAPSHOT:
        return event._replace(quantity=event.quantity + 1)
    tokens = int(event.properties["output_tokens"])
    return event._replace(properties=event.properties | {"output_tokens": tokens + 1})


@dataclass(frozen=True)
class _Drop:
    """One landing hour's folder, and what its lines are written with."""

    root: Path
    hour: datetime
    position: int
    rng: random.Random
    cloud_events: float
    source: str | None

    @property
    def folder(self) -> Path:
        return self.root / f"landed_hour={self.hour:%Y-%m-%dT%H}"


def _write_hour(drop: _Drop, lines: list[_Event], bad_lines: int, totals: GeneratedTotals) -> None:
    """Two files: NDJSON, in which the bad lines are, and a second one of changing format, whose source
    then says what it sent."""
    drop.folder.mkdir(parents=True, exist_ok=True)
    drop.rng.shuffle(lines)
    cut = len(lines) * 2 // 3
    texts = [_ndjson(drop, event) for event in lines[:cut]]
    for _ in range(bad_lines):
        texts.insert(drop.rng.randrange(len(texts) + 1), _bad_line(drop))
    _write(drop.folder / "events-1.ndjson.gz", _gzipped("".join(f"{text}\n" for text in texts)))
    second = _SECOND_FILE[drop.position % len(_SECOND_FILE)](drop, lines[cut:])
    if drop.source is not None:
        _write_manifest(drop, drop.source, second, lines[cut:])
    totals.lines += len(lines) + bad_lines
    totals.bad_lines += bad_lines
    totals.files += 2
    totals.landing_hours += (drop.hour,)


def _write_manifest(drop: _Drop, source: str, file: Path, events: Sequence[_Event]) -> None:
    by_type: defaultdict[str, list[_Event]] = defaultdict(list)
    for event in events:
        by_type[event.event_type].append(event)
    content = file.read_bytes()
    manifest = {
        "source": source,
        "landed_hour": f"{drop.hour:%Y-%m-%dT%H}",
        "files": [
            {
                "name": file.name,
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ],
        "totals": [
            {
                "event_type": event_type,
                "events": len(of_type),
                "quantity": str(sum(event.quantity for event in of_type)),
                "digest": str(sum(map(_low_64_bits, of_type))),
            }
            for event_type, of_type in sorted(by_type.items())
        ],
    }
    _write(drop.folder / f"_manifest.{source}.json", msgspec.json.encode(manifest))


def _low_64_bits(event: _Event) -> int:
    """Of the fingerprint, signed; as a producer computes it."""
    microseconds = (event.occurred_at - _EPOCH) // timedelta(microseconds=1)
    identity = (event.tenant_id, event.event_type, str(microseconds), event.correlation_id)
    fingerprint = hashlib.sha256("\x1f".join(identity).encode()).digest()[:16]
    return int.from_bytes(fingerprint[8:], signed=True)


def _write(path: Path, content: bytes) -> Path:
    """Complete or not at all: a name that ends in .tmp is not landed."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(content)
    return unfinished.replace(path)


def _gzipped(text: str) -> bytes:
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _ndjson(drop: _Drop, event: _Event) -> str:
    if event.event_type == API_REQUEST and drop.rng.random() < drop.cloud_events:
        return _dumped(_cloud_event(event))
    return _dumped(_canonical(event))


def _canonical(event: _Event) -> dict[str, object]:
    written: dict[str, object] = {
        "tenant_id": event.tenant_id,
        "event_type": event.event_type,
        "occurred_at": _time(event.occurred_at),
        "correlation_id": event.correlation_id,
    }
    if event.quantity != 1:
        written["quantity"] = str(event.quantity)
    written["properties"] = event.properties
    if event.void:
        written["void"] = True
    return written


def _cloud_event(event: _Event) -> dict[str, object]:
    source, identifier = event.correlation_id.split(" ", 1)
    written: dict[str, object] = {
        "specversion": "1.0",
        "id": identifier,
        "source": source,
        "type": event.event_type,
        "subject": event.tenant_id,
        "time": _time(event.occurred_at),
        "datacontenttype": "application/json",
        "data": event.properties,
    }
    if event.void:
        written["void"] = True
    return written


def _dumped(document: object) -> str:
    return msgspec.json.encode(document).decode()


def _time(instant: datetime) -> str:
    return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _bad_line(drop: _Drop) -> str:
    occurred_at = _time(drop.hour)
    good: dict[str, object] = {
        "tenant_id": drop.rng.choice(_TENANTS),
        "event_type": API_REQUEST,
        "occurred_at": occurred_at,
        "correlation_id": f"bad-{drop.rng.getrandbits(64):016x}",
    }
    kinds: tuple[str, ...] = (
        _dumped(good)[:-20],
        _dumped(good | {"occurred_at": occurred_at.rstrip("Z")}),
        _dumped(good | {"quantty": 3}),
        _dumped(good | {"quantity": "NaN"}),
        _dumped(good | {"quantity": 0.1234567890123456789}).replace(
            "0.12345678901234568", "0.1234567890123456789"
        ),
        _dumped(good | {"occurred_at": "1970-01-01T00:00:00Z"}),
        _dumped({key: value for key, value in good.items() if key != "tenant_id"}),
        _dumped(good)[:-1] + ',"tenant_id":"somebody-else"}',
        "Traceback (most recent call last):",
    )
    return drop.rng.choice(kinds)


def _second_ndjson(drop: _Drop, lines: list[_Event]) -> Path:
    text = "\n".join(_ndjson(drop, event) for event in lines)
    return _write(drop.folder / "events-2.ndjson", text.encode())


def _second_parquet(drop: _Drop, lines: list[_Event]) -> Path:
    columns = [list(column) for column in zip(*lines, strict=True)] or [[]] * len(_Event._fields)
    columns[5] = [_dumped(properties) for properties in columns[5]]
    table = pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, _PARQUET.types, strict=True)],
        schema=_PARQUET,
    )
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return _write(drop.folder / "events-2.parquet", written.getvalue())


_PARQUET = pa.schema(
    [
        ("tenant_id", pa.string()),
        ("event_type", pa.string()),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("correlation_id", pa.string()),
        ("quantity", pa.decimal128(20, 3)),
        ("properties", pa.string()),
        ("void", pa.bool_()),
    ]
)


def _second_csv(drop: _Drop, lines: list[_Event]) -> Path:
    written = io.StringIO()
    table = csv.writer(written)
    table.writerow(_Event._fields)
    for event in lines:
        quantity = "" if event.quantity == 1 else str(event.quantity)
        table.writerow(
            [*event[:2], _time(event.occurred_at), event.correlation_id, quantity,
             _dumped(event.properties), "true" if event.void else ""]
        )  # fmt: skip
    return _write(drop.folder / "events-2.csv", written.getvalue().encode())


_SECOND_FILE: tuple[Callable[[_Drop, list[_Event]], Path], ...] = (
    _second_ndjson,
    _second_parquet,
    _second_ndjson,
    _second_csv,
    _second_ndjson,
)
