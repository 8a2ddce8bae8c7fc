"""What a charge costs, in plain Python: Fractions, loops, and nothing of the models' SQL."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from tests.dbt.company import Row


@dataclass
class Case:
    """A charge, and what was used of it in the period or the part of one."""

    model: str
    tiers: list[Row]
    quantity: Decimal = Decimal(0)
    terms: Row = field(default_factory=dict)
    per_event: Row = field(default_factory=dict)
    events: list[Decimal] = field(default_factory=list)
    by_region: dict[str, Decimal] = field(default_factory=dict)
    digits: int = 2
    days: Fraction = Fraction(1)
    complete: bool = True

    def term(self, name: str, default: object = 0) -> Fraction:
        return Fraction(str(self.terms.get(name, default)))


def rounded(amount: Fraction, digits: int) -> Fraction:
    """Half away from zero."""
    scaled = abs(amount) * Fraction(10) ** digits
    whole = floor(scaled + Fraction(1, 2)) / Fraction(10) ** digits
    return whole if amount >= 0 else -whole


def converted(quantity: Fraction, case: Case) -> Fraction:
    match case.terms.get("conversion_operation"):
        case "multiply":
            return quantity * case.term("conversion_factor")
        case "divide":
            return quantity / case.term("conversion_factor")
    return quantity


def billable(case: Case) -> Fraction:
    """The quantity that is priced; None included units are none, "unlimited" are all."""
    quantity = converted(Fraction(case.quantity), case)
    unit = Fraction(10) ** -int(case.terms.get("quantity_digits", 0))
    match case.terms.get("quantity_rounding"):
        case "round":
            quantity = rounded(quantity, int(case.terms.get("quantity_digits", 0)))
        case "ceiling":
            quantity = ceil(quantity / unit) * unit
        case "floor":
            quantity = floor(quantity / unit) * unit
    if case.terms.get("included_quantity") == "unlimited":
        return Fraction(0)
    return max(quantity - case.term("included_quantity"), Fraction(0))


def exact(case: Case) -> Fraction:
    """The amount before it is rounded."""
    quantity = billable(case)
    prices = [
        (
            None if tier.get("up_to") is None else Fraction(str(tier["up_to"])),
            Fraction(str(tier.get("unit_amount", 0)))
            + Fraction(str(tier.get("rate_percent", 0))) / 100,
            Fraction(str(tier.get("flat_amount", 0))),
        )
        for tier in case.tiers
    ]
    match case.model:
        case "per_unit":
            return quantity * prices[0][1]
        case "dynamic":
            return quantity * (prices[0][1] if prices else 1)
        case "graduated" | "graduated_percentage":
            return _graduated(quantity, prices)
        case "volume":
            _, unit, flat = next(p for p in prices if p[0] is None or quantity <= p[0])
            return quantity * unit + flat
        case "package":
            return ceil(quantity / case.term("package_size")) * prices[0][2]
        case "flat":
            return prices[0][2] * (1 if case.terms.get("prorated") == "false" else case.days)
        case "percentage":
            return _percentage(case, quantity, prices[0][1])
        case "matrix":
            return sum((_row(case, region) * converted(Fraction(used), case)
                        for region, used in case.by_region.items()), Fraction(0))  # fmt: skip
    raise ValueError(case.model)


def amounts(case: Case) -> dict[str, Fraction]:
    """What is due, by component; what is 0 is left out, the line itself is not."""
    base = "flat" if case.model == "flat" else "usage"
    line = rounded(exact(case), case.digits)
    percentage = min(case.term("discount_percent"), Fraction(100)) / 100
    discount = rounded(max(line, Fraction(0)) * percentage, case.digits)
    left = max(line, Fraction(0)) - discount
    discount += rounded(min(case.term("discount_amount"), left), case.digits)
    net = line - discount
    maximum = case.terms.get("maximum_amount")
    above = Fraction(0)
    if maximum is not None:
        above = max(rounded(net - Fraction(str(maximum)), case.digits), Fraction(0))
    net -= above
    days = 1 if case.terms.get("prorated") == "false" else case.days
    missing = max(rounded(case.term("minimum_amount") * days - net, case.digits), Fraction(0))
    besides = {"discount": -discount, "maximum": -above, "minimum": missing if case.complete else 0}
    return {base: line} | {name: Fraction(amount) for name, amount in besides.items() if amount}


def _graduated(
    quantity: Fraction, prices: Iterable[tuple[Fraction | None, Fraction, Fraction]]
) -> Fraction:
    total, above = Fraction(0), Fraction(0)
    for number, (up_to, unit, flat) in enumerate(prices):
        if number > 0 and quantity <= above:
            break
        total += ((quantity if up_to is None else min(quantity, up_to)) - above) * unit + flat
        above = above if up_to is None else up_to
    return total


def _percentage(case: Case, quantity: Fraction, rate: Fraction) -> Fraction:
    fixed = Fraction(str(case.per_event.get("amount_per_event", 0)))
    free_events = case.per_event.get("free_events")
    free_amount = case.per_event.get("free_amount")
    smallest = case.per_event.get("minimum_per_event")
    largest = case.per_event.get("maximum_per_event")
    if free_events is None and free_amount is None and smallest is None and largest is None:
        return quantity * rate + len(case.events) * fixed
    free = free_events is not None or free_amount is not None
    total, given, number = Fraction(0), Fraction(0), 0
    for event in case.events:
        amount = converted(Fraction(event), case)
        if free:
            if free_events is not None and number >= int(free_events):
                free = False
            elif free_amount is None or given + amount <= Fraction(str(free_amount)):
                number, given = number + 1, given + amount
                continue
            else:
                amount, free = given + amount - Fraction(str(free_amount)), False
        cost = amount * rate + fixed
        if smallest is not None:
            cost = max(cost, Fraction(str(smallest)))
        if largest is not None:
            cost = min(cost, Fraction(str(largest)))
        total += cost
    return total


def _row(case: Case, region: str) -> Fraction:
    """The unit amount of a region: its own row, else the default."""
    rows = {str(tier["dimension_values"]): tier["unit_amount"] for tier in case.tiers}
    return Fraction(str(rows.get(f'{{"region": "{region}"}}', rows.get("{}"))))
