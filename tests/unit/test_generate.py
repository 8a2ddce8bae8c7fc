"""The sample events: the totals that come back are those of the files."""

import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from metering_pipeline.generate import GeneratedTotals, Shares, generate, tenant_ids
from metering_pipeline.landing import readers
from metering_pipeline.landing.events import Event, Limits
from metering_pipeline.settings import HOUR, hour_of, parse_hour

SHARES = Shares(duplicates=0.05, late=0.05, conflicts=0.01, voids=0.01, bad_lines=0.01)


def written(root: Path) -> Iterator[tuple[datetime, Event | None]]:
    """Each record in the order in which the ledger sees it, with its landing hour; None if bad."""
    for path in sorted(root.rglob("*.*"), key=lambda path: path.relative_to(root).as_posix()):
        hour = parse_hour(path.parent.name.removeprefix("landed_hour="))
        limits = Limits.of_hour(hour, date(2020, 1, 1), 60)
        records: dict[int, Event | None] = {}
        for chunk in readers.read(path.name, io.BytesIO(path.read_bytes()), limits):
            for row in chunk.events.to_pylist():
                number = row.pop("line_number")
                records[number] = Event(**row)
            records |= dict.fromkeys((record.line_number for record in chunk.rejected), None)
        for line in sorted(records):
            yield hour, records[line]


@pytest.mark.parametrize("drops", [(7, 15, 23), (0, 1, 12), tuple(range(24))])
def test_totals_are_those_of_the_files(tmp_path: Path, drops: tuple[int, ...]) -> None:
    totals = generate(tmp_path, date(2026, 3, 1), 9, drops, events=3000, seed=5, shares=SHARES)
    owners: dict[tuple[object, ...], tuple[datetime, Event]] = {}
    voids: set[tuple[object, ...]] = set()
    found = GeneratedTotals()
    for hour, event in written(tmp_path):
        found.lines += 1
        if event is None:
            found.bad_lines += 1
        elif event.void:
            found.voids += 1
            voids.add(event[:4])
        elif event[:4] not in owners:
            owners[event[:4]] = (hour, event)
        elif owners[event[:4]][1] == event:
            found.duplicates += 1
        else:
            found.conflicts += 1
    storage: defaultdict[str, Decimal] = defaultdict(Decimal)
    for key, (hour, event) in owners.items():
        assert event.occurred_at < hour + HOUR
        found.late_beyond_lookback += hour - hour_of(event.occurred_at) > timedelta(hours=72)
        found.events[event.tenant_id, event.event_type] += 1
        if key in voids:
            continue
        found.net_events[event.tenant_id, event.event_type] += 1
        properties = json.loads(event.properties)
        if "model" in properties:
            found.input_tokens[event.tenant_id, properties["model"]] += properties["input_tokens"]
            found.output_tokens[event.tenant_id, properties["model"]] += properties["output_tokens"]
        else:
            storage[event.tenant_id] += event.quantity
    assert sum(totals.events.values()) == 3000
    assert totals.late_beyond_lookback > 0
    assert 100 <= totals.late <= 150
    assert totals.storage_gb_hours == storage
    for name in (
        "events",
        "net_events",
        "input_tokens",
        "output_tokens",
        "duplicates",
        "conflicts",
        "voids",
        "bad_lines",
        "lines",
        "late_beyond_lookback",
    ):
        assert getattr(totals, name) == getattr(found, name), name
    assert totals.duplicates == 150
    assert totals.voids == totals.bad_lines == 30
    assert 20 <= totals.conflicts <= 30
    folders = {parse_hour(path.name[-13:]) for path in tmp_path.iterdir()}
    assert set(totals.landing_hours) == folders
    assert totals.files == len([*tmp_path.rglob("*.*")])


def test_a_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        generate(tmp_path / name, days=3, events=400, seed=seed)
        files = sorted((tmp_path / name).rglob("*.*"))
        contents.append([(path.name, path.read_bytes()) for path in files])
    assert contents[0] == contents[1] != contents[2]


def test_every_format_is_there(tmp_path: Path) -> None:
    totals = generate(tmp_path, days=4, events=2000, seed=3)
    suffixes = Counter("".join(path.suffixes[-2:]) for path in tmp_path.rglob("*.*"))
    assert set(suffixes) == {".ndjson.gz", ".ndjson", ".parquet", ".csv"}
    texts = [gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.gz")]
    assert sum(text.count(b'"specversion":"1.0"') for text in texts) > 10
    assert sum(pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet")) > 50
    assert set(tenant_ids()) == {tenant for tenant, _ in totals.events}
    assert totals.landing_hours[0] == datetime(2026, 1, 1, 7, tzinfo=UTC)
