"""Stories: given a plan and a customer, when this happens on this day, then this invoice.

Days are billed at their end, UTC; January closes on 4 February, three days of grace after its end.
After every story all laws hold and all sums add up (``CompanyLife.check``).
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.invoices import issuing
from metering_pipeline.postgres import Database
from tests.scenarios.company_life import CompanyLife
from tests.soak.posting import RecordedModels

Begin = Callable[[], CompanyLife]


def _clone(server: EmbeddedServer, template: str) -> Database:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {template} strategy wal_log")
    return Database(url=address.url("metering"), dagster_url=address.url("dagster"))


@pytest.fixture(scope="module")
def models(server: EmbeddedServer, catalog_template: str) -> RecordedModels:
    """The models from the ledger to the drafts, recorded once."""
    recorded = RecordedModels(_clone(server, catalog_template))
    recorded.close()
    return recorded


@pytest.fixture
def begin(
    server: EmbeddedServer, catalog_template: str, models: RecordedModels, tmp_path: Path
) -> Begin:
    """Begins a company's life on a database of its own; the one before it is gone."""
    numbers = itertools.count(1)
    return lambda: CompanyLife(
        _clone(server, catalog_template), tmp_path / f"landing-{next(numbers)}", models
    )


@pytest.fixture
def life(begin: Begin) -> Iterator[CompanyLife]:
    """A company without plans and customers. When its story is told, all must hold."""
    with closing(begin()) as life:
        yield life
        life.check()


def test_a_late_event_before_closing_is_on_the_invoice(life: CompanyLife) -> None:
    life.sell_units("basic", "0.0018")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500)

    assert life.issue("2026-02-03") == []
    life.use("acme", "2026-01-31T23:59:59Z", 1000)  # told on 4 February, before its end
    [january] = life.issue("2026-02-04")

    assert january.total == Decimal("0.0018") * 3500 + Decimal("0.0018") * 1000
    assert january.line("basic-units").quantity == 4500


def test_a_late_event_after_closing_is_an_adjustment_of_the_next_invoice(life: CompanyLife) -> None:
    life.sell_units("basic", "0.0018")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500)
    [january] = life.issue("2026-02-04")
    assert january.total == Decimal("0.0018") * 3500

    life.use("acme", "2026-01-31T23:59:59Z", 1000)
    life.use("acme", "2026-02-10T08:00Z", 2000)
    assert life.issue("2026-02-10") == []  # it waits for the next regular invoice
    [february] = life.issue("2026-03-04")

    adjustment = february.line("basic-units", "adjustment")
    assert (adjustment.start, adjustment.end) == ("2026-01-01T00:00", "2026-02-01T00:00")
    assert adjustment.amount == Decimal("0.0018") * 1000
    regular = february.line("basic-units")
    assert (regular.start, regular.end) == ("2026-02-01T00:00", "2026-03-01T00:00")
    assert regular.amount == Decimal("0.0018") * 2000
    assert len(february.lines) == 2
    assert life.invoice(january.number) == january


def test_a_void_after_closing_comes_back_on_the_next_invoice(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500, request="a test run")
    life.use("acme", "2026-01-20T10:30Z", 500)
    [january] = life.issue("2026-02-04")
    assert january.total == Decimal("0.02") * 3500 + Decimal("0.02") * 500

    life.void("acme", "2026-01-12T10:30Z", request="a test run")
    life.use("acme", "2026-02-10T08:00Z", 4000)
    [february] = life.issue("2026-03-04")

    assert february.line("basic-units", "adjustment").amount == -Decimal("0.02") * 3500
    assert february.total == Decimal("0.02") * 4000 - Decimal("0.02") * 3500


def test_a_late_event_that_crosses_a_tier_costs_the_difference_over_the_tiers(
    life: CompanyLife,
) -> None:
    life.sells.add_plan("basic")
    tiers = [(1000, "0.01", "1.00"), (None, "0.005", "2.50")]
    life.sells.add_charge("basic-units", "basic", tiers, "units", model="graduated")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 900)
    [january] = life.issue("2026-02-04")
    assert january.total == Decimal("0.01") * 900 + Decimal("1.00")

    life.use("acme", "2026-01-13T10:30Z", 300)
    [february] = life.issue("2026-03-04")

    # 100 more fill the first tier; 200 reach the second, with its fixed amount.
    crossed = Decimal("0.01") * 100 + Decimal("0.005") * 200 + Decimal("2.50")
    assert february.line("basic-units", "adjustment").amount == crossed
    assert february.line("basic-units").amount == Decimal("1.00")  # the first tier, without usage
    assert february.total == crossed + Decimal("1.00")


