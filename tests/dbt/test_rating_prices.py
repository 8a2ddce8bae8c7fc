"""Quantities become money: every charge model against plain decimals and the shared vectors."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest

from metering_pipeline.settings import PROJECT_ROOT
from tests.dbt.company import Company, Row
from tests.dbt.price_oracle import Case, amounts

VECTORS = PROJECT_ROOT.parent / "shared" / "vectors"
DIGITS = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}

MODELS_WITH_PRICES = (
    *("per_unit", "graduated", "volume", "package", "percentage", "graduated_percentage"),
    *("matrix", "dynamic", "flat"),
)
SLICES_THAT_ARE_NOT_THE_LINE = """
    select line.*
    from rating.rated_lines as line
    where exact_amount <> (
        select coalesce(sum(amount), 0)
        from rating.tier_slices as slice
        where
            (subscription_id, charge_id, component, slice_start)
            = (line.subscription_id, line.charge_id, line.component, line.slice_start)
    )
"""

Rate = Callable[[], None]
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


def test_graduated_and_per_unit_vectors(units: Company, rate: Rate) -> None:
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


def test_money_rounding_vectors(units: Company, rate: Rate) -> None:
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


def test_random_tiers_agree_with_plain_decimals(units: Company, rate: Rate) -> None:
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
    assert units.rows(SLICES_THAT_ARE_NOT_THE_LINE) == []


def sell_case(company: Company, name: str, currency: str, case: Case) -> None:
    """A tenant of its own, with the case's charge in a plan of its own and its usage in January."""
    company.add_plan(name, currency=currency)
    metric = {"matrix": "by_region", "flat": None}.get(case.model, "units")
    company.add_charge(name, name, case.tiers, metric=metric, model=case.model, **case.terms)
    if case.per_event:
        company.add("percentage_terms", charge_id=name, version=1, **case.per_event)
    first_day = 32 - int(case.days * 31)
    company.subscribe(
        name, name, start=f"2026-01-{first_day:02}T00:00:00Z", end="2026-02-01T00:00:00Z"
    )
    for number, quantity in enumerate(case.events):
        at = f"2026-01-31T{number:02}:00:00Z"
        company.record_event(name, at, metric="units", quantity=quantity)
    for region, quantity in case.by_region.items():
        company.use(name, "2026-01-31T12:00:00Z", quantity, metric="by_region", region=region)
    if case.quantity and not case.events and not case.by_region:
        company.use(name, "2026-01-31T12:00:00Z", case.quantity, metric="units")


