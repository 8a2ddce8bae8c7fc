"""Quantities become money: every charge model against plain decimals and the shared vectors."""

import json
import random
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import pytest

from metering_pipeline.settings import PROJECT_ROOT
from tests.dbt.company import Company, Row

VECTORS = PROJECT_ROOT.parent / "shared" / "vectors"
DIGITS = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}

Tiers = list[tuple[Decimal | None, Decimal, Decimal]]


def vectors(name: str) -> list[Row]:
    """The portable cases of a file of vectors, or a skipped test where they are not there."""
    path = VECTORS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"needs the vectors {name} in {VECTORS}, which are not there")
    return [case for case in json.loads(path.read_text()) if case["portability"] == "portable"]


def rounded(amount: Decimal, currency: str) -> Decimal:
    """Half away from zero to the currency's minor digits: decimal's ROUND_HALF_UP."""
    return amount.quantize(Decimal(1).scaleb(-DIGITS[currency]), ROUND_HALF_UP)


def graduated(quantity: Decimal, tiers: Tiers) -> Decimal:
    """What the quantity costs: each tier's part, and its flat amount once it is reached."""
    total, above = Decimal(0), Decimal(0)
    for number, (up_to, unit_amount, flat_amount) in enumerate(tiers):
        if number > 0 and quantity <= above:
            break
        part = (quantity if up_to is None else min(quantity, up_to)) - above
        total += part * unit_amount + flat_amount
        above = above if up_to is None else up_to
    return total


def open_last(tiers: list[Any]) -> list[Any]:
    """The last tier is always open here; one suite closes it above every quantity it tries."""
    return [*tiers[:-1], (None, *tiers[-1][1:])]


def sell(company: Company, name: str, currency: str, tiers: list[Any], quantity: object) -> None:
    """A plan of its own for a tenant of its own, and its usage in January."""
    company.add_plan(name, currency=currency)
    company.add_charge(f"{name}-units", name, tiers, metric="units")
    company.subscribe(name, name, end="2026-02-01T00:00:00Z")
    if Decimal(str(quantity)):
        company.use(name, "2026-01-10T12:00:00Z", quantity, metric="units")


@pytest.fixture
def units(company: Company) -> Company:
    company.add_metric("units")
    company.land_until("2026-02-02T00:00:00Z")
    return company


def test_graduated_and_per_unit_vectors(units: Company, rate: Callable[[], None]) -> None:
    """Other billing systems' suites agree: total, and tier by tier where they state it."""
    cases: dict[str, Row] = {}
    for case in vectors("graduated") + vectors("per_unit"):
        name = f"t-{len(cases)}"
        inputs = case["inputs"]
        price = inputs["price"]
        tiers = (
            open_last([(t["up_to"], t["unit_amount"], t["flat_amount"]) for t in price["tiers"]])
            if price["model"] == "graduated"
            else [(None, price["unit_amount"], 0)]
        )
        sell(units, name, inputs["currency"], tiers, inputs["quantity"])
        cases[name] = case
    rate()

    amounts = units.amounts()
    slices = units.rows("select * from rating.tier_slices order by charge_id, tier")
    for name, case in cases.items():
        assert amounts[name] == Decimal(case["expected"]["total"]), case["id"]
        stated = [
            (Decimal(t["quantity"]), Decimal(t["amount"]))
            for t in case["expected"].get("tiers", [])
        ]
        ours = [(s["quantity"], s["amount"]) for s in slices if s["charge_id"] == f"{name}-units"]
        assert not stated or ours == stated, case["id"]


def test_money_rounding_vectors(units: Company, rate: Callable[[], None]) -> None:
    """A line is rounded half away from zero, negative ones too, to its currency's digits."""
    cases: dict[str, Row] = {}
    for case in vectors("rounding"):
        inputs = case["inputs"]
        if inputs["op"] not in ("round", "round_money") or inputs.get("currency") not in DIGITS:
            continue
        name = f"t-{len(cases)}"
        sell(units, name, inputs["currency"], [(None, inputs["amount"], 0)], 1)
        cases[name] = case
    assert cases
    rate()

    amounts = units.amounts()
    for name, case in cases.items():
        expected = case["expected"].get("rounded", case["expected"].get("amount"))
        assert amounts[name] == Decimal(expected), case["id"]