def test_a_late_event_that_reaches_a_cheaper_volume_gives_money_back(life: CompanyLife) -> None:
    life.sells.add_plan("bulk")
    tiers = [(1000, "0.010", 0), (None, "0.008", 0)]
    life.sells.add_charge("bulk-units", "bulk", tiers, "units", model="volume")
    life.sells.subscribe("acme", "bulk")
    life.use("acme", "2026-01-12T10:30Z", 1000)
    [january] = life.issue("2026-02-04")
    assert january.total == Decimal("0.010") * 1000

    life.use("acme", "2026-01-13T10:30Z", 100)
    life.use("acme", "2026-02-13T10:30Z", 500)
    [february] = life.issue("2026-03-04")

    repriced = Decimal("0.008") * 1100 - Decimal("0.010") * 1000
    assert repriced == Decimal("-1.20")
    assert february.line("bulk-units", "adjustment").amount == repriced
    assert february.total == Decimal("0.010") * 500 + repriced


def test_late_events_between_minimum_and_maximum(life: CompanyLife) -> None:
    """10 % off, at least 20.00 and at most 30.00 for the units, 25.00 in all: each part is adjusted."""
    life.sell_units("basic", "0.10", discount_percent=10, minimum_amount=20, maximum_amount=30)
    life.sells.add_commitment("basic-commitment", "basic", "25.00")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-05T10:00Z", 100)
    [january] = life.issue("2026-02-04")
    assert january.parts("regular", "2026-01-01") == {
        "usage": Decimal("0.10") * 100,
        "discount": -Decimal("10.00") * 10 / 100,
        "minimum": Decimal("20.00") - Decimal("9.00"),
        "commitment": Decimal("25.00") - Decimal("20.00"),
    }

    life.use("acme", "2026-01-06T10:00Z", 50)
    [february] = life.issue("2026-03-04")
    assert february.parts("adjustment", "2026-01-01") == {
        "usage": Decimal("0.10") * 50,
        "discount": -Decimal("5.00") * 10 / 100,
        "minimum": -(Decimal("5.00") - Decimal("0.50")),
    }
    assert february.total == Decimal("25.00")  # what is agreed for February, without usage

    life.use("acme", "2026-01-07T10:00Z", 1000)
    [march] = life.issue("2026-04-04")
    above = Decimal("115.00") - Decimal("11.50") - Decimal("30.00")
    assert march.parts("adjustment", "2026-01-01") == {
        "usage": Decimal("0.10") * 1000,
        "discount": -Decimal("100.00") * 10 / 100,
        "maximum": -above,
        "minimum": -Decimal("6.50"),
        "commitment": -Decimal("5.00"),
    }
    assert march.total == Decimal("25.00") + (Decimal("30.00") - Decimal("25.00"))


