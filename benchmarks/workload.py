"""The events that are measured: landing hours of a company with 1,000 tenants and five metrics, seeded.

Of an hour at ten million events a day: 416,667 new events, 3 % of them up to 48 hours late, and 2 %
further copies, of which 70 % of the same hour and 30 % of the hour before, 1 % of them with another
quantity. The biggest tenant has 9 % of the usage; properties have three keys. Each metric reads an
event type of its own, so that an event is one value, and has another aggregation where there is one.
"""

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Metric:
    """What is counted of an event type: its quantity, or one of its properties."""

    name: str
    event_type: str
    aggregation: str
    value_property: str | None = None
    dimension: str | None = None


TENANTS = 1_000
METRICS = (
    Metric("requests", "api.request", "count"),
    Metric("tokens", "tokens.generated", "sum", "tokens", "model"),
    Metric("egress_bytes", "egress.bytes", "sum", None, "region"),
    Metric("longest_build", "build.minutes", "max"),
    Metric("storage_held", "storage.gigabytes", "latest"),
)
EVENT_TYPES = tuple(metric.event_type for metric in METRICS)
REGIONS = ("eu-west-1", "us-east-1", "ap-south-1")
MODELS = ("small", "medium", "large")
LATE_SHARE = 0.03
LATE_HOURS = 48
COPIES_SHARE = 0.02
CHANGED_SHARE = 0.01
BUCKETS_A_TENANT_HOUR = sum(3 if metric.dimension else 1 for metric in METRICS)
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FORMATS = ("ndjson", "ndjson.gz", "parquet", "csv")


@dataclass(frozen=True)
class Events:
    """Events by column; ``occurred_at`` in microseconds since 1970, quantities as text."""

    tenant_id: list[str]
    event_type: list[str]
    occurred_at: list[int]
    correlation_id: list[str]
    quantity: list[str]
    properties: list[str]

    def __len__(self) -> int:
        return len(self.tenant_id)

    def rows(self) -> Iterator[tuple[str, str, int, str, str, str]]:
        return zip(
            self.tenant_id,
            self.event_type,
            self.occurred_at,
            self.correlation_id,
            self.quantity,
            self.properties,
            strict=True,
        )


def hour_of_events(landed_hour: datetime, count: int, seed: int) -> Events:
    """So many new events of a landing hour, a share of them late."""
    random = np.random.default_rng(seed)
    start = int(landed_hour.timestamp()) * 1_000_000
    instants = start + random.integers(0, 3_600_000_000, count)
    late = random.random(count) < LATE_SHARE
    instants[late] = start - random.integers(0, LATE_HOURS * 3_600_000_000, int(late.sum()))
    return _events_at(instants, random)


def late_events(landed_hour: datetime, count: int, seed: int) -> Events:
    """So many new events of the hours before a landing hour, LATE_HOURS of them, and none of its own."""
    random = np.random.default_rng(seed)
    start = int(landed_hour.timestamp()) * 1_000_000
    return _events_at(start - random.integers(1, LATE_HOURS * 3_600_000_000, count), random)


def _events_at(instants: np.ndarray, random: np.random.Generator) -> Events:
    count = len(instants)
    weights = np.arange(1, TENANTS + 1) ** (-2 / 3)
    tenants = random.choice(TENANTS, count, p=weights / weights.sum())
    fractions = random.random(count) < 0.3
    return Events(
        [f"tenant-{number:04d}" for number in tenants.tolist()],
        [EVENT_TYPES[number] for number in random.integers(0, len(EVENT_TYPES), count).tolist()],
        instants.tolist(),
        [_request_id(random.bytes(16)) for _ in range(count)],
        [
            f"{whole}.{part:06d}" if has_part else str(whole)
            for whole, part, has_part in zip(
                random.integers(1, 100_000, count).tolist(),
                random.integers(1, 1_000_000, count).tolist(),
                fractions.tolist(),
                strict=True,
            )
        ],
        [
            f'{{"region": "{REGIONS[region]}", "model": "{MODELS[model]}", "tokens": {tokens}}}'
            for region, model, tokens in zip(
                random.integers(0, 3, count).tolist(),
                random.integers(0, 3, count).tolist(),
                random.integers(0, 5_000, count).tolist(),
                strict=True,
            )
        ],
    )


def _request_id(random_bytes: bytes) -> str:
    text = random_bytes.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def with_copies(events: Events, before: Events, seed: int) -> Events:
    """The hour's events and their copies, as a file holds them."""
    random = np.random.default_rng(seed)
    copies = int(len(events) * COPIES_SHARE)
    of_the_hour = [list(row) for row in _chosen(events, random, int(copies * 0.7))]
    of_before = [list(row) for row in _chosen(before, random, copies - len(of_the_hour))]
    repeated = of_the_hour + of_before
    for row in repeated[: int(copies * CHANGED_SHARE)]:
        row[4] = str(Decimal(str(row[4])) + 1)
    columns = list(zip(*events.rows(), strict=True))
    return Events(
        *(
            [*column, *more]
            for column, more in zip(columns, zip(*repeated, strict=True), strict=True)
        )
    )


def _chosen(
    events: Events, random: np.random.Generator, count: int
) -> list[tuple[str, str, int, str, str, str]]:
    rows = list(events.rows())
    return [rows[place] for place in random.integers(0, len(rows), count).tolist()]


def write(events: Events, root: Path, landed_hour: datetime, kind: str) -> Path:
    """The events as one file of a landing hour, in one of FORMATS."""
    folder = root / f"landed_hour={landed_hour:%Y-%m-%dT%H}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.{kind}"
    if kind == "parquet":
        pq.write_table(_table(events), path, compression="zstd")
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(events.__dataclass_fields__)
            writer.writerows((*row[:2], _instant(row[2]), *row[3:]) for row in events.rows())
    elif kind == "ndjson.gz":
        path.write_bytes(gzip.compress("".join(_lines(events)).encode(), compresslevel=6))
    else:
        path.write_text("".join(_lines(events)))
    return path


def _lines(events: Events) -> Sequence[str]:
    return [
        f'{{"tenant_id": "{tenant}", "event_type": "{event_type}", "occurred_at": "{_instant(at)}",'
        f' "correlation_id": "{request}", "quantity": {quantity}, "properties": {properties}}}\n'
        for tenant, event_type, at, request, quantity, properties in events.rows()
    ]


def _instant(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:06d}Z"


def _table(events: Events) -> pa.Table:
    return pa.table(
        {
            "tenant_id": events.tenant_id,
            "event_type": events.event_type,
            "occurred_at": pa.array(events.occurred_at, pa.timestamp("us", "UTC")),
            "correlation_id": events.correlation_id,
            "quantity": pa.array(
                [Decimal(text) for text in events.quantity], pa.decimal128(38, 18)
            ),
            "properties": [json.dumps(json.loads(text)) for text in events.properties],
        }
    )
