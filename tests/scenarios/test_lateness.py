"""How late usage lands: counted exactly, told in a table, drawn in a plot."""

import base64
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from metering_pipeline.settings import HOUR
from metering_pipeline.transform.lateness import arrival_delays, lateness, later_than, plot
from tests.scenarios.conftest import Pipeline

LANDED = datetime(2026, 1, 10, 5, tzinfo=UTC)
DELAYS = [0] * 997 + [5, 72, 100]
"""In hours; the lookback is 72."""


@pytest.fixture
def landed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setenv("METERING_FIRST_HOUR", "2026-01-01T00")
    pipeline.set_clock(LANDED + 2 * HOUR)
    return pipeline


def materialize() -> dict[str, Any]:
    result = dg.materialize([lateness])
    [materialization] = result.asset_materializations_for_node("rollups__lateness")
    return {name: value.value for name, value in materialization.metadata.items()}


def test_the_lookback_can_be_chosen_by_it(landed: Pipeline) -> None:
    landed.drop(
        LANDED,
        "a.ndjson",
        [
            {
                "tenant_id": "acme",
                "event_type": "api|request",
                "occurred_at": (LANDED + timedelta(minutes=30) - delay * HOUR).isoformat(),
                "correlation_id": f"{number}",
            }
            for number, delay in enumerate(DELAYS)
        ],
    )
    landed.run(LANDED)
    found = landed.rows("select delay_hours, event_count from rollups.arrival_delays order by 1")
    assert found == [(0, 997), (5, 1), (72, 1), (100, 1)]
    [row] = landed.rows("select * from rollups.lateness")
    assert row == ("api|request", 1000, 0, 0, 72, 100, 1, Decimal("0.001"))

    shown = materialize()
    assert shown["events"] == 1000
    assert shown["events later than the lookback"] == 1
    assert shown["share later than the lookback"] == "0.1000%"
    last_line = shown["by event type"].splitlines()[-1]
    assert last_line == r"| api\|request | 1,000 | 0 | 0 | 72 | 100 | 1 | 0.1000% |"
    picture = shown["how late usage lands"].split("base64,")[1].removesuffix(")")
    assert base64.b64decode(picture).startswith(b"\x89PNG")

    shares = later_than(arrival_delays(landed.database))["api|request"]
    assert (shares * 1000).round(6).to_dict() == {-1: 1000, 0: 3, 5: 2, 72: 1, 100: 0}


def test_without_events_there_is_nothing_to_draw(landed: Pipeline) -> None:
    assert landed.rows("select * from rollups.lateness") == []
    shown = materialize()
    assert shown["events"] == 0
    assert "how late usage lands" not in shown


def test_a_type_that_ends_early_stays_at_zero() -> None:
    delays = pd.DataFrame(
        [("a", 0, 3), ("a", 1, 1), ("b", -1, 1), ("b", 9, 1)],
        columns=["event_type", "delay_hours", "event_count"],
    )
    shares = later_than(delays)
    assert shares["a"].to_dict() == {-2: 1, -1: 1, 0: 0.25, 1: 0, 9: 0}
    assert shares["b"].to_dict() == {-2: 1, -1: 0.5, 0: 0.5, 1: 0.5, 9: 0}


def test_events_that_all_come_at_once_are_drawn_too() -> None:
    delays = pd.DataFrame([("a", 0, 7)], columns=["event_type", "delay_hours", "event_count"])
    assert plot(delays, 72).startswith(b"\x89PNG")
