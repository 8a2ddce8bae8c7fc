"""Cases about prices: a plan with one charge, usage in one period, and the lines that rating makes of it.

A case of several steps rates and issues the cumulative quantity of each; what a step adds is what its
documents say. A step that is not final lies in a period whose end has not landed yet.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.dbt.company import Row
from tests.vectors.asking import ISSUED, RATED, Asking, Wait, asks
from tests.vectors.cases import Answer, Given, NotSupportedError, decimal, show
from tests.vectors.world import LONG, ROUND, Customer

NOON = timedelta(hours=12)
SLICES = {
    "whole_period": (False, True),
    "first_slice": (False, False),
    "middle_slice": (True, False),
    "last_slice": (True, True),
}
"""Parts of a period that is billed in several steps: whether there is one before, and whether it is the last."""

Tier = dict[str, object]


@dataclass(frozen=True)
class Price:
    """A charge of the catalog."""

    model: str
    tiers: Sequence[Tier]
    columns: Row


# What a case's price is in the catalog


def open_last(tiers: list[Tier], largest: Decimal, last_prices_all: bool) -> list[Tier]:
    """The last tier is always open here; a source may close it above all that it tries."""
    end = tiers[-1]["up_to"]
    if end is not None and largest > Decimal(str(end)) and not last_prices_all:
        raise NotSupportedError("a quantity beyond the last tier, which is always open")
    return [*tiers[:-1], tiers[-1] | {"up_to": None}]


def read_tiers(given: Given, largest: Decimal) -> list[Tier]:
    tiers: list[Tier] = [
        {"up_to": part.take("up_to", None)}
        | part.given("unit_amount", "flat_amount", "rate_percent")
        for part in given.parts("tiers")
    ]
    if not tiers:
        raise NotSupportedError("a price without tiers")
    return open_last(tiers, largest, given.take("model") == "volume")


def _per_unit(given: Given, largest: Decimal) -> Price:
    return Price("per_unit", [{"unit_amount": given.take("unit_amount")}], {})


def _tiered(given: Given, largest: Decimal) -> Price:
    return Price(given.take("model"), read_tiers(given, largest), {})


def _tiered_package(given: Given, largest: Decimal) -> Price:
    """Tiers of blocks begun: where all blocks have a size, tiers of so many of them."""
    parts = given.parts("tiers")
    ends = [part.decimal("up_to", None) for part in parts]
    sizes = {part.decimal("block_size") for part in parts}
    (size,) = sizes if len(sizes) == 1 else (None,)
    if size is None or any(end % size for end in ends[:-1]):
        raise NotSupportedError("tiers of blocks of several sizes")
    tiers: list[Tier] = [
        {"up_to": None if end is None else end / size, "unit_amount": part.take("block_amount")}
        for end, part in zip(ends, parts, strict=True)
    ]
    model = given.take("model").removesuffix("_package")
    blocks = {"operation": "divide", "factor": str(size), "rounding": "ceiling"}
    tiers = open_last(tiers, largest / size, model == "volume")
    return Price(model, tiers, conversion(Given(blocks)))


def _capacity(given: Given, largest: Decimal) -> Price:
    """The flat amount of the tier whose limits hold all that was used: of one metric."""
    tiers: list[Tier] = []
    for part in given.parts("tiers"):
        limits = part.take("limits", {})
        if len(limits) > 1:
            raise NotSupportedError("a price for several metrics together")
        tiers.append({"up_to": next(iter(limits.values()), None), **part.given("flat_amount")})
    return Price("volume", open_last(tiers, largest, last_prices_all=True), {})


def _package(given: Given, largest: Decimal) -> Price:
    size = given.take("package_size")
    return Price("package", [{"flat_amount": given.take("package_amount")}], {"package_size": size})


def _multiplier(given: Given, largest: Decimal) -> Price:
    """The events carry their amount, which is multiplied."""
    return Price("dynamic", [{"unit_amount": given.take("multiplier")}], {})


def _event_amount(given: Given, largest: Decimal) -> Price:
    return Price("dynamic", [], {})


def _flat(given: Given, largest: Decimal) -> Price:
    timing = given.take("payment_term").removeprefix("in_")
    return Price("flat", [{"flat_amount": given.take("amount")}], {"timing": timing})


def _percentage(given: Given, largest: Decimal) -> Price:
    return Price("percentage", [{"rate_percent": given.take("rate_percent")}], {})


MODELS: dict[str, Callable[[Given, Decimal], Price]] = {
    "per_unit": _per_unit,
    "graduated": _tiered,
    "volume": _tiered,
    "graduated_percentage": _tiered,
    "package": _package,
    "multiplier": _multiplier,
    "event_amount": _event_amount,
    "flat": _flat,
    "percentage": _percentage,
    "graduated_package": _tiered_package,
    "volume_package": _tiered_package,
    "capacity_tier": _capacity,
}
SAME_SPLIT = {"per_unit", "graduated", "volume", "flat"}
"""Models whose lines a source may split as our tier slices are split."""

TERMS = {
    "fixed_amount_per_event": "amount_per_event",
    "free_events": "free_events",
    "free_amount": "free_amount",
    "per_event_minimum": "minimum_per_event",
    "per_event_maximum": "maximum_per_event",
}


def read_price(given: Given, largest: Decimal) -> Price:
    model = given.take("model")
    if model not in MODELS:
        raise NotSupportedError(f"the charge model {model}")
    price = MODELS[model](given, largest)
    limits = given.given("minimum_amount", "maximum_amount")
    return Price(price.model, price.tiers, price.columns | limits)


def read_terms(given: Given) -> Row:
    """What stands beside a price: conversion, free units and discounts, as columns of the charge."""
    columns = conversion(given.part("unit_conversion")) if "unit_conversion" in given else {}
    discounts = given.part("discounts")
    included = given.take("included_quantity", discounts.take("usage_quantity", None))
    if given.is_null("included_quantity"):
        included = "unlimited"
    if included is not None:
        columns["included_quantity"] = included
    return columns | discount_terms(discounts)


def discount_terms(given: Given) -> Row:
    names = {"percentage": "discount_percent", "amount_off": "discount_amount"}
    return {names[name]: value for name, value in given.given(*names).items()}


def conversion(given: Given) -> Row:
    terms = given.given("operation", "factor", "rounding", "digits")
    if not given.take("enabled", True):
        if terms:
            raise NotSupportedError("a conversion that is there and switched off")
        return {}
    mode = rounding(terms.get("rounding"))
    return {
        "conversion_operation": given.take("operation"),
        "conversion_factor": given.take("factor"),
        "quantity_rounding": mode,
        "quantity_digits": terms.get("digits", 0) if mode else 0,
    }


def rounding(mode: str | None) -> str | None:
    """What a way to round is called in the catalog."""
    return {"none": None, "ceil": "ceiling", "half_up": "round"}.get(mode or "none", mode)


# Selling it


@dataclass(frozen=True)
class Step:
    """The cumulative quantity at one moment, and whether the period is over then."""

    quantity: Decimal
    final: bool = True


def sell(
    customer: Customer, currency: str, steps: Sequence[Step], price: Price, issue: bool
) -> str:
    """A plan of one charge and a subscription of one period, which ends where the steps say; the charge."""
    end = period_end(customer, steps)
    customer.plan(currency, "day", (end - customer.world.start).days)
    charge = customer.charge(price.model, price.tiers, **price.columns)
    customer.subscribe(customer.world.start, end, billable=issue)
    return charge


def period_end(customer: Customer, steps: Sequence[Step]) -> datetime:
    """Just before the horizon of the first final step; out of reach without one."""
    finals = [number for number, step in enumerate(steps) if step.final]
    if not finals:
        return customer.world.start + LONG
    if not all(step.final for step in steps[finals[0] :]):
        raise NotSupportedError("a step that is not final after one that is")
    return customer.world.start + (finals[0] + 1) * ROUND


def use_up_to(customer: Customer, number: int, steps: Sequence[Step]) -> None:
    """The usage that makes up a step: an event of what it has more, or less, than the one before."""
    before = steps[number - 1].quantity if number else Decimal(0)
    added = steps[number].quantity - before
    if added:
        last = period_end(customer, steps) - NOON
        customer.use(added, min(customer.world.start + number * ROUND + NOON, last))


# What comes out

PARTS = {
    "amount": ("usage", "flat"),
    "discounts_total": ("discount", "maximum"),
    "charges_total": ("minimum", "commitment"),
}


def totals(lines: Iterable[Row]) -> dict[str, Any]:
    """The lines' amounts by part; a discount is stated as what it takes off."""
    lines = list(lines)
    sums = {
        part: sum((row["amount"] for row in lines if row["component"] in components), Decimal(0))
        for part, components in PARTS.items()
    }
    sums["discounts_total"] = -sums["discounts_total"]
    return {**sums, "total": sum((row["amount"] for row in lines), Decimal(0))}