class Dice(random.Random):
    """Random prices and quantities, at the edges as often as between them."""

    def number(self, largest: int, places: tuple[int, ...] = (0, 2, 5)) -> Decimal:
        return Decimal(self.randrange(largest)).scaleb(-self.choice(places))

    def maybe(self, **values: object) -> Row:
        """Each of the values, or not."""
        return {name: value for name, value in values.items() if self.random() < 0.5}

    def case(self, digits: int) -> Case:
        """Any model with any terms that go with it."""
        model = self.choice(MODELS_WITH_PRICES)
        case = Case(model, self.tiers(model), digits=digits)
        case.terms |= self.maybe(
            discount_percent=self.choice(("10", "33.333", "100", "150")),
            discount_amount=self.number(20_000, (2, 3)),
            prorated=self.choice(("true", "false")),
        )
        case.days = Fraction(self.choice((31, 31, 25, 1)), 31)
        if model == "package":
            case.terms["package_size"] = self.choice(("10", "0.25", "7", "1000"))
        if model != "flat":
            self.use(case)
        return case

    def tiers(self, model: str) -> list[Row]:
        if model == "matrix":
            return [
                {"dimension_values": values, "unit_amount": self.number(1000)}
                for values in ('{"region": "eu"}', "{}", '{"region": "us"}')
            ]
        edges = sorted(self.sample(range(1, 16000), self.randrange(4)))
        if model not in ("graduated", "volume", "graduated_percentage"):
            edges = []
        tiers: list[Row] = [
            {"up_to": None if edge is None else Decimal(edge) / 8} for edge in [*edges, None]
        ]
        for tier in tiers:
            if model in ("graduated", "volume", "per_unit", "dynamic"):
                tier["unit_amount"] = self.number(100_000, (0, 2, 5, 12))
            if model in ("graduated_percentage", "percentage"):
                tier["rate_percent"] = self.number(30_000, (2, 3))
            if model in ("graduated", "volume", "package", "flat", "graduated_percentage"):
                tier["flat_amount"] = self.number(50_000, (2, 4))
        return self.choice(([], tiers)) if model == "dynamic" else tiers

    def use(self, case: Case) -> None:
        """Usage, and what a usage charge may say beyond its price."""
        smaller, larger = sorted(self.number(90_000, (0, 2, 3)) for _ in range(2))
        case.terms |= self.maybe(minimum_amount=smaller, maximum_amount=larger)
        if self.random() < 0.4:
            case.terms["conversion_operation"] = self.choice(("multiply", "divide"))
            case.terms["conversion_factor"] = self.choice(("1000", "3", "0.7", "1024", "3600"))
        if case.model == "matrix":
            regions = self.sample(("eu", "us", "asia", "africa"), self.randrange(5))
            case.by_region = {region: self.number(100_000) for region in regions}
            return
        if case.model == "percentage":
            case.events = [self.number(100_000, (0, 2)) for _ in range(self.randrange(6))]
            case.quantity = sum(case.events, Decimal(0))
            case.per_event = self.maybe(amount_per_event=self.number(300, (2,)))
            if self.random() < 0.6:
                free_amount = sum(case.events[: self.randrange(4)], Decimal(0))
                case.per_event |= self.maybe(
                    free_events=self.randrange(5),
                    free_amount=self.choice((free_amount, free_amount + 1)),
                    minimum_per_event="1.75",
                    maximum_per_event="12",
                )
            if set(case.per_event) - {"amount_per_event"}:
                return
        else:
            edges = [tier["up_to"] for tier in case.tiers if tier.get("up_to")]
            case.quantity = self.choice((Decimal(0), *edges, self.number(4_000_000, (3,))))
        self.measure(case)

    def measure(self, case: Case) -> None:
        case.terms |= self.maybe(
            included_quantity=self.choice(("10", "100.5", "1000", "unlimited"))
        )
        if self.random() < 0.3:
            case.terms["quantity_rounding"] = self.choice(("round", "ceiling", "floor"))
            case.terms["quantity_digits"] = self.choice(("0", "2", "-1", "-2", "5"))


def test_every_model_agrees_with_plain_fractions(units: Company, rate: Rate) -> None:
    """Four hundred random charges with random terms: each component, and the slices' sum."""
    dice = Dice(20260101)
    units.add_metric("by_region", dimensions='["region"]')
    cases = {}
    for number in range(400):
        currency = dice.choice(list(DIGITS))
        cases[f"t-{number}"] = dice.case(DIGITS[currency])
        sell_case(units, f"t-{number}", currency, cases[f"t-{number}"])
    rate()

    rated: dict[str, dict[str, Fraction]] = {name: {} for name in cases}
    for line in units.rows("select * from rating.rated_lines"):
        rated[line["charge_id"]][line["component"]] = Fraction(line["amount"])
    for name, case in cases.items():
        assert rated[name] == amounts(case), (name, case)
        assert sum(rated[name].values()) >= 0
    assert units.rows("select * from rating.unrated_usage") == []
    assert units.rows(SLICES_THAT_ARE_NOT_THE_LINE) == []
    assert {case.model for case in cases.values()} == set(MODELS_WITH_PRICES)


DAYS = ("2026-02-04", "2026-03-08", "2026-05-08")
"""When documents are issued; each time with usage that came late for those before."""

