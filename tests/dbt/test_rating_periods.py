"""Billing periods and the attribution of usage: edges in every zone, at any instant."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from metering_pipeline.reconciliation.independent_calendar import Calendar
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


@pytest.fixture
def make_periods(company: Company, scripts: dict[str, str]) -> Rate:
    """Publish the catalog and make the periods and slices, no more."""
    problems = f"create or replace view staging.catalog_problems as {scripts['catalog_problems']}"

    def run() -> None:
        company.load_catalog()
        for script in (problems, scripts["catalog_versions"], scripts["billing_periods"]):
            with company.connection.transaction():
                company.connection.execute(script.encode())

    return run


def starts(company: Company, tenant: str) -> list[datetime]:
    """The periods' starts and the last one's end; they follow each other without a gap."""
    periods = company.rows(
        "select * from rating.billing_periods where tenant_id = %s order by period_start", tenant
    )
    for earlier, later in pairwise(periods):
        assert earlier["period_end"] == later["period_start"]
    return [row["period_start"] for row in periods] + [periods[-1]["period_end"]]


def sell(
    company: Company, interval: str, count: int = 1, fee: tuple[str, int] | None = None
) -> str:
    """A plan of that interval with a charge for requests, and a fee with an interval of its own."""
    plan = f"{count} {interval}, {fee}"
    if all(row["plan_id"] != plan for row in company.catalog["plans"]):
        company.add_plan(plan).update(billing_interval=interval, interval_count=count)
        company.add_charge(f"{plan}: requests", plan, [(None, 1, 0)], model="per_unit")
        if fee is not None:
            company.add_fee(f"{plan}: fee", plan, "120").update(
                billing_interval=fee[0], interval_count=fee[1]
            )
    return plan


def slices(company: Company, charge: str) -> list[tuple[datetime, datetime, Any]]:
    """The charge's slices: start, end and version."""
    return [
        (row["slice_start"], row["slice_end"], row["charge_version"])
        for row in company.rows(
            "select * from rating.charge_slices where charge_id = %s order by slice_start", charge
        )
    ]


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
    """Other billing systems' suites put the boundaries of periods where we do."""
    if not VECTORS.exists():
        pytest.skip(f"needs {VECTORS}, which is not there")
    metered.land_until("2027-01-01T00:00:00Z")
    cases: dict[str, Row] = {}
    for case in json.loads(VECTORS.read_text()):
        inputs = case["inputs"]
        if case["portability"] != "portable" or inputs["op"] != "period_of_event":
            continue
        tenant = f"t-{len(cases)}"
        cases[tenant] = case
        zone = inputs["timezone"]
        local = metered.rows(
            "select (%s::timestamptz at time zone %s)::text as wall", inputs["anchor"], zone
        )[0]["wall"]
        plan = sell(metered, inputs["interval"], int(inputs["interval_count"]))
        metered.subscribe(
            tenant,
            plan,
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


INTERVALS = st.tuples(
    st.sampled_from(["day", "week", "month", "quarter", "half_year", "year"]), st.integers(1, 5)
)
ZONES = [
    *("UTC", "Asia/Kathmandu", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham"),
    *("Europe/Berlin", "America/New_York", "America/Havana", "Africa/Cairo", "Antarctica/Troll"),
    *("America/St_Johns", "America/Santiago", "Asia/Beirut", "Pacific/Apia"),
]
SUBSCRIPTIONS = st.fixed_dictionaries(
    {
        "interval": INTERVALS,
        "fee": INTERVALS,
        "zone": st.sampled_from(ZONES),
        "anchor": st.dates(datetime(2019, 1, 1).date(), datetime(2028, 12, 31).date()),  # noqa: DTZ001 - wall time
        "anchor_time": st.sampled_from([time(), time(0, 30), time(1, 30), time(2, 30), time(15)]),
        "start": st.datetimes(datetime(2025, 1, 1), datetime(2026, 6, 30)),  # noqa: DTZ001 - wall time
        "days": st.none() | st.integers(1, 700),
        "trial": st.none() | st.integers(1, 45),
    }
)


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(drawn=st.lists(SUBSCRIPTIONS, min_size=25, max_size=25))
def test_periods_tile_every_subscription(
    company: Company, make_periods: Rate, drawn: list[dict[str, Any]]
) -> None:
    """Each boundary is that of a second calendar, from the start to the end, in one go or in steps."""
    company.catalog["plans"].clear()
    for table in ("charges", "charge_tiers", "subscriptions"):
        company.catalog[table].clear()
    expected = {}
    for number, each in enumerate(drawn):
        start = each["start"].replace(tzinfo=UTC)
        end = start + timedelta(days=each["days"]) if each["days"] else None
        trial = start + timedelta(days=each["trial"], minutes=7) if each["trial"] else None
        trial = min(trial, end) if trial and end else trial
        plan = sell(company, *each["interval"], fee=each["fee"])
        company.subscribe(
            f"t-{number}",
            plan,
            start=start.isoformat(),
            end=end and end.isoformat(),
            zone=each["zone"],
            anchor=each["anchor"].isoformat(),
            anchor_time=each["anchor_time"].isoformat()[:5],
        )["trial_ends_at"] = trial and trial.isoformat()
        anchor = datetime.combine(each["anchor"], each["anchor_time"])
        for interval in (each["interval"], each["fee"]):
            calendar = Calendar(ZoneInfo(each["zone"]), anchor, *interval)
            expected[f"sub-t-{number}", *interval] = (calendar, start, end, trial)

    latest = max(
        [row["landed_hour"] for row in company.rows("select landed_hour from landing.hours")]
        + [datetime(2026, 3, 1, tzinfo=UTC)]
    )
    for days in (20, 40):
        horizon = latest + timedelta(days=days, hours=1)
        company.land_until(horizon.isoformat())
        make_periods()
        found: dict[Any, list[Row]] = {key: [] for key in expected}
        for row in company.rows("select * from rating.billing_periods order by period_start"):
            key = (row["subscription_id"], row["billing_interval"], row["interval_count"])
            found[key].append(row)
        for key, (calendar, start, end, trial) in expected.items():
            wanted = calendar.periods(start, min(end or horizon, horizon))
            if wanted and wanted[-1][1] != end:
                _, full_end = calendar.period_around(wanted[-1][0])
                wanted[-1] = (wanted[-1][0], min(full_end, end or full_end))
            assert [(row["period_start"], row["period_end"]) for row in found[key]] == wanted, key
            for row in found[key]:
                charged_from = max(row["period_start"], trial or start)
                assert row["charged_from"] == min(charged_from, row["period_end"]), key
                around = (row["full_period_start"], row["full_period_end"])
                assert around == calendar.period_around(row["period_start"]), key

    uncovered = company.rows(
        """
        select * from rating.billing_periods as periods
        inner join catalog.charges on periods.plan_id = charges.plan_id
            and periods.billing_interval = coalesce(charges.billing_interval, periods.billing_interval)
            and periods.interval_count = coalesce(charges.interval_count, periods.interval_count)
            and (charges.component = 'flat' or periods.plan_id like
                periods.interval_count || ' ' || periods.billing_interval || ',%')
        where charged_from < period_end and not exists (
            select 1 from rating.charge_slices as slices
            where slices.charge_id = charges.charge_id and slices.slice_start = charged_from
                and slices.slice_end = period_end
                and slices.subscription_id = periods.subscription_id
                and slices.charged_days between 0 and slices.full_days)
        """.replace("%", "%%")
    )
    assert uncovered == []


def test_a_run_before_the_first_landed_hour_takes_no_period_away(
    metered: Company, make_periods: Rate
) -> None:
    metered.subscribe("early", "plan", start="2026-01-01T00:00:00Z")
    make_periods()
    assert metered.rows("select * from rating.billing_periods") == []
    metered.land_until("2026-02-02T00:00:00Z")
    make_periods()
    assert starts(metered, "early")[:2] == instants("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")


def test_wall_times_that_repeat_or_are_left_out(company: Company, rate: Rate) -> None:
    """One that repeats is its first occurrence, one left out moves with the clock: by any amount."""
    company.land_until("2026-12-02T00:00:00Z")
    plan = sell(company, "day")
    for tenant, zone, anchor_time, start, end in (
        ("troll", "Antarctica/Troll", "01:30", "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z"),
        ("berlin", "Europe/Berlin", "02:30", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z"),
        ("lord", "Australia/Lord_Howe", "01:45", "2026-04-03T20:00:00Z", "2026-04-05T20:00:00Z"),
        ("cairo", "Africa/Cairo", "00:00", "2026-04-23T00:00:00Z", "2026-04-25T00:00:00Z"),
    ):
        company.subscribe(tenant, plan, zone=zone, anchor_time=anchor_time, start=start, end=end)
    rate()
    assert starts(company, "troll")[1:-1] == instants(
        "2026-10-25T01:30:00+02:00", "2026-10-26T01:30:00+00:00"
    )
    assert starts(company, "berlin")[1:-1] == instants(
        "2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00"
    )
    assert starts(company, "lord")[1:-1] == instants(
        "2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"
    )
    assert starts(company, "cairo")[1:-1] == instants(
        "2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"
    )


def test_a_plan_changed_at_10_37_in_kathmandu(company: Company, rate: Rate) -> None:
    """The day of the change is the new plan's: charged once, and no hour's usage is lost."""
    company.land_until("2026-02-02T00:00:00Z")
    for plan in ("small", "large"):
        company.add_plan(plan)
        company.add_fee(f"{plan}-fee", plan, "31.00")
        company.add_charge(f"{plan}-requests", plan, [(None, 1, 0)], model="per_unit")
    change = "2026-01-20T10:37:00+05:45"
    zone = {"zone": "Asia/Kathmandu", "start": "2026-01-01T00:00:00+05:45"}
    company.subscribe("himal", "small", **zone)
    company.record_event("himal", "2026-01-20T10:36:59.999999+05:45")
    company.record_event("himal", change)
    rate()
    company.issue("2026-01-05")

    # Recorded three weeks after the fee was billed.
    company.subscribe("himal", "small", **zone, end=change, version=2)
    company.subscribe(
        "himal", "large", zone="Asia/Kathmandu", start=change,
        end="2026-02-01T00:00:00+05:45", subscription="sub-next",
    )  # fmt: skip
    rate()
    due = {(line["charge_id"], line["kind"]): line["amount"] for line in company.draft_lines()}
    assert due == {
        ("small-fee", "adjustment"): Decimal("-12.00"),
        ("large-fee", "regular"): Decimal("12.00"),
        ("small-requests", "regular"): Decimal(1),
        ("large-requests", "regular"): Decimal(1),
    }
    days = company.rows(
        "select sum(charged_days) as days from rating.charge_slices where component = 'flat'"
    )
    assert days == [{"days": 31}]


@pytest.mark.parametrize(("plan", "charge"), [("year", "month"), ("month", "year")])
def test_a_charge_with_an_interval_of_its_own(
    company: Company, rate: Rate, plan: str, charge: str
) -> None:
    company.land_until("2026-04-10T00:00:00Z")
    name = sell(company, plan, fee=(charge, 1))
    company.subscribe("acme", name, start="2026-02-10T00:00:00Z", anchor="2026-01-15")
    company.use("acme", "2026-02-20T00:00:00Z", count=3)
    company.use("acme", "2026-03-20T00:00:00Z", count=4)
    rate()
    monthly = instants(
        "2026-02-10T00:00Z", "2026-02-15T00:00Z", "2026-03-15T00:00Z", "2026-04-15T00:00Z"
    )
    yearly = instants("2026-02-10T00:00Z", "2027-01-15T00:00Z")
    edges = {"month": list(pairwise(monthly)), "year": list(pairwise(yearly))}
    assert [each[:2] for each in slices(company, f"{name}: requests")] == edges[plan]
    assert [each[:2] for each in slices(company, f"{name}: fee")] == edges[charge]
    quantities = company.rows(
        "select quantity from rating.rated_lines where component = 'usage' order by slice_start"
    )
    used = [7] if plan == "year" else [0, 3, 4]
    assert [row["quantity"] for row in quantities] == used
    assert company.rows("select * from rating.unrated_usage") == []


def test_nothing_is_charged_in_a_trial(company: Company, rate: Rate) -> None:
    company.land_until("2026-02-20T00:00:00Z")
    company.add_plan("plan")
    company.add_charge("requests", "plan", [(None, 1, 0)], model="per_unit")
    company.add_fee("fee", "plan", "28.00")
    subscription = company.subscribe("acme", "plan", end="2026-03-01T00:00:00Z")
    subscription["trial_ends_at"] = "2026-02-11T10:20:00Z"
    for at in ("2026-01-10T00:00:00Z", "2026-02-11T10:19:59Z", "2026-02-11T10:20:00Z"):
        company.record_event("acme", at)
    rate()
    half = (*instants("2026-02-11T10:20:00Z", "2026-03-01T00:00:00Z"), 1)
    assert slices(company, "requests") == slices(company, "fee") == [half]
    assert company.amounts("charge_id") == {"requests": 1, "fee": Decimal("18.00")}
    (fee,) = company.rows("select * from invoices.draft_invoice_lines where charge_id = 'fee'")
    assert fee["bill_at"] == instant("2026-02-11T10:20:00Z")
    unrated = company.rows("select reason, holds, event_count from rating.unrated_usage")
    assert unrated == [{"reason": "in_trial", "holds": False, "event_count": 1}] * 2

    # A shorter trial: usage that was in it is charged.
    subscription["trial_ends_at"] = "2026-02-01T00:00:00Z"
    rate()
    assert company.amounts("charge_id") == {"requests": 2, "fee": Decimal("28.00")}
    assert len(company.rows("select * from rating.unrated_usage where reason = 'in_trial'")) == 1


def two_prices(company: Company, takes_effect: str) -> None:
    """0.01 and from 11 February 0.02 a request; the fee 28 and then 56, in Kathmandu."""
    company.add_plan("plan")
    for version, price, fee, since in ((1, "1", 28, "2026-01-01"), (2, "2", 56, "2026-02-11")):
        charge = company.add_charge(
            "requests", "plan", [(None, price, 0)], model="per_unit", version=version, since=since
        )
        fees = company.add_charge(
            "fee", "plan", [(None, 0, fee)], None, model="flat", version=version, since=since
        )
        if version == 2:
            charge["takes_effect"] = fees["takes_effect"] = takes_effect
    company.subscribe("himal", "plan", zone="Asia/Kathmandu", start="2026-02-01T00:00:00+05:45")
    for at in ("2026-02-10T18:14:59Z", "2026-02-10T18:15:00Z", "2026-02-20T00:00:00Z"):
        company.record_event("himal", at)


CUT = instant("2026-02-11T00:00:00+05:45")
FEBRUARY = tuple(instants("2026-02-01T00:00:00+05:45", "2026-03-01T00:00:00+05:45"))


def test_a_version_that_takes_effect_at_once_cuts_the_period(company: Company, rate: Rate) -> None:
    """On its local midnight, fees by their days; the next period has one slice."""
    company.land_until("2026-03-02T00:00:00Z")
    two_prices(company, "at_once")
    rate()
    march = (FEBRUARY[1], instant("2026-04-01T00:00:00+05:45"), 2)
    cut = [(FEBRUARY[0], CUT, 1), (CUT, FEBRUARY[1], 2), march]
    assert slices(company, "requests") == slices(company, "fee") == cut
    lines = company.rows("select * from rating.rated_lines order by component, slice_start")
    assert [line["amount"] for line in lines] == [10, 36, 56, 1, 4, 0]


def test_a_version_of_the_next_period_cuts_nothing(company: Company, rate: Rate) -> None:
    company.land_until("2026-03-02T00:00:00Z")
    two_prices(company, "next_period")
    rate()
    march = (FEBRUARY[1], instant("2026-04-01T00:00:00+05:45"), 2)
    assert slices(company, "requests") == slices(company, "fee") == [(*FEBRUARY, 1), march]
    assert company.rows("select sum(amount) as due from rating.rated_lines") == [
        {"due": 28 + 56 + 3}
    ]


def test_an_issued_slice_is_not_cut_but_by_a_correction(company: Company, rate: Rate) -> None:
    company.land_until("2026-03-20T00:00:00Z")
    two_prices(company, "at_once")
    second = [row for row in company.catalog["charges"] if row["version"] == 2]
    for row in second:
        company.catalog["charges"].remove(row)
    tiers = [row for row in company.catalog["charge_tiers"] if row["version"] == 2]
    for row in tiers:
        company.catalog["charge_tiers"].remove(row)
    rate()
    company.issue("2026-03-04")
    company.catalog["charges"] += second
    company.catalog["charge_tiers"] += tiers
    rate()
    assert slices(company, "requests")[0] == (*FEBRUARY, 1)
    assert not [line for line in company.draft_lines() if line["kind"] == "adjustment"]

    company.add(
        "corrections",
        correction_id="c-1",
        subscription_id="sub-himal",
        charge_id="requests",
        period_start=CUT.isoformat(),
        version=2,
        recorded_by="finance",
        reason="the new price was agreed for 11 February",
        recorded_at="2026-03-10T00:00:00Z",
    )
    rate()
    assert slices(company, "requests")[:2] == [(FEBRUARY[0], CUT, 1), (CUT, FEBRUARY[1], 2)]
    assert slices(company, "fee")[0] == (*FEBRUARY, 1)
    corrected = {
        (line["slice_start"], line["kind"]): line["amount"]
        for line in company.draft_lines()
        if line["charge_id"] == "requests"
    }
    assert corrected == {(FEBRUARY[0], "adjustment"): -2, (CUT, "regular"): 4}


def test_a_week_begins_on_the_anchors_weekday(company: Company, rate: Rate) -> None:
    company.land_until("2026-01-20T00:00:00Z")
    plan = sell(company, "week")
    company.subscribe("calendar", plan, anchor="2024-01-01")
    company.subscribe("thursday", plan, anchor="2027-07-01")
    rate()
    mondays = starts(company, "calendar")
    assert mondays[1:3] == instants("2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z")
    assert {day.astimezone(ZoneInfo("UTC")).strftime("%A") for day in mondays[1:]} == {"Monday"}
    assert {day.strftime("%A") for day in starts(company, "thursday")} == {"Thursday"}


def test_a_leap_day_anchor(company: Company, rate: Rate) -> None:
    company.land_until("2029-01-01T00:00:00Z")
    plan = sell(company, "year")
    company.subscribe("leap", plan, start="2024-02-29T00:00:00Z", anchor="2024-02-29")
    rate()
    assert [day.date().isoformat() for day in starts(company, "leap")] == [
        *("2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29", "2029-02-28")
    ]