def test_a_new_price_waits_for_the_next_period(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-10T10:00Z", 100)
    life.live_until("2026-01-14T12:00Z")

    life.price_units("basic", "0.03", version=2, since="2026-01-15", takes_effect="next_period")
    life.use("acme", "2026-01-20T10:00Z", 200)
    life.use("acme", "2026-02-10T10:00Z", 400)
    [january] = life.issue("2026-02-04")
    [february] = life.issue("2026-03-04")

    assert january.amounts == [("basic-units", "2026-01-01", Decimal("0.02") * 300)]
    assert february.amounts == [("basic-units", "2026-02-01", Decimal("0.03") * 400)]


def test_a_new_price_at_once_counts_from_its_day(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-14T23:59:59.999999Z", 100)
    life.live_until("2026-01-14T23:59:59Z")

    life.price_units("basic", "0.03", version=2, since="2026-01-15", takes_effect="at_once")
    life.use("acme", "2026-01-15T00:00Z", 200)
    # Each part of the period is due with its own end.
    [before] = life.issue("2026-01-18")
    [after] = life.issue("2026-02-04")

    assert before.amounts == [("basic-units", "2026-01-01", Decimal("0.02") * 100)]
    assert after.amounts == [("basic-units", "2026-01-15", Decimal("0.03") * 200)]


def test_an_upgrade_at_10_37_in_kathmandu(life: CompanyLife) -> None:
    """17 of 31 days go on in the new plan; each plan has its usage to the minute (UTC+05:45)."""
    for plan, fee, price in (("basic", "31.00", "0.02"), ("pro", "62.00", "0.01")):
        life.sell_units(plan, price)
        life.sells.add_fee(f"{plan}-fee", plan, fee)
    home = {"zone": "Asia/Kathmandu", "anchor": "2026-01-01"}
    life.sells.subscribe("acme", "basic", start="2026-01-01T00:00+05:45", **home)
    life.use("acme", "2026-01-03T12:00+05:45", 1000)
    [advance] = life.issue("2026-01-01")
    assert advance.amounts == [("basic-fee", "2025-12-31", Decimal("31.00"))]

    upgrade = "2026-01-15T10:37+05:45"
    life.sells.subscribe(
        "acme", "basic", start="2026-01-01T00:00+05:45", end=upgrade, version=2, **home
    )
    life.sells.subscribe("acme", "pro", start=upgrade, subscription="sub-acme-pro", **home)
    life.use("acme", "2026-01-15T10:36:59.999999+05:45", 50)
    life.use("acme", "2026-01-15T10:37+05:45", 300)
    [new_fee] = life.issue("2026-01-15")
    [last_of_basic] = life.issue("2026-01-18")
    pro_invoices = life.issue("2026-02-03")

    assert new_fee.amounts == [("pro-fee", "2026-01-15", Decimal("62.00") * 17 / 31)]
    assert new_fee.lines[0].start == "2026-01-15T04:52"
    assert last_of_basic.line("basic-units").amount == Decimal("0.02") * (1000 + 50)
    returned = last_of_basic.line("basic-fee", "adjustment")
    assert returned.amount == Decimal("31.00") * 14 / 31 - Decimal("31.00")
    assert [each.amounts for each in pro_invoices] == [
        [("pro-fee", "2026-01-31", Decimal("62.00"))],  # February, in advance
        [("pro-units", "2026-01-15", Decimal("0.01") * 300)],
    ]


def test_the_night_that_the_clocks_go_forward(life: CompanyLife) -> None:
    """29 March 2026 has 23 hours in Berlin; an event an hour, billed by the day."""
    life.sells.add_plan("daily", interval="day")
    life.price_units("daily", "0.10")
    life.sells.subscribe("acme", "daily", start="2026-03-28T00:00+01:00", zone="Europe/Berlin")
    for hour in range(24):
        life.use("acme", f"2026-03-28T{hour:02}:00+01:00")
    for hour in (0, 1):
        life.use("acme", f"2026-03-29T{hour:02}:00+01:00")
    for hour in range(3, 24):
        life.use("acme", f"2026-03-29T{hour:02}:00+02:00")
    life.use("acme", "2026-03-30T00:00+02:00", 7)
    saturday, sunday, monday = life.issue("2026-04-02")

    assert saturday.amounts == [("daily-units", "2026-03-27", Decimal("0.10") * 24)]
    assert sunday.amounts == [("daily-units", "2026-03-28", Decimal("0.10") * 23)]
    assert (sunday.lines[0].start, sunday.lines[0].end) == ("2026-03-28T23:00", "2026-03-29T22:00")
    assert monday.amounts == [("daily-units", "2026-03-29", Decimal("0.10") * 7)]


def test_the_night_that_the_clocks_go_back(life: CompanyLife) -> None:
    """25 October 2026 has 25 hours in Berlin; between 2 and 3, which come twice, a plan changes."""
    for plan, price in (("before", "0.10"), ("after", "1.00")):
        life.sells.add_plan(plan, interval="day")
        life.price_units(plan, price)
    start, change = "2026-10-25T00:00+02:00", "2026-10-25T02:30+01:00"
    berlin = {"zone": "Europe/Berlin"}
    life.sells.subscribe("acme", "before", start=start, end=change, **berlin)
    life.sells.subscribe("acme", "after", start=change, subscription="sub-new", **berlin)
    life.sells.subscribe("birch", "before", start=start, **berlin)
    for hour in range(3):
        life.use("birch", f"2026-10-25T{hour:02}:00+02:00")
    for hour in range(2, 24):
        life.use("birch", f"2026-10-25T{hour:02}:00+01:00")
    life.use("acme", "2026-10-25T02:45+02:00", 10)  # the first 02:45: before the change
    life.use("acme", "2026-10-25T02:15+01:00", 20)  # the second 02:15: later, and before it still
    life.use("acme", "2026-10-25T02:45+01:00", 30)  # the second 02:45
    invoices = {each.subscription: each for each in life.issue("2026-10-28")}

    assert invoices["sub-birch"].total == Decimal("0.10") * 25
    day = invoices["sub-birch"].lines[0]
    assert (day.start, day.end) == ("2026-10-24T22:00", "2026-10-25T23:00")
    assert invoices["sub-acme"].total == Decimal("0.10") * (10 + 20)
    assert invoices["sub-new"].total == Decimal("1.00") * 30
    assert invoices["sub-new"].lines[0].start == "2026-10-25T01:30"


def test_a_yearly_plan_with_monthly_usage(life: CompanyLife) -> None:
    life.sells.add_plan("annual", interval="year")
    life.sells.add_fee("annual-fee", "annual", "1200.00")
    life.price_units("annual", "0.02", billing_interval="month")
    life.sells.subscribe("acme", "annual")
    life.use("acme", "2026-01-31T23:59Z", 100)
    life.use("acme", "2026-02-01T00:00Z", 250)

    [year] = life.issue("2026-01-01")
    [january] = life.issue("2026-02-04")
    [february] = life.issue("2026-03-04")
    next_year = life.issue("2027-01-01")

    assert year.amounts == [("annual-fee", "2026-01-01", Decimal("1200.00"))]
    assert year.lines[0].end == "2027-01-01T00:00"
    assert january.amounts == [("annual-units", "2026-01-01", Decimal("0.02") * 100)]
    assert february.amounts == [("annual-units", "2026-02-01", Decimal("0.02") * 250)]
    assert [each.amounts for each in next_year] == [
        [("annual-fee", "2027-01-01", Decimal("1200.00"))]
    ]


def test_a_trial_costs_nothing_and_the_rest_of_the_month_its_share(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.add_fee("basic-fee", "basic", "62.00")
    life.sells.subscribe("acme", "basic", trial_ends="2026-01-15T12:00Z")
    life.use("acme", "2026-01-15T11:59:59Z", 5000)
    life.use("acme", "2026-01-15T12:00Z", 300)

    assert life.issue("2026-01-14") == []
    [fee] = life.issue("2026-01-15")
    february_fee, january = life.issue("2026-02-04")

    assert fee.amounts == [("basic-fee", "2026-01-15", Decimal("62.00") * 17 / 31)]
    assert fee.lines[0].start == "2026-01-15T12:00"
    assert february_fee.amounts == [("basic-fee", "2026-02-01", Decimal("62.00"))]
    assert january.amounts == [("basic-units", "2026-01-15", Decimal("0.02") * 300)]


def test_prepaid_credits_pay_in_their_order_and_expire(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.live_until("2026-01-02T00:00Z")
    for amount, priority, expires in (
        ("100.00", 50, None),
        ("10.00", 50, "2026-03-01"),  # granted later, but expires: it pays before
        ("5.00", 1, None),  # granted last, but of a lower priority number: it pays first
    ):
        life.grant("acme", amount, priority=priority, expires=expires)
    life.use("acme", "2026-01-12T10:30Z", 400)
    life.use("acme", "2026-02-12T10:30Z", 450)

    [january] = life.issue("2026-02-04")
    assert (january.total, january.credits, january.due) == (
        Decimal("0.02") * 400, Decimal("5.00") + Decimal("3.00"), Decimal("0.00"),
    )  # fmt: skip
    assert life.credits_left("acme") == [
        Decimal("0"),
        Decimal("10.00") - Decimal("3.00"),
        Decimal("100.00"),
    ]

    [february] = life.issue("2026-03-04")  # three days after the second credit has expired
    assert february.credits == Decimal("0.02") * 450
    assert life.credits_left("acme") == [
        Decimal("0"),
        Decimal("0"),
        Decimal("100.00") - Decimal("9.00"),
    ]


def test_a_coupon_is_used_up_over_two_invoices(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.sells.add("coupons", coupon_id="welcome", tenant_id="acme", currency="USD", amount="5.00",
                   effective_from="2026-01-01", description="Welcome")  # fmt: skip
    life.use("acme", "2026-01-12T10:30Z", 150)
    life.use("acme", "2026-02-12T10:30Z", 300)
    [january] = life.issue("2026-02-04")
    [february] = life.issue("2026-03-04")

    assert (january.total, january.coupons) == (Decimal("0.02") * 150, Decimal("3.00"))
    assert january.due == 0
    left = Decimal("5.00") - Decimal("3.00")
    assert (february.total, february.coupons) == (Decimal("0.02") * 300, left)
    assert february.due == Decimal("0.02") * 300 - left


def test_an_invoice_that_becomes_negative_is_a_credit_note(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500, request="an error")
    [january] = life.issue("2026-02-04")
    life.grant("acme", "20.00")

    life.void("acme", "2026-01-12T10:30Z", request="an error")
    life.use("acme", "2026-02-12T10:30Z", 100)
    [february] = life.issue("2026-03-04")

    assert (january.kind, february.kind) == ("invoice", "credit_note")
    assert february.total == Decimal("0.02") * 100 - Decimal("0.02") * 3500
    assert (february.credits, february.due) == (0, february.total)
    assert life.credits_left("acme") == [Decimal("20.00")]


def test_each_currency_has_its_own_invoice_and_its_own_digits(life: CompanyLife) -> None:
    for currency in ("USD", "JPY", "KWD"):
        life.sell_units(currency, "0.0345", currency)
        life.sells.subscribe("acme", currency, subscription=f"sub-{currency}")
        # Which of the subscriptions an event belongs to, its model says.
        life.sells.catalog["charges"][-1]["dimension_route"] = f'{{"model": "{currency}"}}'
    life.sells.catalog["metrics"][-1]["dimensions"] = '["model"]'
    for currency in ("USD", "JPY", "KWD"):
        life.use("acme", "2026-01-12T10:30Z", 100, properties={"model": currency})
        life.use("acme", "2026-01-13T10:30Z", 1, properties={"model": currency})
    invoices = {each.currency: each.total for each in life.issue("2026-02-04")}

    assert Decimal("0.0345") * 101 == Decimal("3.4845")
    assert invoices == {"USD": Decimal("3.48"), "JPY": Decimal("3"), "KWD": Decimal("3.485")}


def test_a_small_sum_is_carried_forward(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02", minimum="5.00")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 100)
    life.use("acme", "2026-02-12T10:30Z", 200)

    assert life.issue("2026-02-04") == []
    [both] = life.issue("2026-03-04")
    assert both.amounts == [
        ("basic-units", "2026-01-01", Decimal("0.02") * 100),
        ("basic-units", "2026-02-01", Decimal("0.02") * 200),
    ]
    assert both.total == Decimal("2.00") + Decimal("4.00")


def test_a_test_tenant_is_rated_and_never_billed(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.sells.subscribe("our-own-tests", "basic")
    life.sells.catalog["tenants"][-1]["billable"] = "false"
    for tenant in ("acme", "our-own-tests"):
        life.use(tenant, "2026-01-12T10:30Z", 3500)
    invoices = life.issue("2026-02-04")

    assert [each.tenant for each in invoices] == ["acme"]
    assert life.rated("our-own-tests") == Decimal("0.02") * 3500
    assert life.issue("2026-03-04") == []


def test_a_cancellation_recorded_two_weeks_late_gives_the_fee_back(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.add_fee("basic-fee", "basic", "28.00")
    life.sells.subscribe("acme", "basic", start="2026-02-01T00:00Z")
    life.use("acme", "2026-02-05T10:30Z", 100)
    [advance] = life.issue("2026-02-01")
    assert advance.amounts == [("basic-fee", "2026-02-01", Decimal("28.00"))]

    life.live_until("2026-02-22T12:00Z")
    life.sells.subscribe(
        "acme", "basic", start="2026-02-01T00:00Z", end="2026-02-08T00:00Z", version=2
    )
    [last] = life.issue("2026-02-22")

    assert last.line("basic-units").amount == Decimal("0.02") * 100
    returned = last.line("basic-fee", "adjustment")
    assert returned.amount == Decimal("28.00") * 7 / 28 - Decimal("28.00")
    assert last.kind == "credit_note"
    assert life.issue("2026-03-31") == []  # nothing more is charged


def test_a_typo_in_a_tier_mended_after_a_year_waits_for_a_correction(life: CompanyLife) -> None:
    """0.20 for 0.02: what was issued stays, until somebody says which period is to be priced anew."""
    life.sells.add_plan("basic")
    tiers = [(100, "0.05", 0), (None, "0.20", 0)]
    life.sells.add_charge("basic-units", "basic", tiers, "units", model="graduated")
    life.sells.subscribe("acme", "basic")
    for month in (1, 2, 3):
        life.use("acme", f"2026-{month:02}-12T10:30Z", 1000)
    year = [each for each in life.issue("2027-01-04") if each.total != 0]
    as_printed = Decimal("0.05") * 100 + Decimal("0.20") * 900
    assert [each.total for each in year] == [as_printed] * 3

    # In force from the day on which the typo was, but what was issued keeps what was printed.
    mended = [(100, "0.05", 0), (None, "0.02", 0)]
    life.sells.add_charge("basic-units", "basic", mended, "units", model="graduated", version=2,
                          since="2026-01-01")  # fmt: skip
    life.use("acme", "2026-03-20T10:30Z", 10)
    life.use("acme", "2027-01-12T10:30Z", 1000)
    [january] = life.issue("2027-02-04")
    assert january.amounts == [
        ("basic-units", "2027-01-01", Decimal("0.05") * 100 + Decimal("0.02") * 900),
        ("basic-units", "2026-03-01", Decimal("0.20") * 10),
    ]

    life.sells.add("corrections", correction_id="c-1", subscription_id="sub-acme",
                   charge_id="basic-units", period_start="2026-02-01T00:00Z", version=2,
                   recorded_by="ana", reason="0.20 was a typo for 0.02",
                   recorded_at="2027-02-10T00:00Z")  # fmt: skip
    [february] = life.issue("2027-03-04")
    adjustment = february.line("basic-units", "adjustment")
    assert (adjustment.start, adjustment.end) == ("2026-02-01T00:00", "2026-03-01T00:00")
    assert adjustment.amount == Decimal("0.02") * 900 - Decimal("0.20") * 900
    assert february.total == adjustment.amount


def test_a_junk_tenant_holds_nobody_else(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500)
    life.use("no-such-customer", "2026-01-12T10:30Z", 99)
    life.use("", "2026-01-12T10:31Z", 99)
    [january] = life.issue("2026-02-04")

    assert (january.tenant, january.total) == ("acme", Decimal("0.02") * 3500)
    [unrated] = life.sells.rows("select * from rating.unrated_usage")
    assert (unrated["tenant_id"], unrated["reason"]) == ("no-such-customer", "unknown_tenant")
    [rejected] = life.sells.rows("select * from landing.rejected_events")
    assert rejected["raw_line"]


def test_an_unreadable_value_holds_its_own_invoice_only(life: CompanyLife) -> None:
    life.sells.catalog["metrics"][-1]["value_property"] = "tokens"
    life.sell_units("basic", "0.02")
    for tenant in ("acme", "birch"):
        life.sells.subscribe(tenant, "basic")
        life.use(tenant, "2026-01-12T10:30Z", properties={"tokens": 3500})
    life.use("birch", "2026-01-13T10:30Z", request="torn", properties={"tokens": "many"})
    [acme] = life.issue("2026-02-04", held=True)
    assert (acme.tenant, acme.total) == ("acme", Decimal("0.02") * 3500)
    assert [(each.tenant_id, each.reason) for each in life.held] == [("birch", "unrated_usage")]

    life.void("birch", "2026-01-13T10:30Z", request="torn")
    life.use("birch", "2026-01-13T10:30Z", request="whole", properties={"tokens": 500})
    [birch] = life.issue("2026-02-05")
    assert (birch.tenant, birch.total) == ("birch", Decimal("0.02") * (3500 + 500))


def test_issuing_after_three_days_of_outage_makes_the_same_documents(begin: Begin) -> None:
    """One run of the newest day instead of three: numbers without gaps, the same invoices."""

    def a_company() -> CompanyLife:
        life = begin()
        life.sell_units("basic", "0.02")
        life.sells.add_fee("basic-fee", "basic", "31.00")
        for day, tenant in ((1, "acme"), (2, "birch"), (3, "cobalt")):
            start = f"2026-01-{day:02}"
            life.sells.subscribe(tenant, "basic", start=f"{start}T00:00Z", anchor=start)
            life.use(tenant, "2026-01-20T10:00Z", 100 * day)
        life.issue("2026-02-03")
        return life

    with closing(a_company()) as daily:
        for day in ("2026-02-04", "2026-02-05", "2026-02-06"):
            daily.issue(day)
        day_by_day = daily.invoices()
        daily.check()
    with closing(a_company()) as outage:
        outage.issue("2026-02-06")
        at_once = outage.invoices()
        outage.check()

    assert [each.number for each in at_once] == [f"US-{n:06}" for n in range(1, len(at_once) + 1)]
    assert at_once == day_by_day
    usage = [each.total for each in at_once[-3:]]
    assert usage == [Decimal("0.02") * 100, Decimal("0.02") * 200, Decimal("0.02") * 300]


def test_an_invoice_voided_is_issued_again(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500)
    [wrong] = life.issue("2026-02-04")

    void = life.reverse(wrong.number, "void")
    assert (void.kind, void.refers_to, void.total) == ("void", wrong.number, -wrong.total)
    life.use("acme", "2026-01-13T10:30Z", 100)  # what came meanwhile is on it too
    [again] = life.issue("2026-02-05")

    assert again.kind == "invoice"
    assert again.amounts == [("basic-units", "2026-01-01", Decimal("0.02") * (3500 + 100))]
    assert again.lines[0].kind == "regular"
    assert life.invoice(wrong.number) == wrong


def test_what_is_written_off_is_not_due_again(life: CompanyLife) -> None:
    life.sell_units("basic", "0.02")
    life.sells.subscribe("acme", "basic")
    life.use("acme", "2026-01-12T10:30Z", 3500)
    [january] = life.issue("2026-02-04")

    written_off = life.reverse(january.number, "write_off")
    assert (written_off.kind, written_off.total) == ("write_off", -Decimal("0.02") * 3500)
    assert life.issue("2026-02-05") == []
    life.use("acme", "2026-01-13T10:30Z", 100)
    [february] = life.issue("2026-03-04")
    assert february.line("basic-units", "adjustment").amount == Decimal("0.02") * 100


EVERY_MODEL: dict[str, dict[str, Any]] = {
    "per_unit": {"tiers": [(None, "0.02", 0)]},
    "graduated": {"tiers": [(1000, "0.01", 1), (None, "0.005", "2.50")]},
    "volume": {"tiers": [(1000, "0.010", 0), (None, "0.008", 0)]},
    "package": {"tiers": [(None, 0, "1.50")], "package_size": 100},
    "percentage": {"tiers": [{"rate_percent": "1.3"}]},
    "graduated_percentage": {"tiers": [{"up_to": 1000, "rate_percent": 2}, {"rate_percent": 1}]},
    "matrix": {
        "tiers": [
            {"unit_amount": "0.02", "dimension_values": '{"model": "large"}'},
            {"unit_amount": "0.01", "dimension_values": "{}"},
        ]
    },
    "dynamic": {"tiers": []},
}


def test_a_rewritten_line_is_caught_whatever_its_model(life: CompanyLife) -> None:
    """Amounts, slices, sums, content and hash changed alike, as far as they can be: L5 is red."""
    life.sells.add_plan("all")
    life.sells.catalog["metrics"].clear()
    for model, terms in EVERY_MODEL.items():
        life.sells.add_metric(model, dimensions='["model"]')
        life.sells.add_charge(model, "all", metric=model, model=model, **terms)
    life.sells.add_metric("by_event", dimensions='["model"]')
    rate = [{"rate_percent": "1.3"}]
    life.sells.add_charge("by_event", "all", rate, "by_event", model="percentage")
    life.sells.add(
        "percentage_terms", charge_id="by_event", version=1, amount_per_event="0.10", free_events=1,
        free_amount=500, minimum_per_event="2.00", maximum_per_event="9.00",
    )  # fmt: skip
    life.sells.add_fee("fee", "all", "31.00", "arrears")
    life.sells.add_commitment("commitment", "all", "2500.00")
    life.sells.subscribe("acme", "all", zone="Asia/Kathmandu", start="2026-01-01T04:52:10Z")
    for number in range(9):
        at = f"2026-01-{3 * number + 1:02}T0{number}:50:0{number}Z"
        model = "large" if number % 2 else "small"
        life.use("acme", at, 100 + 37 * number, properties={"model": model})
    [january] = life.issue("2026-02-03")
    assert {line.charge for line in january.lines} == {
        *EVERY_MODEL,
        "by_event",
        "fee",
        "commitment",
    }
    assert life.document_faults() == []

    def uncaught() -> set[str]:
        charges = set()
        for line_number, line in enumerate(january.lines, start=1):
            with life.connection.transaction(force_rollback=True):
                life.rewrite_line(january.number, line_number, Decimal("0.50"))
                faults = life.document_faults()
            if not any(f"line {line_number}:" in fault for fault in faults):
                charges.add(line.charge)
            assert not any("content" in fault or "chain" in fault for fault in faults), faults
        return charges

    assert uncaught() == set()
    life.live_until("2026-02-05T00:00Z")
    life.use("acme", "2026-01-12T10:30Z", 500, properties={"model": "large"})
    life.live_until("2026-02-06T00:00Z")
    assert life.document_faults() == []
    assert uncaught() == set()  # by what had landed when it was issued


@pytest.mark.parametrize("seed", range(2))
def test_drafts_follow_whatever_happens(begin: Begin, seed: int) -> None:
    """After each of many random changes the drafts are what building them all anew gives."""
    with closing(begin()) as life:
        changes = _Changes(life, random.Random(seed))
        life.issue("2026-02-04")
        life.check_drafts()
        for _ in range(25):
            changes.happen()
            life.check_drafts()
        for tenant in life.sells.catalog["tenants"]:
            tenant["billable"] = "true"  # what is due is checked of them only
        life.check()


class _Changes:
    """A company with two plans and two legal entities, and what may happen to it."""

    def __init__(self, life: CompanyLife, chance: random.Random) -> None:
        self.life, self.sells, self.chance = life, life.sells, chance
        self.sells.add("legal_entities", legal_entity="eu", name="Example GmbH", series="EU")
        life.sell_units("basic", "0.02", minimum="5", discount_percent=10)
        self.sells.add_fee("basic-fee", "basic", "31.00")
        life.sell_units("pro", "0.01", minimum_amount="3")
        self.sells.add_fee("pro-fee", "pro", "99.00", timing="arrears")
        self.tenants = ["acme", "birch", "cobalt", "delta"]
        for tenant, plan in zip(self.tenants, ["basic", "pro"] * 2, strict=True):
            self.sells.subscribe(tenant, plan)
            for day in (3, 12, 20, 31):
                life.use(
                    tenant, f"2026-01-{day:02}T10:00Z", chance.randrange(500), f"{tenant}-{day}"
                )
        self.sells.catalog["tenants"][-1]["legal_entity"] = "eu"
        self.number = 0

    def happen(self) -> None:
        """Mostly usage and issuing; else something in the catalog, or a decision."""
        self.number += 1
        ordinary = [self.use, self.void_usage, self.pass_days, self.issue, self.reverse]
        rare = [
            self.price, self.correct, self.rename, self.coupon, self.tax, self.cancel, self.change_plan,
            self.toggle_billable, self.move_tenant, self.minimum, self.grace, self.subscribe, self.hold,
        ]  # fmt: skip
        self.chance.choice(ordinary if self.chance.random() < 0.5 else rare)()

    def use(self) -> None:
        at = self.life.now - timedelta(hours=self.chance.randrange(60 * 24))
        self.life.use(self.chance.choice(self.tenants), at.isoformat(), self.chance.randrange(900))

    def void_usage(self) -> None:
        tenant, day = self.chance.choice(self.tenants), self.chance.choice((3, 12, 20, 31))
        self.life.void(tenant, f"2026-01-{day:02}T10:00Z", f"{tenant}-{day}")

    def pass_days(self) -> None:
        self.life.live_until(self.life.now + timedelta(days=self.chance.randrange(1, 20)))

    def issue(self) -> None:
        self.life.issue(f"{self.life.now:%Y-%m-%d}", held=True)

    def reverse(self) -> None:
        """Void a document or write it off, if there is one that can be."""
        reversed_already = {each.refers_to for each in self.life.invoices()}
        standing = [
            each for each in self.life.invoices()
            if each.refers_to is None and each.number not in reversed_already and each.due > 0
        ]  # fmt: skip
        if standing:
            kind = self.chance.choice(("void", "write_off"))
            self.life.reverse(self.chance.choice(standing).number, kind)

    def price(self) -> None:
        """A new version of a charge, from the next period on, or in the midst of one."""
        plan = self.chance.choice(("basic", "pro"))
        since = f"{self.life.now:%Y-%m-%d}"
        if all(row["effective_from"] < since for row in self.sells.catalog["charges"]):
            self.life.price_units(
                plan, f"0.0{self.chance.randrange(1, 9)}", version=1 + self.number, since=since,
                takes_effect=self.chance.choice(("next_period", "at_once")),
            )  # fmt: skip

    def correct(self) -> None:
        """A slice gets the price of the newest version."""
        slices = self.sells.rows("select * from rating.charge_slices where component = 'usage'")
        one = self.chance.choice(sorted(slices, key=str))
        versions = [
            row for row in self.sells.catalog["charges"] if row["charge_id"] == one["charge_id"]
        ]
        self.sells.add(
            "corrections", correction_id=f"c-{self.number}", subscription_id=one["subscription_id"],
            charge_id=one["charge_id"], period_start=one["slice_start"].isoformat(),
            version=versions[-1]["version"], recorded_by="ana", reason="agreed",
            recorded_at=f"{self.life.now:%Y-%m-%dT%H:%M:%SZ}",
        )  # fmt: skip

    def rename(self) -> None:
        self.chance.choice(self.sells.catalog["charges"])["description"] = f"renamed {self.number}"

    def coupon(self) -> None:
        self.sells.add(
            "coupons", coupon_id=f"coupon-{self.number}", tenant_id=self.chance.choice(self.tenants),
            percent=10, effective_from="2026-01-01", description="ten percent",
        )  # fmt: skip

    def tax(self) -> None:
        self.sells.add(
            "tax_rates", tenant_id=self.chance.choice(self.tenants), tax_code=f"tax-{self.number}",
            rate=7, effective_from="2026-01-01",
        )  # fmt: skip

    def cancel(self) -> None:
        """It ended some days ago."""
        tenant = self.chance.choice(self.tenants)
        end = self.life.now - timedelta(days=self.chance.randrange(20))
        self._change_subscription(tenant, ended_at=end.isoformat())

    def change_plan(self) -> None:
        """From the beginning: what was billed is billed otherwise."""
        tenant = self.chance.choice(self.tenants)
        self._change_subscription(tenant, plan_id=self.chance.choice(("basic", "pro")))

    def _change_subscription(self, tenant: str, **changed: str) -> None:
        versions = [
            row for row in self.sells.catalog["subscriptions"] if row["tenant_id"] == tenant
        ]
        newest = versions[-1] | changed | {
            "version": versions[-1]["version"] + 1, "recorded_at": f"{self.life.now:%Y-%m-%dT%H:%M:%SZ}"
        }  # fmt: skip
        self.sells.catalog["subscriptions"].append(newest)

    def toggle_billable(self) -> None:
        tenant = self.chance.choice(self.sells.catalog["tenants"])
        tenant["billable"] = "false" if tenant["billable"] == "true" else "true"

    def move_tenant(self) -> None:
        """To the other legal entity, as long as it has no documents."""
        billed = {each.tenant for each in self.life.invoices()}
        for tenant in self.sells.catalog["tenants"]:
            if tenant["tenant_id"] not in billed:
                tenant["legal_entity"] = "eu" if tenant["legal_entity"] == "us" else "us"

    def minimum(self) -> None:
        plan = self.chance.choice(self.sells.catalog["plans"])
        plan["minimum_document_amount"] = str(self.chance.randrange(20))

    def grace(self) -> None:
        """Settings come from the environment; here they are put where the pipeline puts them."""
        name = self.chance.choice(("grace_hours", "final_days"))
        self.life.connection.execute(
            "update catalog.settings set value = (value::integer + 1)::text where name = %s",
            (name,),
        )

    def subscribe(self) -> None:
        self.tenants.append(f"tenant-{self.number}")
        self.sells.subscribe(self.tenants[-1], self.chance.choice(("basic", "pro")))

    def hold(self) -> None:
        drafts = self.sells.rows("select draft_id from invoices.draft_invoices order by 1")
        if drafts:
            draft = self.chance.choice(drafts)["draft_id"]
            issuing.hold(self.life.database, draft, "ana", "to be looked at", self.life.now)
            issuing.approve(self.life.database, draft, "ana", "looked at", self.life.now)