WHAT_IS_NOT_BILLED_OR_DUE = """
    select charge_id, component, sum(amount) as amount
    from (
        select charge_id, component, amount from rating.rated_lines
        union all
        select charge_id, component, -amount from invoices.issued_invoice_lines
        union all
        select charge_id, component, -amount from invoices.draft_invoice_lines
    ) as lines
    group by charge_id, component
    having sum(amount) <> 0
"""
DOCUMENTS_THAT_ARE_NOT_THEIR_LINES = """
    select draft_id, total, sum(amount)
    from invoices.draft_invoices
    inner join invoices.draft_invoice_lines using (draft_id)
    group by draft_id, total
    having total <> sum(amount)
"""


def pieces_of(case: Case, dice: Dice) -> list[Row]:
    """The case's usage in pieces that can come in any order; some of them are taken back by others."""
    if case.events:
        return [
            {"at": f"2026-01-31T{number:02}:00:00Z", "quantity": quantity, "metric": "units"}
            for number, quantity in enumerate(case.events)
        ]
    whole = case.by_region or ({"": case.quantity} if case.quantity else {})
    pieces = []
    for region, quantity in whole.items():
        first, second = dice.number(9_000, (2,)), -dice.number(9_000, (2,))
        for part in (first, second, quantity - first - second):
            piece = {"at": "2026-01-31T12:00:00Z", "value": part, "metric": "units"}
            pieces.append(piece | ({"metric": "by_region", "region": region} if region else {}))
    return pieces


def test_late_usage_of_every_model_adds_up(units: Company, rate: Rate) -> None:
    """In any order, over three issuings: billed and due are what is rated, and that is what it costs."""
    dice = Dice(20260201)
    units.add_metric("by_region", dimensions='["region"]')
    cases = {}
    waves: list[list[tuple[str, Row]]] = [[] for _ in DAYS]
    for number in range(80):
        currency = dice.choice(list(DIGITS))
        case = dice.case(DIGITS[currency])
        pieces = pieces_of(case, dice)
        for name in (f"t-{number}", f"u-{number}"):
            cases[name] = case
            sell_case(units, name, currency, replace(case, quantity=0, events=[], by_region={}))
            dice.shuffle(pieces)
            for piece in pieces:
                dice.choice(waves).append((name, piece))
    for day, wave in zip(DAYS, waves, strict=True):
        for name, piece in wave:
            (units.record_event if "quantity" in piece else units.use)(name, **piece)  # type: ignore[arg-type]
        rate()
        assert units.rows(SLICES_THAT_ARE_NOT_THE_LINE) == []
        assert units.rows(WHAT_IS_NOT_BILLED_OR_DUE) == []
        assert units.rows(DOCUMENTS_THAT_ARE_NOT_THEIR_LINES) == []
        units.issue(day)
    rate()

    assert units.draft_lines() == []
    billed: dict[str, dict[str, Fraction]] = {name: {} for name in cases}
    for line in units.rows(
        "select charge_id, component, sum(amount) as amount from invoices.issued_invoice_lines"
        " group by charge_id, component having sum(amount) <> 0"
    ):
        billed[line["charge_id"]][line["component"]] = Fraction(line["amount"])
    for name, case in cases.items():
        assert billed[name] == {part: sum_ for part, sum_ in amounts(case).items() if sum_}, name
    assert {case.model for case in cases.values()} == set(MODELS_WITH_PRICES)


def test_aggregations_price_their_own_figure(company: Company, rate: Rate) -> None:
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


def test_flat_fees_go_by_local_days(company: Company, rate: Rate) -> None:
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


def lines_of(company: Company, charge: str) -> dict[str, Decimal]:
    query = "select component, amount from rating.rated_lines where charge_id = %s"
    return {row["component"]: row["amount"] for row in company.rows(query, charge)}


def test_a_minimum_waits_for_the_end_of_the_period(units: Company, rate: Rate) -> None:
    """Discount and maximum hold from the start; the minimum is due once all has landed."""
    units.add_plan("plan")
    terms = {"discount_percent": 10, "minimum_amount": 100, "maximum_amount": 200}
    units.add_charge("units", "plan", [(None, 1, 0)], "units", model="per_unit", **terms)
    units.subscribe("acme", "plan", end="2026-03-01T00:00:00Z")
    units.use("acme", "2026-02-01T00:00:00Z", 50, metric="units")
    rate()
    query = "select component, amount from rating.rated_lines where slice_start = '2026-02-01Z'"
    february = {"usage": Decimal("50.00"), "discount": Decimal("-5.00")}
    assert {row["component"]: row["amount"] for row in units.rows(query)} == february
    units.land_until("2026-03-01T00:00:00Z")
    rate()
    february["minimum"] = Decimal("55.00")
    assert {row["component"]: row["amount"] for row in units.rows(query)} == february


