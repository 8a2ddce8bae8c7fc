"""Billing periods and the attribution of usage: edges in every zone, at any instant."""

import json
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import pytest

from metering_pipeline.settings import PROJECT_ROOT
from tests.dbt.company import Company, Row, instant

VECTORS = PROJECT_ROOT.parent / "shared" / "vectors" / "billing_periods.json"

Rate = Callable[[], None]


@pytest.fixture
def metered(company: Company) -> Company:
    """One plan that charges requests."""
    company.add_plan("plan")
    company.add_charge("requests", "plan", [(None, 1, 0)], model="per_unit")
    return company


def starts(company: Company, tenant: str) -> list[datetime]:
    """The periods' starts and the last one's end; they follow each other without a gap."""
    periods = company.rows(
        "select * from rating.billing_periods where tenant_id = %s order by period_start", tenant
    )
    for earlier, later in pairwise(periods):
        assert earlier["period_end"] == later["period_start"]
    return [row["period_start"] for row in periods] + [periods[-1]["period_end"]]


def instants(*texts: str) -> list[datetime]:
    return [instant(text) for text in texts]


def test_boundaries_are_counted_from_the_anchor(metered: Company, rate: Rate) -> None:
    metered.land_until("2026-05-02T00:00:00Z")
    metered.subscribe("month-end", "plan", start="2026-01-31T00:00:00Z", anchor="2026-01-31")
    metered.subscribe("short-first", "plan", anchor="2026-01-15", end="2026-03-01T12:00:00Z")
    metered.subscribe("earlier-anchor", "plan", anchor="2020-02-29", end="2026-03-29T00:00:00Z")
    metered.subscribe("later-anchor", "plan", anchor="2027-08-20", end="2026-02-20T00:00:00Z")
    metered.subscribe(
        "mid-hour", "plan", start="2026-01-12T10:20:30.5Z", end="2026-02-03T04:05:06Z"
    )
    metered.subscribe(
        "afternoon", "plan", anchor="2026-01-31", anchor_time="15:00", end="2026-03-31T15:00:00Z"
    )
    rate()

    assert starts(metered, "month-end") == instants(
        "2026-01-31T00:00:00Z",
        "2026-02-28T00:00:00Z",
        "2026-03-31T00:00:00Z",
        "2026-04-30T00:00:00Z",
        "2026-05-31T00:00:00Z",
    )
    assert starts(metered, "short-first") == instants(
        "2026-01-01T00:00:00Z",
        "2026-01-15T00:00:00Z",
        "2026-02-15T00:00:00Z",
        "2026-03-01T12:00:00Z",
    )
    assert starts(metered, "earlier-anchor") == instants(
        "2026-01-01T00:00:00Z",
        "2026-01-29T00:00:00Z",
        "2026-02-28T00:00:00Z",
        "2026-03-29T00:00:00Z",
    )
    assert starts(metered, "later-anchor") == instants(
        "2026-01-01T00:00:00Z", "2026-01-20T00:00:00Z", "2026-02-20T00:00:00Z"
    )
    assert starts(metered, "mid-hour") == instants(
        "2026-01-12T10:20:30.5Z", "2026-02-01T00:00:00Z", "2026-02-03T04:05:06Z"
    )
    assert starts(metered, "afternoon") == instants(
        "2026-01-01T00:00:00Z",
        "2026-01-31T15:00:00Z",
        "2026-02-28T15:00:00Z",
        "2026-03-31T15:00:00Z",
    )


def test_boundaries_are_local_midnights(metered: Company, rate: Rate) -> None:
    """A wall time keeps its place over clock changes; a repeated midnight is its first occurrence."""
    metered.land_until("2026-12-02T00:00:00Z")
    for tenant, zone, start, end in (
        ("berlin", "Europe/Berlin", "2026-03-01T00:00:00+01:00", "2026-05-01T00:00:00+02:00"),
        ("kathmandu", "Asia/Kathmandu", "2026-01-01T00:00:00+05:45", "2026-02-01T00:00:00+05:45"),
        # Its clocks change by half an hour, on 5 April and 4 October 2026.
        (
            "lord-howe",
            "Australia/Lord_Howe",
            "2026-03-01T00:00:00+11:00",
            "2026-05-01T00:00:00+10:30",
        ),
        # Its clocks go back from 1:00 to 0:00 on 1 November 2026.
        ("havana", "America/Havana", "2026-10-01T00:00:00-04:00", "2026-12-01T00:00:00-05:00"),
    ):
        metered.subscribe(tenant, "plan", zone=zone, start=start, end=end)
    rate()

    assert starts(metered, "berlin") == instants(
        "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00", "2026-05-01T00:00:00+02:00"
    )
    assert starts(metered, "kathmandu") == instants("2025-12-31T18:15:00Z", "2026-01-31T18:15:00Z")
    assert starts(metered, "lord-howe") == instants(
        "2026-03-01T00:00:00+11:00", "2026-04-01T00:00:00+11:00", "2026-05-01T00:00:00+10:30"
    )
    assert starts(metered, "havana") == instants(
        "2026-10-01T04:00:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z"
    )