def split(slices: Iterable[Row], lines: Iterable[Row]) -> list[Row]:
    """The tier slices and the minimum as a source writes lines: a line a price."""
    written: list[Row] = []
    for row in slices:
        if row["unit_amount"] and row["quantity"]:
            amount = row["unit_amount"] * row["quantity"]
            written.append(_line(row["unit_amount"], row["quantity"], amount))
        if row["flat_amount"]:
            written.append(_line(row["flat_amount"], Decimal(1), row["flat_amount"]))
    for row in lines:
        if row["component"] == "minimum":
            written.append(_line(row["amount"], Decimal(1), Decimal(0), row["amount"]))
    return written


def _line(
    unit_price: Decimal, quantity: Decimal, amount: Decimal, charge: Decimal = Decimal(0)
) -> Row:
    line: Row = {"unit_price": unit_price, "quantity": quantity, "amount": amount}
    return line | {"charges_total": charge, "total": amount + charge}


class Split:
    """Lines, equal to a source's in price, quantity and amount where both make the same ones."""

    def __init__(self, lines: list[Row] | None, total: Decimal) -> None:
        self.lines, self.total = lines, total

    def __eq__(self, other: Any) -> bool:
        if self.lines is None:
            return sum((Decimal(line["total"]) for line in other), Decimal(0)) == self.total
        names = ("unit_price", "quantity", "amount")
        theirs = [
            tuple(Decimal(line[name]) for name in names)
            for line in other
            if Decimal(line["amount"]) or Decimal(line.get("charges_total", 0))
        ]
        return sorted(theirs) == sorted(tuple(line[name] for name in names) for line in self.lines)

    def __hash__(self) -> int:
        return hash(self.total)

    def __str__(self) -> str:
        return show(self.lines)


