"""What was earned and not billed when a day began, against plain decimals."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

from tests.dbt.company import Company, Row
from tests.dbt.conftest import Dbt
from tests.dbt.price_oracle import Case, amounts, rounded

D = Decimal
BEFORE = "2026-01-16"
UNTIL = ("2026-01-05T10:00:00Z", "2026-01-15T23:00:00Z")
SINCE = ("2026-01-16T00:00:00Z", "2026-01-31T23:00:00Z")

Rate = Callable[[], None]
Accrued = Callable[[str], dict[str, dict[str, Row]]]


def tier(up_to: object = None, unit: object = 0, flat: object = 0, percent: object = 0) -> Row:
    return {"up_to": up_to, "unit_amount": unit, "flat_amount": flat, "rate_percent": percent}


STAIRS = [tier(100, "0.5", 3), tier(200, "0.25", "1.5"), tier(None, "0.125")]
CASES: dict[str, tuple[Case, list[str]]] = {
    "per_unit": (Case("per_unit", [tier(unit="0.333")]), ["10", "7.5", "80", "3"]),
    "graduated": (Case("graduated", STAIRS), ["90", "60.25", "70", "5"]),
    "volume": (Case("volume", STAIRS), ["60", "50", "100", "0.1"]),
    "package": (
        Case("package", [tier(flat=5)], terms={"package_size": 12}), ["10", "15", "12", "1"],
    ),
    "percentage": (
        Case("percentage", [tier(percent="2.5")], per_event={"amount_per_event": "0.10"}),
        ["99.99", "0.01", "50", "50"],
    ),
    "rates": (
        Case("graduated_percentage", [tier(1000, percent=3), tier(percent=1)]),
        ["700", "600", "900", "1"],
    ),
    "dynamic": (Case("dynamic", []), ["12.345", "0.1", "7", "7"]),
    "thousands": (
        Case("per_unit", [tier(unit="0.7")], terms={
            "conversion_operation": "divide", "conversion_factor": 3, "quantity_rounding": "ceiling",
            "quantity_digits": 1, "included_quantity": 2,
        }),
        ["10", "10", "10", "10"],
    ),
    "reduced": (
        Case("per_unit", [tier(unit=1)], terms={
            "discount_percent": 10, "discount_amount": 5, "maximum_amount": 40,
        }),
        ["30", "33.33", "100", "100"],
    ),
    # The part is above the maximum, the whole is not: the maximum has no rated line.
    "cheaper": (
        Case("volume", [tier(100, 1), tier(None, "0.1")], terms={"maximum_amount": 50}),
        ["30", "50", "100", "20"],
    ),
    "free": (Case("per_unit", [tier(unit=1)], terms={"included_quantity": "unlimited"}),
             ["1", "2", "3", "4"]),
    "late": (Case("per_unit", [tier(unit=1)]), ["0", "0", "3", "4"]),
}  # fmt: skip


@pytest.fixture
def units(company: Company) -> Company:
    company.add_metric("units")
    company.add_plan("plan")
    return company


@pytest.fixture
def accrued(units: Company, rate: Rate, dbt: Dbt) -> Accrued:
    """Rate, and give the function's rows by tenant and component."""
    dbt("run", "accrued_usage")

    def read(before: str) -> dict[str, dict[str, Row]]:
        rate()
        found: dict[str, dict[str, Row]] = {}
        for row in units.rows("select * from invoices.accrued_usage(%s)", before):
            found.setdefault(row["tenant_id"], {})[row["component"]] = row
        return found

    return read


def sell(company: Company, name: str, case: Case, used: list[str], metric: str = "units") -> None:
    """A plan and a tenant of its own, with usage before and after the day."""
    company.add_plan(name)
    company.add_charge(name, name, case.tiers, metric, model=case.model, **case.terms)
    if case.per_event:
        company.add("percentage_terms", charge_id=name, version=1, **case.per_event)
    company.subscribe(name, name)
    for at, value in zip(UNTIL + SINCE, used, strict=True):
        if D(value):
            company.use(name, at, value, metric=metric)


def test_cut_usage_is_priced_as_if_the_period_ended(units: Company, accrued: Accrued) -> None:
    for name, (case, used) in CASES.items():
        sell(units, name, case, used)
    units.land_until("2026-01-31T12:00:00Z")
    found = accrued(BEFORE)
    for name, (case, used) in CASES.items():
        until = [D(value) for value in used[:2] if D(value)]
        part = replace(case, quantity=sum(until, D(0)), events=until, complete=False)
        shown = {
            component: Fraction(row["accrued_amount"])
            for component, row in found[name].items()
            if component == "usage" or row["accrued_amount"]
        }
        assert shown == amounts(part), name
        assert {(row["is_cut"], row["unknown_because"]) for row in found[name].values()} == {
            (True, None)
        }
        assert found[name]["usage"]["event_count_until"] == len(until)
        assert found[name]["usage"]["value_sum_until"] == part.quantity
    assert found["cheaper"]["maximum"]["rated_amount"] == 0