def test_period_vectors(metered: Company, rate: Rate) -> None:
    """Other billing systems' suites put the boundaries of monthly periods where we do."""
    if not VECTORS.exists():
        pytest.skip(f"needs {VECTORS}, which is not there")
    metered.land_until("2027-01-01T00:00:00Z")
    cases: dict[str, Row] = {}
    for case in json.loads(VECTORS.read_text()):
        inputs = case["inputs"]
        if (
            case["portability"] != "portable"
            or inputs["op"] != "period_of_event"
            or (inputs["interval"], inputs["interval_count"]) != ("month", "1")
        ):
            continue
        tenant = f"t-{len(cases)}"
        cases[tenant] = case
        zone = inputs["timezone"]
        local = metered.rows(
            "select (%s::timestamptz at time zone %s)::text as wall", inputs["anchor"], zone
        )[0]["wall"]
        metered.subscribe(
            tenant,
            "plan",
            zone=zone,
            start=instant(inputs.get("subscription_start", inputs["anchor"])).isoformat(),
            anchor=local[:10],
            anchor_time=local[11:16],
        )
    assert len(cases) > 10
    rate()

    for tenant, case in cases.items():
        period = metered.rows(
            "select period_start, period_end from rating.billing_periods "
            "where tenant_id = %s and tstzrange(period_start, period_end) @> %s::timestamptz",
            tenant,
            case["inputs"]["event"],
        )
        assert len(period) == 1, case["id"]
        for side, expected in case["expected"].items():
            assert period[0][side] == instant(expected), case["id"]


def test_an_event_on_a_boundary_opens_the_new_period(metered: Company, rate: Rate) -> None:
    """Kathmandu's midnight cuts an hour of UTC: its parts come from the ledger, to the microsecond."""
    metered.land_until("2026-02-02T00:00:00Z")
    metered.subscribe("himal", "plan", zone="Asia/Kathmandu", start="2026-01-01T00:00:00+05:45")
    metered.record_event("himal", "2026-01-15T12:00:00Z")
    metered.record_event("himal", "2026-01-31T18:14:59.999999Z")
    metered.record_event("himal", "2026-01-31T18:15:00Z")
    metered.record_event("himal", "2026-01-31T18:59:00Z")
    metered.record_event("himal", "2025-12-31T18:14:00Z")
    rate()

    lines = metered.rows(
        "select slice_start, quantity from rating.rated_lines order by slice_start"
    )
    assert [line["quantity"] for line in lines] == [2, 2]
    edges = metered.rows(
        "select piece_start, piece_end, event_count from rating.edge_usage order by 1"
    )
    assert [(row["piece_start"], row["event_count"]) for row in edges] == [
        (instant("2025-12-31T18:00:00Z"), 1),
        (instant("2026-01-31T18:00:00Z"), 1),
        (instant("2026-01-31T18:15:00Z"), 2),
    ]
    assert [row["reason"] for row in metered.rows("select * from rating.unrated_usage")] == [
        "outside_subscription"
    ]

    # More usage in the cut hour arrives: the parts are read again.
    metered.record_event("himal", "2026-01-31T18:10:00Z")
    rate()
    lines = metered.rows("select quantity from rating.rated_lines order by slice_start")
    assert [line["quantity"] for line in lines] == [3, 2]