# The cases


@asks("price")
def price(given: Given, customer: Customer) -> Asking:
    """What a quantity costs; of a part of a period, what it costs more than what came before."""
    part, currency = given.part("price"), given.take("currency")
    model = part.take("model")
    if "event_amounts" in given or model == "percentage":
        return (yield from percentage(given, customer))
    if "sum_of_event_amounts_minor_units" in given:
        return (yield from carried_by_an_event(given, customer))
    given.take("billed_before_slice", None)  # follows from the quantity before
    if "billed_before" in given:
        return (yield from beyond_billed(given, customer))
    quantity, before = quantity_of(given), given.decimal("quantity_before_slice", None)
    begun, final = slice_of(given)
    flat = model == "flat"
    if before is None and begun and (model == "graduated" or _in_advance(part)):
        before = Decimal(0)  # what is due at once was billed with the first part
    if before is not None:
        return (
            yield from part_of_period(
                given, customer, [Step(before, False), Step(before + quantity, final)]
            )
        )
    terms = read_terms(given)
    sold = read_price(part, quantity)
    steps = [Step(quantity, final)]
    credits = given.values("credits", [])
    sold = Price(sold.model, sold.tiers, sold.columns | terms)
    at_the_end = flat or (model == "volume" and not final)
    sell(customer, currency, steps, sold, issue=at_the_end or bool(credits))
    if not flat:
        use_up_to(customer, 0, steps)
    for number, amount in enumerate(credits):
        customer.grant(f"credit-{number}", currency, Decimal(amount))
    if credits:
        yield ISSUED
        return paid_by_credits(customer, sold)
    yield RATED
    return stated(customer, sold, due_now(customer) if at_the_end else customer.lines())


def quantity_of(given: Given) -> Decimal:
    """What was used; of several metrics only where it is one."""
    if "quantities" not in given:
        return given.decimal("quantity")  # type: ignore[no-any-return]
    quantities = list(given.take("quantities").values())
    if len(quantities) != 1:
        raise NotSupportedError("a price for several metrics together")
    return decimal(quantities[0])


def slice_of(given: Given) -> tuple[bool, bool]:
    """Whether there is a part of the period before this one, and whether the period ends with it."""
    name = given.take("slice", "whole_period")
    if name not in SLICES:
        raise NotSupportedError(f"slice {name}")
    return SLICES[name]


def _in_advance(price: Given) -> bool:
    return bool(price.take("payment_term", "in_arrears") == "in_advance")