def test_what_the_quantity_does_not_tell_is_not_known(units: Company, accrued: Accrued) -> None:
    units.add_metric("peak", "max")
    units.add_metric("by_region", "sum", '["region"]')
    matrix = tier(unit=2) | {"dimension_values": "{}"}
    sell(units, "peak", Case("per_unit", [tier(unit=2)], terms={"discount_percent": 10}),
         ["4", "3", "2", "1"], "peak")  # fmt: skip
    sell(units, "matrix", Case("matrix", [matrix]), ["4", "3", "2", "1"], "by_region")
    sell(units, "minimum", Case("per_unit", [tier(unit=2)], terms={"minimum_amount": 99}),
         ["4", "3", "2", "1"])  # fmt: skip
    units.add_commitment("agreed", "minimum", "500.00")
    case = Case("percentage", [tier(percent=2)], per_event={"minimum_per_event": "0.50"})
    sell(units, "events", case, ["0", "0", "0", "0"])
    for at in (UNTIL[0], SINCE[0]):
        units.record_event("events", at, metric="units", quantity=10)
    units.land_until("2026-02-02T00:00:00Z")
    found = accrued(BEFORE)
    assert {
        (name, component): (row["unknown_because"], row["amount_until"], row["accrued_amount"])
        for name, rows in found.items()
        for component, row in rows.items()
    } == {
        ("peak", "usage"): ("not_additive", None, None),
        ("peak", "discount"): ("not_additive", None, None),
        ("matrix", "usage"): ("not_by_quantity", None, None),
        ("events", "usage"): ("not_by_quantity", None, None),
        ("minimum", "usage"): (None, 14, 14),
        ("minimum", "minimum"): ("due_at_the_end", None, None),
        ("minimum", "commitment"): ("due_at_the_end", None, None),
    }
    whole = accrued("2026-02-01")
    assert {row["unknown_because"] for rows in whole.values() for row in rows.values()} == {None}
    assert whole["minimum"]["commitment"]["accrued_amount"] == D("401.00")
    assert whole["peak"]["usage"]["accrued_amount"] == 8


def test_a_fee_counts_by_local_days_whatever_has_landed(units: Company, accrued: Accrued) -> None:
    units.add_fee("fee", "plan", "49.00", discount_percent=10)
    units.add_plan("after")
    units.add_fee("fee-after", "after", "49.00", timing="arrears")
    units.subscribe("whole", "plan")
    units.subscribe("joined", "plan", start="2026-01-10T07:00:00Z")
    units.subscribe("himal", "plan", zone="Asia/Kathmandu", start="2026-01-01T00:00:00+05:45")
    units.subscribe("arrears", "after")
    units.land_until("2026-01-12T00:00:00Z")
    for before, days in ((BEFORE, 15), ("2026-01-02", 1), ("2026-01-31", 30)):
        found = accrued(before)
        share = Fraction(days, 31)
        for name in ("whole", "himal"):
            assert found[name]["flat"]["accrued_amount"] == cents(49 * share)
            assert found[name]["discount"]["accrued_amount"] == cents(Fraction("-4.90") * share)
        assert found["arrears"]["flat"]["accrued_amount"] == cents(49 * share)
    # 22 of 31 days were charged: 34.77 with 3.48 off, of which 6 days
    joined = accrued(BEFORE)["joined"]
    assert [joined[each]["rated_amount"] for each in ("flat", "discount")] == [
        D("34.77"),
        D("-3.48"),
    ]
    assert joined["flat"]["accrued_amount"] == cents(Fraction("34.77") * Fraction(6, 22))
    units.issue("2026-01-01")
    issued = accrued(BEFORE)
    assert issued["whole"]["flat"]["billed_amount"] == D("49.00")
    assert issued["whole"]["flat"]["accrued_amount"] == cents(49 * Fraction(15, 31)) - 49
    assert "whole" not in accrued("2026-02-01"), "earned and billed"


def test_days_of_usage_are_utc_days(units: Company, accrued: Accrued) -> None:
    """In Kathmandu 16 January began at 18:15 of the 15th, in New York at 5:00 of the 16th."""
    units.add_charge("units", "plan", [(None, 1, 0)], "units", model="per_unit")
    for tenant, zone in (("himal", "Asia/Kathmandu"), ("york", "America/New_York")):
        units.subscribe(tenant, "plan", zone=zone, start="2026-01-01T12:00:00Z")
        for at, value in (("15T17", 1), ("15T20", 10), ("16T02", 100), ("16T06", 1000)):
            units.use(tenant, f"2026-01-{at}:00:00Z", value, metric="units")
    units.land_until("2026-01-16T03:00:00Z")
    found = accrued(BEFORE)
    assert found["himal"]["usage"]["accrued_amount"] == 11
    assert not found["york"]["usage"]["is_cut"], "it is the 15th there: all that has landed"
    assert found["york"]["usage"]["accrued_amount"] == 1111
    units.land_until("2026-01-16T07:00:00Z")
    assert accrued(BEFORE)["york"]["usage"]["accrued_amount"] == 11


def cents(amount: Fraction) -> Fraction:
    """To two digits, half away from zero."""
    return rounded(amount, 2)