def test_increments_add_up_to_the_cumulative(units: Company, rate: Rate) -> None:
    """Issued three times with late usage between: each component's sum is its rated amount."""
    units.add_plan("plan")
    tiers = [(10, "0.333", 1), (None, "0.111", 0)]
    terms = {"discount_percent": "33.3", "minimum_amount": 5, "maximum_amount": "7.77"}
    units.add_charge("units", "plan", tiers, "units", model="volume", **terms)
    units.subscribe("acme", "plan", end="2026-02-01T00:00:00Z")
    kinds = set()
    for day, quantity in (("2026-02-04", 3), ("2026-03-08", "8.5"), ("2026-05-08", 200)):
        units.use("acme", "2026-01-10T00:00:00Z", quantity, metric="units")
        rate()
        kinds |= {(line["component"], line["kind"]) for line in units.draft_lines()}
        assert len(units.issue(day)) == 1
        rate()
        assert units.draft_lines() == []
    billed = {
        row["component"]: row["amount"]
        for row in units.rows(
            "select component, sum(amount) as amount from invoices.issued_invoice_lines "
            "group by component having sum(amount) <> 0"
        )
    }
    assert billed == lines_of(units, "units")
    assert set(billed) == {"usage", "discount", "maximum"}
    # the minimum was billed and taken back; the maximum came with the last usage, as its adjustment
    assert ("minimum", "adjustment") in kinds
    assert ("maximum", "regular") not in kinds


def test_the_order_of_arrival_does_not_matter(units: Company, rate: Rate) -> None:
    units.add_plan("plan")
    units.add_charge("units", "plan", [(None, 0, 0)], "units", model="percentage")
    units.catalog["charge_tiers"][-1]["rate_percent"] = "2.5"
    per_event = {"free_events": 2, "free_amount": 100, "maximum_per_event": 3}
    units.add("percentage_terms", charge_id="units", version=1, amount_per_event="0.3", **per_event)
    events = [("02", "60"), ("03", "70.5"), ("05", "1"), ("08", "500"), ("09", "0")]
    dice = random.Random(5)
    for tenant in ("one", "two", "three"):
        units.subscribe(tenant, "plan", end="2026-02-01T00:00:00Z")
        for day, amount in events:
            at = f"2026-01-{day}T00:00:00Z"
            units.record_event(tenant, at, metric="units", quantity=amount)
            if tenant == "two":
                rate()
        dice.shuffle(events)
    rate()
    # 60 is free, 30.5 of 70.5 pays, 500 reaches the limit: 1.0625 + 0.325 + 3 + 0.3
    assert set(units.amounts().values()) == {Decimal("4.69")}


def test_matrix_usage_without_a_price_is_not_free(units: Company, rate: Rate) -> None:
    """It holds the invoice until a row takes it; a row for it is enough, nothing is landed again."""
    units.add_metric("by_region", dimensions='["region"]')
    units.add_plan("plan")
    tiers = [{"dimension_values": '{"region": "eu"}', "unit_amount": 2}]
    units.add_charge("calls", "plan", tiers, "by_region", model="matrix")
    units.subscribe("acme", "plan", end="2026-02-01T00:00:00Z")
    for region, quantity in (("eu", 10), ("us", 7)):
        units.use("acme", "2026-01-10T00:00:00Z", quantity, metric="by_region", region=region)
    rate()
    assert lines_of(units, "calls") == {"usage": Decimal("20.00")}
    query = "select reason, holds, value_sum from rating.unrated_usage"
    assert units.rows(query) == [{"reason": "no_price", "holds": True, "value_sum": Decimal(7)}]

    row = {"dimension_values": "{}", "unit_amount": "0.5", "flat_amount": 0}
    units.add("charge_tiers", charge_id="calls", version=1, tier=2, **row)
    rate()
    assert lines_of(units, "calls") == {"usage": Decimal("23.50")}
    assert units.rows(query) == []