def test_random_tiers_agree_with_plain_decimals(units: Company, rate: Callable[[], None]) -> None:
    """Three hundred random prices and quantities, at the tiers' edges too."""
    dice = random.Random(20260101)
    expected = {}
    for number in range(300):
        name = f"t-{number}"
        currency = dice.choice(list(DIGITS))
        edges = sorted(dice.sample(range(1, 16000), dice.randrange(4)))
        tiers: Tiers = [
            (
                None if edge is None else Decimal(edge) / 8,
                Decimal(dice.randrange(100_000)).scaleb(-dice.choice((0, 2, 5, 12))),
                Decimal(dice.choice((0, 0, 5, 125))).scaleb(-2),
            )
            for edge in [*edges, None]
        ]
        quantity = dice.choice(
            [
                Decimal(0),
                Decimal(dice.randrange(4_000_000)).scaleb(-3),
                *(tier[0] for tier in tiers if tier[0] is not None),
            ]
        )
        sell(units, name, currency, list(tiers), quantity)
        with localcontext() as context:
            context.prec = 60
            expected[name] = rounded(graduated(quantity, tiers), currency)
    rate()

    assert units.amounts() == expected
    assert (
        units.rows(
            "select line.* from rating.rated_lines as line where exact_amount <> "
            "(select sum(amount) from rating.tier_slices as slice where slice.charge_id = line.charge_id)"
        )
        == []
    )


def test_aggregations_price_their_own_figure(company: Company, rate: Callable[[], None]) -> None:
    """count, sum, min, max and latest of the same usage; nothing used is 0."""
    company.land_until("2026-02-02T00:00:00Z")
    company.add_plan("plan")
    for aggregation in ("sum", "min", "max", "latest"):
        company.add_metric(aggregation, aggregation)
    for metric in ("requests", "sum", "min", "max", "latest"):
        company.add_charge(metric, "plan", [(None, 1, 0)], metric=metric, model="per_unit")
    company.subscribe("acme", "plan", end="2026-02-01T00:00:00Z")
    company.subscribe("idle", "plan", end="2026-02-01T00:00:00Z")
    for metric in ("requests", "sum", "min", "max", "latest"):
        company.use("acme", "2026-01-05T00:00:00Z", 7, metric=metric, count=3)
        company.use("acme", "2026-01-25T00:00:00Z", 4, metric=metric, count=2)
        company.use("acme", "2026-01-15T00:00:00Z", 9, metric=metric, count=1)
    rate()

    lines = {
        (row["tenant_id"], row["charge_id"]): row["quantity"]
        for row in company.rows("select * from rating.rated_lines")
    }
    figures = {"requests": 6, "sum": 20, "min": 4, "max": 9, "latest": 4}
    assert {metric: lines["acme", metric] for metric in figures} == figures
    assert {lines["idle", metric] for metric in figures} == {Decimal(0)}


def test_flat_fees_go_by_local_days(company: Company, rate: Callable[[], None]) -> None:
    """A short period pays its calendar days over those of the full period, rounded once."""
    company.land_until("2026-04-02T00:00:00Z")
    company.add_plan("plan")
    company.add_fee("fee", "plan", "50.00")
    company.subscribe("full", "plan", end="2026-02-01T00:00:00Z")
    company.subscribe("late", "plan", start="2026-01-08T14:30:00Z", end="2026-02-01T00:00:00Z")
    company.subscribe("gone", "plan", end="2026-01-08T00:00:00Z")
    # March in Berlin has a day of 23 hours: it counts as one.
    company.subscribe(
        "berlin",
        "plan",
        zone="Europe/Berlin",
        start="2026-03-16T00:00:00+01:00",
        end="2026-04-01T00:00:00+02:00",
    )
    rate()

    amounts = company.amounts()
    assert amounts == {
        "full": Decimal("50.00"),
        "late": Decimal("38.71"),
        "gone": Decimal("11.29"),
        "berlin": Decimal("25.81"),
    }
    descriptions = {line["tenant_id"]: line["description"] for line in company.draft_lines()}
    assert descriptions["late"] == "fee (24 of 31 days)"
    assert descriptions["full"] == "fee"