def test_usage_goes_to_the_slice_that_holds_it(company: Company, rate: Rate) -> None:
    """By instant, metric and dimension route; what fits nowhere is reported with its reason."""
    company.land_until("2026-02-02T00:00:00Z")
    company.add_metric("tokens", dimensions='["model"]')
    company.add_metric("storage")
    company.add_plan("plan")
    for model in ("small", "large"):
        company.add_charge(
            f"tokens-{model}", "plan", [(None, 1, 0)], metric="tokens", model="per_unit",
            route=json.dumps({"model": model}),
        )  # fmt: skip
    company.add_charge(
        "storage", "plan", [(None, 1, 0)], metric="storage", model="per_unit", since="2026-02-01"
    )
    company.subscribe("acme", "plan", start="2026-01-10T00:00:00Z")
    company.use("acme", "2026-01-12T00:00:00Z", 5, metric="tokens", model="small")
    company.use("acme", "2026-01-12T01:00:00Z", 7, metric="tokens", model="large")
    company.use("acme", "2026-02-01T00:00:00Z", 11, metric="tokens", model="large")
    company.use("acme", "2026-01-12T00:00:00Z", 1, metric="tokens", model="huge")
    company.use("acme", "2026-01-12T00:00:00Z", 1)
    company.use("acme", "2026-01-09T23:00:00Z", 1, metric="tokens", model="small")
    company.use("acme", "2026-01-12T00:00:00Z", 2, metric="storage")
    company.use("stranger", "2026-01-12T00:00:00Z", 1)
    company.connection.execute(
        "insert into rollups.unreadable_values values "
        "('2026-01-12T00:00Z', 'acme', 'tokens', '2026-01-12T00:00Z', 'api.request', "
        "'value_missing', 3, 1, 1)"
    )
    rate()

    quantities = {
        (row["charge_id"], row["slice_start"].month): row["quantity"]
        for row in company.rows("select * from rating.rated_lines")
    }
    assert quantities == {
        ("tokens-small", 1): 5,
        ("tokens-large", 1): 7,
        ("tokens-small", 2): 0,
        ("tokens-large", 2): 11,
        ("storage", 2): 0,
    }
    unrated = {
        (row["tenant_id"], row["metric"], row["reason"]): (row["holds"], row["event_count"])
        for row in company.rows("select * from rating.unrated_usage")
    }
    assert unrated == {
        ("acme", "tokens", "not_in_plan"): (False, 1),
        ("acme", "requests", "not_in_plan"): (False, 1),
        ("acme", "tokens", "outside_subscription"): (False, 1),
        ("acme", "storage", "no_price"): (True, 1),
        ("acme", "tokens", "unreadable_value"): (True, 3),
        ("stranger", "requests", "unknown_tenant"): (False, 1),
    }

    # The stranger becomes a customer, storage gets its price, the subscription began earlier.
    company.subscribe("stranger", "plan", start="2026-01-01T00:00:00Z")
    company.subscribe("acme", "plan", start="2026-01-09T00:00:00Z", version=2)
    company.catalog["charges"][-1]["effective_from"] = "2026-01-01"
    company.connection.execute("delete from rollups.unreadable_values")
    rate()
    reasons = {
        (row["tenant_id"], row["metric"], row["reason"])
        for row in company.rows("select * from rating.unrated_usage")
    }
    assert reasons == {
        ("acme", "tokens", "not_in_plan"),
        ("acme", "requests", "not_in_plan"),
        ("stranger", "requests", "not_in_plan"),
    }
    january = {
        row["charge_id"]: row["quantity"]
        for row in company.rows(
            "select * from rating.rated_lines where tenant_id = 'acme' and slice_end = '2026-02-01Z'"
        )
    }
    assert january == {"tokens-small": 6, "tokens-large": 7, "storage": 2}


def test_every_piece_lies_in_one_slice_or_is_unrated(company: Company, rate: Rate) -> None:
    """A change of plan within an hour: count and digest of the pieces are those of the usage."""
    company.land_until("2026-02-02T00:00:00Z")
    for plan in ("old", "new"):
        company.add_plan(plan)
        company.add_charge(f"{plan}-requests", plan, [(None, 1, 0)], model="per_unit")
    change = "2026-01-20T10:20:00Z"
    company.subscribe("acme", "old", end=change)
    company.subscribe("acme", "new", start=change, subscription="sub-next")
    for hour in range(24):
        for minute in (5, 20, 55):
            company.record_event("acme", f"2026-01-20T{hour:02d}:{minute:02d}:00Z")
    rate()

    assert company.amounts("charge_id") == {"old-requests": 31, "new-requests": 41}
    totals = company.rows(
        """
        select
            (select sum(event_count) from rollups.usage_hourly) as metered,
            (select sum(event_count) from rating.period_usage_daily) as attributed,
            (select count(*) from rating.unrated_usage) as unrated
        """
    )
    assert totals == [{"metered": 72, "attributed": 72, "unrated": 0}]
