"""Real requests to two LLM services, each delivered twice by a retrying producer, out of order, become
invoices; and what happens when an event is removed or doubled behind the pipeline's back."""

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import Pipeline, Worlds, read_csv

LANDING_HOURS = [datetime(2023, 11, 16, hour, tzinfo=UTC) for hour in (19, 20, 21)]
BILLING_DATE = date(2023, 12, 4)

# Control totals, counted from the files: requests, context tokens, generated tokens.
CONTROL_TOTALS = {
    "code": (8_819, 18_059_974, 245_896),
    "conv": (19_366, 22_361_870, 4_088_665),
}
PRICES = {
    "requests": Decimal("0.0004"),
    "context_tokens": Decimal("0.0000025"),
    "generated_tokens": Decimal("0.00001"),
}


def events_of(tenant: str, path: Path) -> list[dict[str, Any]]:
    return [
        {
            "tenant_id": tenant,
            "event_type": "llm.request",
            "occurred_at": row["TIMESTAMP"].replace(" ", "T") + "Z",
            "correlation_id": f"{tenant}-{number:06d}",
            "properties": {
                "context_tokens": int(row["ContextTokens"]),
                "generated_tokens": int(row["GeneratedTokens"]),
            },
        }
        for number, row in enumerate(read_csv(path), start=1)
    ]


def metric(name: str, aggregation: str, value_property: str) -> dict[str, str]:
    return {
        "metric": name,
        "event_type": "llm.request",
        "aggregation": aggregation,
        "value_property": value_property,
        "dimensions": "[]",
        "unit": name,
        "filter": "{}",
        "description": name,
    }


def publish_trace_catalog(pipeline: Pipeline) -> None:
    charges = [
        {
            "charge_id": f"llm-{name}",
            "version": "1",
            "plan_id": "llm",
            "component": "usage",
            "metric": name,
            "dimension_route": "{}",
            "charge_model": "per_unit",
            "timing": "arrears",
            "description": name,
            "effective_from": "2023-01-01",
        }
        for name in PRICES
    ]
    pipeline.publish_catalog(
        metrics=[
            metric("requests", "count", ""),
            metric("context_tokens", "sum", "context_tokens"),
            metric("generated_tokens", "sum", "generated_tokens"),
        ],
        plans=[
            {
                "plan_id": "llm",
                "name": "LLM",
                "currency": "USD",
                "billing_interval": "month",
                "minimum_document_amount": "0",
            }
        ],
        charges=charges,
        charge_tiers=[
            {
                "charge_id": f"llm-{name}",
                "version": "1",
                "tier": "1",
                "up_to": "",
                "unit_amount": str(price),
                "flat_amount": "0",
            }
            for name, price in PRICES.items()
        ],
        tenants=[
            {"tenant_id": tenant, "name": tenant, "legal_entity": "us", "billable": "true"}
            for tenant in CONTROL_TOTALS
        ],
        subscriptions=[
            {
                "subscription_id": f"sub-{tenant}",
                "version": "1",
                "tenant_id": tenant,
                "plan_id": "llm",
                "time_zone": "UTC",
                "anchor_date": "2023-11-01",
                "anchor_time": "00:00",
                "started_at": "2023-11-01T00:00:00Z",
                "ended_at": "2023-12-01T00:00:00Z",
                "recorded_at": "2023-10-01T00:00:00Z",
                "recorded_by": "sales",
            }
            for tenant in CONTROL_TOTALS
        ],
        tax_rates=[],
    )


