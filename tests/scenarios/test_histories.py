"""Random histories: files that come, change and come late, posted in any order and again and again. Ledger
and rollups must equal the oracle's row for row, at the end and wherever nothing is owed."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metering_pipeline.partitions import Window
from tests.scenarios import oracle
from tests.scenarios.conftest import Pipeline

METRICS = [
    oracle.Metric("requests", "api.request", None, ()),
    oracle.Metric("input_tokens", "api.request", "input_tokens", ("model",)),
    oracle.Metric("output_tokens", "api.request", "output_tokens", ("model",)),
]
START = datetime(2026, 1, 5, 10, tzinfo=UTC)
HOURS = [START + timedelta(hours=number) for number in range(4)]


class History:
    """A landing root that changes, and the pipeline that follows it."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline = pipeline
        self.random = random.Random(seed)
        self.files: dict[str, tuple[datetime, list[dict[str, Any]]]] = {}

    def event(self) -> dict[str, Any]:
        choose = self.random
        event: dict[str, Any] = {
            "tenant_id": choose.choice(["acme", "cobalt"]),
            "event_type": "api.request",
            "occurred_at": (START - timedelta(minutes=choose.choice([5, 20, 70, 80]))).isoformat(),
            "correlation_id": f"c{choose.randrange(6)}",
        }
        if choose.random() < 0.15:
            return event | {"void": True}
        return event | {
            "quantity": choose.choice([1, 2]),
            "properties": {
                "model": choose.choice(["small", "large"]),
                "input_tokens": choose.choice([3, 5]),
                "output_tokens": 7,
            },
        }

    def write_file(self) -> None:
        hour = self.random.choice(HOURS)
        name = self.random.choice(["a.ndjson", "b.ndjson", "B.ndjson"])
        events = [self.event() for _ in range(self.random.randrange(0, 9))]
        path = self.pipeline.drop(hour, name, events)
        self.files[str(path.relative_to(self.pipeline.root))] = (hour, events)

    def run_some(self) -> None:
        first, last = sorted(self.random.choices(HOURS, k=2))
        self.post(first, last)

    def post(self, first: datetime, last: datetime) -> None:
        from metering_pipeline import settings
        from metering_pipeline.landing.store import land_hours
        from metering_pipeline.transform.assets import END_OF_TIME
        from metering_pipeline.transform.dbt import run_dbt

        configured = settings.load()
        land_hours(self.pipeline.database.url, configured, first, last, configured.now())
        window = Window(first, last + timedelta(hours=1))
        run_dbt(self.pipeline.database, "run", ["metering.ledger.usage_events"], window)
        run_dbt(
            self.pipeline.database,
            "run",
            ["usage_contributions", "usage_hourly"],
            Window(first, END_OF_TIME),
        )

    def records(self) -> list[oracle.Record]:
        return [
            oracle.Record(hour, key, line, event)
            for key, (hour, events) in self.files.items()
            for line, event in enumerate(events, start=1)
        ]


@pytest.mark.parametrize("seed", range(8))
def test_any_history_gives_the_oracles_rows(pipeline: Pipeline, seed: int) -> None:
    pipeline.set_clock(HOURS[-1] + timedelta(hours=2))
    history = History(pipeline, seed)
    for _ in range(6):
        history.write_file()
        if history.random.random() < 0.6:
            history.run_some()
    for hour in history.random.sample(HOURS, k=len(HOURS)):
        history.post(hour, hour)
    compare(pipeline, history.records())
    history.post(HOURS[0], HOURS[-1])
    compare(pipeline, history.records())


def compare(pipeline: Pipeline, records: list[oracle.Record]) -> None:
    ledger = oracle.post(records)
    assert table(pipeline, "usage_events") == places(ledger.events)
    assert table(pipeline, "duplicates") == places(ledger.duplicates)
    assert table(pipeline, "conflicts") == places(ledger.conflicts)
    assert table(pipeline, "voids") == places(ledger.voids)
    assert pipeline.rows("select * from ledger.pending") == []
    assert rollup(pipeline, "usage_contributions", "landed_hour, ") == oracle.contributions(
        ledger, METRICS
    )
    assert rollup(pipeline, "usage_hourly", "") == oracle.hourly(ledger, METRICS)


def places(records: list[oracle.Record]) -> set[tuple[Any, ...]]:
    return {(*each.place, each.fingerprint, each.payload_hash) for each in records}


def table(pipeline: Pipeline, name: str) -> set[tuple[Any, ...]]:
    rows = pipeline.rows(
        "select rows.landed_hour, file_key, line_number, fingerprint, payload_hash"
        f" from ledger.{name} as rows inner join landing.files using (file_id)"
    )
    assert len(rows) == len(set(rows))
    return set(rows)


def rollup(pipeline: Pipeline, name: str, prefix: str) -> dict[tuple[Any, ...], oracle.Figures]:
    rows = pipeline.rows(
        f"select {prefix}tenant_id, metric, hour, dimensions, event_count, value_sum, value_min, value_max,"
        f" value_latest, event_digest, payload_digest from rollups.{name}"
    )
    return {(*row[:-8], json.dumps(row[-8])): row[-7:] for row in rows}