def test_a_matrix_of_periods_that_cut_hours(units: Company, rate: Rate) -> None:
    """Midnight in Kathmandu is 18:15 UTC: the parts of that hour are read from the ledger."""
    units.add_metric("by_region", dimensions='["region"]')
    units.add_plan("plan")
    tiers = [{"dimension_values": "{}", "unit_amount": 1}]
    units.add_charge("calls", "plan", tiers, "by_region", model="matrix")
    start = "2026-01-01T00:00:00+05:45"
    units.subscribe("himal", "plan", zone="Asia/Kathmandu", start=start)
    for at, quantity in (("18:00", 1), ("18:14", 2), ("18:15", 4), ("18:59", 8), ("19:00", 16)):
        at = f"2026-01-31T{at}:00Z"
        units.record_event("himal", at, metric="by_region", quantity=quantity)
    rate()
    query = (
        "select quantity, billable_quantity, amount from rating.rated_lines order by slice_start"
    )
    assert [tuple(row.values()) for row in units.rows(query)] == [(3, 3, 3), (28, 28, 28)]


def test_a_commitment_is_what_the_other_lines_leave(units: Company, rate: Rate) -> None:
    """Not before the period is over; up and down with late usage; by days; per subscription."""
    units.add_plan("plan")
    units.add_charge(
        "units", "plan", [(None, 1, 0)], "units", model="per_unit", discount_percent=10
    )
    units.add_fee("fee", "plan", "20.00", prorated="false")
    units.add_commitment("committed", "plan", "100.00")
    units.subscribe("acme", "plan", end="2026-03-01T00:00:00Z")
    units.subscribe("short", "plan", start="2026-01-17T00:00:00Z", end="2026-02-01T00:00:00Z")
    units.use("acme", "2026-01-20T00:00:00Z", 30, metric="units")
    rate()
    query = (
        "select tenant_id, slice_start::date::text as day, amount from rating.rated_lines "
        "where component = 'commitment' order by 1, 2"
    )

    def commitments() -> list[tuple[object, ...]]:
        return [tuple(row.values()) for row in units.rows(query)]

    # 100 - 20 - 27; 100 x 15 / 31 - 20
    short = ("short", "2026-01-17", Decimal("28.39"))
    assert commitments() == [("acme", "2026-01-01", Decimal("53.00")), short]
    units.use("acme", "2026-01-21T00:00:00Z", 50, metric="units")
    rate()
    assert commitments() == [("acme", "2026-01-01", Decimal("8.00")), short]
    units.use("acme", "2026-01-22T00:00:00Z", 50, metric="units")
    units.land_until("2026-03-01T00:00:00Z")
    rate()
    assert commitments() == [("acme", "2026-02-01", Decimal("80.00")), short]
    assert units.rows(SLICES_THAT_ARE_NOT_THE_LINE) == []


def test_a_division_that_never_ends_keeps_its_half_cent(units: Company, rate: Rate) -> None:
    """A third at 0.015 is half a cent exactly, though the third itself has no last digit."""
    units.add_plan("plan")
    conversion = {"conversion_operation": "divide", "conversion_factor": 3}
    units.add_charge("units", "plan", [(None, "0.015", 0)], "units", model="per_unit", **conversion)
    units.subscribe("acme", "plan", end="2026-02-01T00:00:00Z")
    units.use("acme", "2026-01-10T00:00:00Z", 1, metric="units")
    rate()
    (line,) = units.rows("select * from rating.rated_lines")
    assert (line["quantity"], line["billable_quantity"]) == (1, Decimal("0.333333333333333333"))
    assert (line["exact_amount"], line["amount"]) == (Decimal("0.005"), Decimal("0.01"))