@pytest.fixture
def traces(
    pipeline: Pipeline,
    worlds: Worlds,
    shared_data: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Pipeline:
    """Both services' requests, landed twice over three hours, rolled up and drafted."""
    monkeypatch.setenv("METERING_FIRST_HOUR", "2023-11-01T00")
    pipeline.set_clock(LANDING_HOURS[-1] + timedelta(hours=2))
    worlds("traces", lambda: land_twice(pipeline, shared_data))
    return pipeline


def land_twice(pipeline: Pipeline, shared_data: Callable[[str], Path]) -> None:
    publish_trace_catalog(pipeline)
    deliveries = [
        event
        for tenant in CONTROL_TOTALS
        for event in events_of(tenant, shared_data(f"AzureLLMInferenceTrace_{tenant}.csv"))
    ] * 2
    random.Random(7).shuffle(deliveries)
    third = len(deliveries) // 3 + 1
    for number, hour in enumerate(LANDING_HOURS):
        pipeline.drop(hour, "deliveries.ndjson", deliveries[number * third : (number + 1) * third])
    pipeline.run(LANDING_HOURS[0], LANDING_HOURS[-1])


def totals(pipeline: Pipeline) -> dict[str, tuple[int, int, int]]:
    rows = pipeline.rows(
        """
        select
            tenant_id,
            sum(value_sum) filter (where metric = 'requests'),
            sum(value_sum) filter (where metric = 'context_tokens'),
            sum(value_sum) filter (where metric = 'generated_tokens')
        from rollups.usage_hourly
        group by tenant_id
        """
    )
    return {tenant: (int(one), int(two), int(three)) for tenant, one, two, three in rows}


def expected_total(tenant: str) -> Decimal:
    cent = Decimal("0.01")
    amounts = zip(PRICES.values(), CONTROL_TOTALS[tenant], strict=True)
    return sum(
        ((price * count).quantize(cent, ROUND_HALF_UP) for price, count in amounts), Decimal(0)
    )


def invoices(pipeline: Pipeline) -> dict[str, Decimal]:
    return dict(pipeline.rows("select tenant_id, total from invoices.issued_invoices"))


def holds(pipeline: Pipeline) -> dict[str, str]:
    return dict(
        pipeline.rows(
            "select tenant_id, detail from invoices.held_invoices where reason = 'law_failed'"
        )
    )


def test_control_totals_become_invoices(traces: Pipeline) -> None:
    assert totals(traces) == CONTROL_TOTALS
    requests = sum(total[0] for total in CONTROL_TOTALS.values())
    assert traces.rows("select count(*) from ledger.usage_events") == [(requests,)]
    assert traces.rows("select count(*) from ledger.duplicates") == [(requests,)]
    traces.issue(BILLING_DATE)
    assert holds(traces) == {}
    assert invoices(traces) == {tenant: expected_total(tenant) for tenant in CONTROL_TOTALS}
    assert traces.red_laws() == set()
    assert set(traces.rows("select distinct law from reconciliation.law_results")) == {
        ("L1",), ("L2",), ("L3",), ("L4",), ("L5",),
    }  # fmt: skip


def test_running_again_changes_no_row(traces: Pipeline) -> None:
    before = snapshot(traces)
    traces.run(LANDING_HOURS[2])
    traces.run(LANDING_HOURS[0])
    traces.run(LANDING_HOURS[0], LANDING_HOURS[2])
    assert snapshot(traces) == before


def snapshot(pipeline: Pipeline) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the stages' tables, the clock columns apart."""
    queries = {
        "landing.usage_events": "select * from landing.usage_events order by file_id, line_number",
        "landing.files": "select * from landing.files order by file_id",
        "ledger.usage_events": "select fingerprint, payload_hash, file_id, line_number, landed_hour"
        " from ledger.usage_events order by fingerprint",
        "ledger.duplicates": "select fingerprint, file_id, line_number from ledger.duplicates order by 2, 3",
        "ledger.pending": "select * from ledger.pending",
        "contributions": "select * from rollups.usage_contributions order by 1, 2, 3, 4, 5",
        "hourly": "select * from rollups.usage_hourly order by 1, 2, 3, 4",
        "daily": "select * from rollups.usage_daily order by 1, 2, 3, 4",
        "lines": "select * from rating.rated_lines order by 1, 3, 5, 7",
        "drafts": "select * from invoices.draft_invoice_lines order by 1, 2",
    }
    return {name: pipeline.rows(query) for name, query in queries.items()}


def test_a_removed_event_holds_its_tenant_and_nobody_else(traces: Pipeline) -> None:
    removed = traces.execute("delete from ledger.usage_events where correlation_id = 'code-000001'")
    assert removed == 1
    traces.issue(BILLING_DATE)
    assert set(holds(traces)) == {"code"}
    assert invoices(traces) == {"conv": expected_total("conv")}
    assert {("L2", "code"), ("L3", "code")} <= traces.red_laws()


def test_a_doubled_event_holds_its_tenant_and_nobody_else(traces: Pipeline) -> None:
    doubled = traces.execute(
        """
        insert into ledger.usage_events
        select
            tenant_id, event_type, occurred_at, correlation_id || '-again', gen_random_uuid(), payload_hash,
            quantity, properties, landed_hour, file_id, line_number, recorded_at
        from ledger.usage_events
        where correlation_id = 'conv-000001'
        """
    )
    assert doubled == 1
    traces.issue(BILLING_DATE)
    assert set(holds(traces)) == {"conv"}
    assert invoices(traces) == {"code": expected_total("code")}
    assert {("L2", "conv"), ("L3", "conv")} <= traces.red_laws()