def paid_by_credits(customer: Customer, price: Price) -> Answer:
    """What a document says of lines that credits pay."""
    documents = customer.documents()
    paid = sum((row["credit_amount"] for row in documents), Decimal(0))
    due = sum((row["amount_due"] for row in documents), Decimal(0))
    return stated(customer, price, customer.lines()) | {"credits_total": paid, "total": due}


def due_now(customer: Customer) -> list[Row]:
    """The draft lines whose billing instant has come."""
    return customer.world.rows(
        "select * from invoices.draft_invoice_lines where subscription_id = %s and bill_at <= %s",
        customer.name,
        customer.world.horizon,
    )


def stated(customer: Customer, price: Price, lines: list[Row]) -> dict[str, Any]:
    """Everything that a source may state of a price's lines."""
    sums = totals(lines)
    slices = [row for row in customer.slices() if row["component"] in PARTS["amount"]]
    alike = price.model in SAME_SPLIT
    usage = [row for row in customer.lines() if row["component"] in PARTS["amount"]]
    exact = sum((row["exact_amount"] for row in usage), Decimal(0))
    billable = sum((row["billable_quantity"] for row in usage), Decimal(0))
    written = split(slices if lines else [], lines) if alike else None
    packages = [row["amount"] / row["flat_amount"] for row in slices if row["flat_amount"]]
    return sums | {
        "unrounded_amount": exact,
        "billable_quantity": billable,
        "packages": sum(packages, Decimal(0)),
        "tiers": [{"quantity": row["quantity"], "amount": row["amount"]} for row in slices],
        "lines": Split(written, sums["total"]),
    }


def part_of_period(given: Given, customer: Customer, steps: list[Step]) -> Asking:
    """The second step's documents, of a period that is billed in two."""
    sold = sell_in_steps(given, customer, steps)
    yield from issue_step(customer, 0, steps)
    second = yield from issue_step(customer, 1, steps)
    alike = sold.model in SAME_SPLIT and not second["total"]
    return second | {"lines": Split([] if alike else None, second["total"])}


def sell_in_steps(given: Given, customer: Customer, steps: list[Step]) -> Price:
    """What is sold, with the first step's usage."""
    terms = read_terms(given)
    sold = read_price(given.part("price"), max(step.quantity for step in steps))
    columns = sold.columns | terms
    sell(
        customer, given.take("currency"), steps, Price(sold.model, sold.tiers, columns), issue=True
    )
    use_up_to(customer, 0, steps)
    return sold


def issue_step(
    customer: Customer, number: int, steps: list[Step]
) -> Generator[Wait, None, dict[str, Any]]:
    """Issue a step; what its documents say. The first step's usage is there already."""
    if number:
        use_up_to(customer, number, steps)
    yield ISSUED
    return totals(customer.document_lines())


@asks("snapshots")
def snapshots(given: Given, customer: Customer) -> Asking:
    """The documents of a period that is billed in steps: each the difference to those before."""
    steps = []
    for part in given.parts("snapshots"):
        part.take(
            "slice", None
        )  # where the source dates the difference; here it has the period's dates
        steps.append(Step(part.decimal("cumulative_quantity"), part.take("final")))
    sold = sell_in_steps(given, customer, steps)
    increments: list[dict[str, Any]] = []
    for number in range(len(steps)):
        said = yield from issue_step(customer, number, steps)
        # How a difference is split into lines is the source's own; none is none.
        lines = Split(
            [] if not said["total"] and not sold.columns.get("maximum_amount") else None,
            said["total"],
        )
        increments.append(said | {"lines": lines})
    return {
        "increments": increments,
        "second_increment": increments[1] if len(increments) > 1 else {},
    }


def beyond_billed(given: Given, customer: Customer) -> Asking:
    """What a quantity costs beyond an amount that was billed: a first step that costs just that."""
    part = given.part("price")
    billed, quantity = given.decimal("billed_before"), given.decimal("quantity")
    sizes = {"package": ("package_size", "package_amount"), "per_unit": (None, "unit_amount")}
    size, amount = sizes.get(part.take("model"), (None, None))
    if amount is None or billed % part.decimal(amount):
        raise NotSupportedError("an amount billed before that no quantity costs")
    first = billed / part.decimal(amount) * (part.decimal(size) if size else 1)
    steps = [Step(first, False), Step(quantity)]
    sell_in_steps(given, customer, steps)
    yield from issue_step(customer, 0, steps)
    return {"second_increment": (yield from issue_step(customer, 1, steps))}


