"""What each aggregation makes of events: against the page that explains it, and against plain Python where
periods cut hours, members leave, and events are voided or late."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from metering_pipeline.settings import PROJECT_ROOT
from tests.scenarios import oracle
from tests.scenarios.conftest import Pipeline

LANDED = datetime(2026, 3, 5, 10, tzinfo=UTC)
KATHMANDU = ZoneInfo("Asia/Kathmandu")
Event = dict[str, Any]


@dataclass(frozen=True)
class Metered:
    """A metric of an event type of its own, and a subscription whose periods it is rated for."""

    name: str
    aggregation: str
    start: datetime
    end: datetime | None
    anchor: date
    time_zone: str = "UTC"
    percentile: str = ""
    filter: str = "{}"
    event_type: str = ""
    tenant: str = ""

    @property
    def tenant_id(self) -> str:
        return self.tenant or self.name

    @property
    def reads(self) -> str:
        return self.event_type or self.name


def publish(pipeline: Pipeline, metered: Sequence[Metered], value_property: str = "value") -> None:
    """One plan with a charge for each metric, and a subscription for each tenant."""
    subscribed = {each.tenant_id: each for each in metered}
    pipeline.publish_catalog(
        metrics=[
            {
                "metric": each.name,
                "event_type": each.reads,
                "aggregation": each.aggregation,
                "value_property": "" if each.aggregation == "count" else value_property,
                "percentile": each.percentile,
                "dimensions": "[]",
                "unit": "units",
                "filter": each.filter,
                "description": each.name,
            }
            for each in metered
        ],
        plans=[
            {
                "plan_id": "all",
                "name": "All",
                "currency": "USD",
                "billing_interval": "month",
                "minimum_document_amount": "0",
            }
        ],
        charges=[
            {
                "charge_id": each.name,
                "version": "1",
                "plan_id": "all",
                "component": "usage",
                "metric": each.name,
                "dimension_route": "{}",
                "charge_model": "per_unit",
                "timing": "arrears",
                "description": each.name,
                "effective_from": "2000-01-01",
            }
            for each in metered
        ],
        charge_tiers=[
            {
                "charge_id": each.name,
                "version": "1",
                "tier": "1",
                "up_to": "",
                "unit_amount": "1",
                "flat_amount": "0",
            }
            for each in metered
        ],
        tenants=[
            {"tenant_id": tenant, "name": tenant, "legal_entity": "us", "billable": "true"}
            for tenant in subscribed
        ],
        subscriptions=[
            {
                "subscription_id": f"sub-{tenant}",
                "version": "1",
                "tenant_id": tenant,
                "plan_id": "all",
                "time_zone": each.time_zone,
                "anchor_date": each.anchor.isoformat(),
                "anchor_time": "00:00",
                "started_at": each.start.isoformat(),
                "ended_at": each.end.isoformat() if each.end else "",
                "recorded_at": "2026-01-01T00:00:00Z",
                "recorded_by": "sales",
            }
            for tenant, each in subscribed.items()
        ],
        tax_rates=[],
    )


def quantities(pipeline: Pipeline) -> dict[tuple[str, datetime], Decimal]:
    rows = pipeline.rows("select charge_id, slice_start, quantity from rating.rated_lines")
    return {(charge, start): quantity for charge, start, quantity in rows}


# The page


PAGE = (PROJECT_ROOT / "docs" / "metrics.md").read_text()
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)


def page_example() -> dict[Metered, Decimal]:
    """The metrics of the example in docs/metrics.md, and the quantities that it promises."""
    rows = re.findall(r"^\| `(\w+)`( \d+)? \| (-?\d+) \|$", PAGE, re.MULTILINE)
    return {
        Metered(
            name=(aggregation + percentile).replace(" ", "-"),
            aggregation=aggregation,
            percentile=percentile.strip(),
            start=FEBRUARY,
            end=datetime(2026, 3, 1, tzinfo=UTC),
            anchor=FEBRUARY.date(),
            event_type="session.seen",
            tenant="acme",
        ): Decimal(quantity)
        for aggregation, percentile, quantity in rows
    }


def test_the_page_is_right(pipeline: Pipeline) -> None:
    pipeline.set_clock(datetime(2026, 8, 1, 3, tzinfo=UTC))
    promised = page_example()
    publish(pipeline, list(promised))
    hour = datetime(2026, 8, 1, 1, tzinfo=UTC)
    (lines,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    pipeline.drop(hour, "page.ndjson", map(json.loads, lines.splitlines()))
    pipeline.run(hour)
    pipeline.run_job("late_arrivals")
    rated = quantities(pipeline)
    assert len(promised) == 9
    for each, quantity in promised.items():
        assert rated[each.name, FEBRUARY] == quantity, each.name
    assert pipeline.red_laws() == set()


# Plain Python

METERED = [
    Metered(
        name=name,
        aggregation=aggregation,
        percentile=percentile,
        start=datetime(2026, 1, 1, tzinfo=KATHMANDU),
        end=None,
        anchor=date(2026, 1, 1),
        time_zone="Asia/Kathmandu",
        event_type="session.seen",
        tenant="acme",
    )
    for name, aggregation, percentile in (
        ("members", "unique_count", ""),
        ("level", "weighted_sum", ""),
        ("median", "percentile", "50"),
        ("p99", "percentile", "99"),
        ("p100", "percentile", "100"),
    )
]
EDGE = datetime(2026, 2, 1, tzinfo=KATHMANDU).astimezone(UTC)
"""18:15 UTC: it cuts an hour."""


def sessions(seed: int) -> list[Event]:
    """Three hundred events of February's beginning and January's end, most of them near the edge."""
    chance = random.Random(seed)
    events = []
    for number in range(300):
        distance = chance.choice([3_600, 3_600, 86_400, 864_000]) * 1_000_000
        occurred_at = EDGE + timedelta(microseconds=chance.randint(-distance, distance))
        if number < 4:
            occurred_at = EDGE + timedelta(microseconds=(-1, 0, 1, 0)[number])
        events.append(
            {
                "tenant_id": "acme",
                "event_type": "session.seen",
                "occurred_at": occurred_at.isoformat(),
                "correlation_id": str(number),
                "properties": {
                    "value": str(Decimal(chance.randint(-20, 40)) / chance.choice([1, 2, 10])),
                    "operation": chance.choice(["add", "add", "remove"]),
                },
            }
        )
    return events


@pytest.fixture
def rated(pipeline: Pipeline) -> list[Event]:
    """Sessions landed in three hours, some of them voided hours later; the events that stand."""
    publish(pipeline, METERED)
    events = sessions(seed=11)
    voided = events[5:300:17]
    for number, hour in enumerate(LANDED + timedelta(hours=hour) for hour in range(3)):
        pipeline.set_clock(hour + timedelta(hours=2))
        voids = [event | {"void": True} for event in voided] if number == 2 else []
        pipeline.drop(hour, "sessions.ndjson", [*events[number::3], *events[:30], *voids])
        pipeline.run(hour)
    pipeline.run_job("late_arrivals")
    return [event for event in events if event not in voided]


DAMAGES = {
    "update rollups.unique_value_contributions set event_count = event_count + 1": {"L3"},
    "delete from rollups.unique_value_contributions": {"L3"},
    "update rollups.unique_value_contributions set removed = not removed": {"L3"},
    "update rollups.usage_contributions set value_moment = value_moment + 1": {"L3"},
    "update rollups.unique_values_hourly set event_count = event_count + 1": {"L3", "L4"},
    "update rollups.usage_hourly set value_moment = value_moment + 1": {"L3"},
    "update rating.rated_lines set quantity = quantity + 1": {"L4"},
    "update rating.period_usage_daily set value_moment = value_moment + 1e20": {"L4"},
    "delete from rollups.unique_values_hourly where metric = 'members'": {"L3", "L4"},
    "update rollups.unique_values_hourly set value = '-9' || value where value !~ '-'": {
        "L3",
        "L4",
    },
}


def damage_is_found(pipeline: Pipeline) -> None:
    """Each damage is seen by its laws, and undone again."""
    from metering_pipeline.reconciliation.laws import evaluate

    now = LANDED + timedelta(days=1)
    for damage, laws in DAMAGES.items():
        with pipeline.database.connect() as connection:
            assert connection.execute(damage.encode()).rowcount > 0
            red = {
                result.law
                for law in ("L3", "L4")
                for result in evaluate(connection, law, datetime(2025, 12, 1, tzinfo=UTC), now, now)
                if not result.passed
            }
            connection.rollback()
        assert red == laws, damage


def test_periods_that_cut_hours_are_exact_and_proved(
    pipeline: Pipeline, rated: list[Event]
) -> None:
    found = quantities(pipeline)
    records = [oracle.Record(LANDED, "", line, event) for line, event in enumerate(rated)]
    ledger = oracle.Ledger(events=records, duplicates=[], conflicts=[], voids=[])
    metrics = [
        oracle.Metric(
            each.name,
            each.event_type,
            each.aggregation,
            "value",
            percentile=Decimal(each.percentile) if each.percentile else None,
        )
        for each in METERED
    ]
    start, end = (datetime(2026, month, 1, tzinfo=KATHMANDU).astimezone(UTC) for month in (1, 3))
    for first, last in ((start, EDGE), (EDGE, end)):
        for (_, name, _), quantity in oracle.quantities(ledger, metrics, first, last).items():
            assert found[name, first] == quantity, (name, first)
    assert pipeline.red_laws() == set()
    damage_is_found(pipeline)
