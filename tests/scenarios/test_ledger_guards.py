"""What the ledger refuses, and what it warns about."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metering_pipeline import settings
from metering_pipeline.erase import erase
from metering_pipeline.execution import RunFailed
from metering_pipeline.transform.dbt import DbtError, run_dbt
from tests.scenarios.conftest import Pipeline

HOUR = datetime(2026, 1, 5, 10, tzinfo=UTC)
LEDGER = ["metering.ledger.usage_events"]


def event(minute: int, correlation_id: str, **more: Any) -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": (HOUR - timedelta(minutes=minute)).isoformat(),
        "correlation_id": correlation_id,
        "properties": {"model": "small", "input_tokens": 1, "output_tokens": 1},
    } | more


def land(pipeline: Pipeline, *events: dict[str, Any]) -> None:
    pipeline.set_clock(HOUR + timedelta(hours=2))
    pipeline.drop(HOUR, "events.ndjson", events)
    pipeline.run(HOUR)


def test_a_full_refresh_changes_nothing(pipeline: Pipeline) -> None:
    from metering_pipeline.partitions import Window

    land(pipeline, event(1, "a"), event(2, "b"))
    before = pipeline.rows("select * from ledger.usage_events order by fingerprint")
    empty = Window(HOUR - timedelta(days=1), HOUR - timedelta(hours=23))
    run_dbt(pipeline.database, "run --full-refresh", LEDGER, empty)
    assert pipeline.rows("select * from ledger.usage_events order by fingerprint") == before
    assert len(before) == 2


def test_a_model_without_its_window_does_not_compile(pipeline: Pipeline) -> None:
    with pytest.raises(DbtError, match="needs a window of landing hours"):
        run_dbt(pipeline.database, "run", LEDGER)


def test_a_retry_with_a_new_time_is_suspect_until_it_is_voided(pipeline: Pipeline) -> None:
    land(pipeline, event(1, "a"), event(5, "a"), event(9, "b"))
    run_dbt(pipeline.database, "run", ["suspects"])
    listed = "select correlation_id, occurred_at, first_occurred_at from ledger.suspects"
    assert pipeline.rows(listed) == [
        ("a", HOUR - timedelta(minutes=1), HOUR - timedelta(minutes=5))
    ]
    assert pipeline.rows("select count(*) from ledger.usage_events") == [(3,)]
    land(pipeline, event(1, "a"), event(5, "a"), event(9, "b"), event(1, "a", void=True))
    run_dbt(pipeline.database, "run", ["suspects"])
    assert pipeline.rows(listed) == []


def test_a_suspect_stays_listed_however_old_until_one_of_the_two_is_gone(
    pipeline: Pipeline,
) -> None:
    """Minutes of "a" before the hour, with the first of its request: both are billed, whatever time has passed."""

    def listed(hours_later: int, *events: dict[str, Any]) -> list[tuple[int, int]]:
        hour = HOUR + timedelta(hours=hours_later)
        pipeline.set_clock(hour + timedelta(hours=2))
        pipeline.drop(hour, "events.ndjson", events)
        pipeline.run(hour)
        return looked_for()

    def looked_for() -> list[tuple[int, int]]:
        run_dbt(pipeline.database, "run", ["suspects"])
        return [
            ((HOUR - at) // timedelta(minutes=1), (HOUR - first) // timedelta(minutes=1))
            for at, first in pipeline.rows(
                "select occurred_at, first_occurred_at from ledger.suspects order by occurred_at desc"
            )
        ]

    assert listed(0, event(65, "a"), event(1, "a")) == [(1, 65)]
    # the first is older than the lookback now, the second is not; and a third has come
    assert listed(71, event(0, "a")) == [(0, 65), (1, 65)]
    # all are older
    old, copy, voided = event(-6000, "b"), event(0, "a"), event(65, "a", void=True)
    assert listed(100, old, copy) == [(0, 65), (1, 65)]
    erase(pipeline.database, settings.load(), "acme", ["a"], "dpo", "asked for")
    assert looked_for() == [(0, 65), (1, 65)]
    # the first is voided: the next one takes its place, older than the lookback though it is
    assert listed(100, old, copy, voided) == [(0, 1)]
    # the third is no longer in its file: its copy counts
    assert listed(71) == [(0, 1)]
    later = HOUR + timedelta(hours=100)
    assert pipeline.rows("select landed_hour from ledger.suspects") == [(later,)]
    # the second is no longer in its file
    assert listed(0, event(65, "a")) == []


def seeded_metrics(pipeline: Pipeline) -> list[dict[str, str]]:
    columns = [
        "metric", "event_type", "aggregation", "value_property", "dimensions", "unit", "filter", "description",
    ]  # fmt: skip
    rows = pipeline.rows(f"select {', '.join(columns)} from staging.metrics")
    return [{name: value or "" for name, value in zip(columns, row, strict=True)} for row in rows]


def test_a_new_metric_is_rolled_up_over_history(pipeline: Pipeline) -> None:
    land(pipeline, event(1, "a"), event(2, "b"), event(2, "b", void=True))
    calls = {
        "metric": "calls",
        "event_type": "api.request",
        "aggregation": "count",
        "value_property": "",
        "dimensions": "[]",
        "unit": "calls",
        "filter": "{}",
        "description": "Calls",
    }
    pipeline.publish_catalog(metrics=[*seeded_metrics(pipeline), calls])
    pipeline.run(HOUR + timedelta(hours=1))
    assert pipeline.rows(
        "select sum(value_sum) from rollups.usage_hourly where metric = 'calls'"
    ) == [(1,)]
    pipeline.run(HOUR)
    assert pipeline.red_laws() == set()


def test_a_value_beyond_all_bounds_stops_nobody(pipeline: Pipeline) -> None:
    huge = {"model": "small", "input_tokens": "9e131071", "output_tokens": "0x10"}
    land(pipeline, event(1, "a", properties=huge), event(2, "b"), event(3, "b", tenant_id="cobalt"))
    assert pipeline.rows(
        "select tenant_id, sum(value_sum) from rollups.usage_hourly"
        " where metric = 'input_tokens' group by tenant_id order by tenant_id"
    ) == [("acme", 1), ("cobalt", 1)]
    assert pipeline.rows(
        "select metric, reason, event_count from rollups.unreadable_values order by metric"
    ) == [("input_tokens", "value_not_a_number", 1), ("output_tokens", "value_not_a_number", 1)]


def test_a_broken_law_blocks_what_follows(pipeline: Pipeline) -> None:
    land(pipeline, event(1, "a"), event(2, "b"))
    ledger = pipeline.rows("select recorded_at from ledger.usage_events order by fingerprint")
    assert pipeline.execute("delete from landing.usage_events where correlation_id = 'a'") == 1
    with pytest.raises(RunFailed, match="L1"):
        pipeline.run(HOUR)
    assert (
        pipeline.rows("select recorded_at from ledger.usage_events order by fingerprint") == ledger
    )
    assert {law for law, _ in pipeline.red_laws()} == {"L1"}


def test_dbt_as_a_process_of_its_own(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from metering_pipeline.partitions import Window

    land(pipeline, event(1, "a"))
    monkeypatch.setenv("METERING_DBT_MODE", "cli")
    hour = Window(HOUR, HOUR + timedelta(hours=1))
    results = run_dbt(pipeline.database, "run", ["usage_contributions", "usage_hourly"], hour)
    assert [each.status for each in results] == ["success", "success"]
    with pytest.raises(DbtError, match="run --no-such-option"):
        run_dbt(pipeline.database, "run --no-such-option", LEDGER)