def percentage(given: Given, customer: Customer) -> Asking:
    """A share of the amounts of events, an event an amount, in their order."""
    part = given.part("price")
    terms = {TERMS[name]: value for name, value in part.given(*TERMS).items()}
    if "event_amounts" not in given and terms:
        raise NotSupportedError("what is charged by event, of a quantity whose events are not said")
    if "event_amounts" in given:
        amounts = [decimal(amount) for amount in given.values("event_amounts")]
    else:
        amounts = [given.decimal("quantity")]
    if not decimal(terms.get("free_amount", 1)):
        del terms["free_amount"]  # a source's way to say that no amount is free
    steps = [Step(sum(amounts, Decimal(0)))]
    sold = read_price(part, steps[0].quantity)
    charge = sell(customer, given.take("currency"), steps, sold, issue=False)
    if terms:
        customer.company.add("percentage_terms", charge_id=charge, version=1, **terms)
    for number, amount in enumerate(amounts):
        customer.use(amount, customer.world.start + timedelta(hours=1, minutes=number))
    yield RATED
    return stated(customer, sold, customer.lines())


def carried_by_an_event(given: Given, customer: Customer) -> Asking:
    """An event of a quantity that carries its amount; what a unit of it costs."""
    currency, quantity = given.take("currency"), given.decimal("quantity")
    sold = read_price(given.part("price"), quantity)
    currencies = customer.company.catalog["currencies"]
    digits = {row["currency"]: int(str(row["minor_digits"])) for row in currencies}.get(currency, 2)
    amount = given.decimal("sum_of_event_amounts_minor_units").scaleb(-digits)
    customer.metric("sum", value_property="amount")
    customer.plan(currency, "day", ROUND.days)
    customer.charge(sold.model, sold.tiers, metric=customer.name, **sold.columns)
    customer.subscribe(customer.world.start, customer.world.start + ROUND)
    at = customer.world.start + timedelta(hours=1)
    customer.use(quantity, at, customer.name, properties={"amount": f"{amount:f}"})
    yield RATED
    said = stated(customer, sold, customer.lines())
    (used,) = customer.rows("select sum(quantity) from ledger.usage_events where tenant_id = %s")
    total = said["unrounded_amount"]
    return said | {"unit_amount": total / used["sum"] if used["sum"] else total}


@asks("split_allowance")
def split_allowance(given: Given, customer: Customer) -> Asking:
    """What is billable of two steps that share the period's included units."""
    included, added = given.take("included_quantity"), given.decimal("quantity")
    before = given.decimal("quantity_before_slice", Decimal(0))
    steps = [Step(before, False), Step(before + added)]
    price = Price("per_unit", [{"unit_amount": 1}], {"included_quantity": included})
    sell(customer, "USD", steps, price, issue=False)
    billable = []
    for number in range(len(steps)):
        use_up_to(customer, number, steps)
        yield RATED
        billable.append(sum((row["billable_quantity"] for row in customer.lines()), Decimal(0)))
    return {
        "billable_before_slice": billable[0],
        "billable_quantity": billable[1] - billable[0],
        "allowance_used": added - (billable[1] - billable[0]),
    }


@asks("cap_discount")
def cap_discount(given: Given, customer: Customer) -> Asking:
    """The maximum over a line that comes after others: what the second step's documents take off."""
    before, line = given.decimal("billed_before"), given.decimal("line_amount")
    steps = [Step(before, False), Step(before + line)]
    price = Price(
        "per_unit", [{"unit_amount": 1}], {"maximum_amount": given.take("maximum_amount")}
    )
    sell(customer, given.take("currency"), steps, price, issue=True)
    use_up_to(customer, 0, steps)
    yield from issue_step(customer, 0, steps)
    said: Mapping[str, Any] = yield from issue_step(customer, 1, steps)
    return {"discount": said["discounts_total"], "line_total": said["total"]}


@asks("discount")
def discount(given: Given, customer: Customer) -> Asking:
    """A discount of a charge, by percentage or amount."""
    amount = given.decimal("amount")
    price = Price("per_unit", [{"unit_amount": 1}], discount_terms(given))
    sell(customer, given.take("currency"), [Step(amount)], price, issue=False)
    use_up_to(customer, 0, [Step(amount)])
    yield RATED
    said = totals(customer.lines())
    return {"discount": said["discounts_total"], "total": said["total"]}
