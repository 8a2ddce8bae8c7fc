"""Cases about rounding and about shares of days: what rating makes of a price, a quantity or a fee."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from tests.dbt.company import Row
from tests.vectors.asking import ISSUED, RATED, Asking, asks
from tests.vectors.cases import Given, decimal
from tests.vectors.prices import Price, Step, conversion, rounding, sell, use_up_to
from tests.vectors.world import Customer, wall_time, zone_of

ONE = [Step(Decimal(1))]


def sell_one(customer: Customer, currency: str, amount: object) -> None:
    """One unit at that price."""
    sell(customer, currency, ONE, Price("per_unit", [{"unit_amount": amount}], {}), issue=False)
    use_up_to(customer, 0, ONE)


@asks("round", "round_money")
def round_money(given: Given, customer: Customer) -> Asking:
    """The line of one unit at that price."""
    sell_one(customer, given.take("currency"), given.take("amount"))
    yield RATED
    (line,) = customer.lines()
    return {"rounded": line["amount"]}


@asks("round_then_sum")
def round_then_sum(given: Given, customer: Customer) -> Asking:
    """The lines of one unit each, added: charges of one plan for the same unit by dimension would be one line."""
    amounts = given.take("amounts")
    customer.plan(given.take("currency"), "day", 10)
    for number, amount in enumerate(amounts):
        customer.fee(amount, f"fee-{number}")
    customer.subscribe(customer.world.start, customer.world.start + timedelta(days=10))
    yield RATED
    lines = customer.lines()
    return {"rounded": sum((line["amount"] for line in lines), Decimal(0))}


@asks("minor_units")
def minor_units(given: Given, customer: Customer) -> Asking:
    """The digits that the catalog has for the currency."""
    currency = given.take("currency")
    customer.plan(currency)
    yield RATED
    (row,) = customer.world.rows("select * from catalog.currencies where currency = %s", currency)
    return {"digits": Decimal(row["minor_digits"])}


@asks("to_minor_units")
def to_minor_units(given: Given, customer: Customer) -> Asking:
    """The line of one unit at that price, in the currency's smallest units."""
    sell_one(customer, given.take("currency"), given.take("amount"))
    yield RATED
    (line,) = customer.rows(
        "select trim_scale(amount * 10::numeric ^ minor_digits) as minor_units from rating.rated_lines"
        " inner join catalog.currencies using (currency) where subscription_id = %s"
    )
    return {"minor_units": line["minor_units"]}


def metered(given: Given, customer: Customer, columns: Row) -> None:
    """So much used of a charge that converts and rounds what was metered."""
    steps = [Step(given.decimal("quantity"))]
    sell(customer, "USD", steps, Price("per_unit", [{"unit_amount": 1}], columns), issue=False)
    use_up_to(customer, 0, steps)


@asks("round_quantity")
def round_quantity(given: Given, customer: Customer) -> Asking:
    mode, digits = rounding(given.take("mode", None)), given.take("digits", 0)
    columns = {"quantity_rounding": mode, "quantity_digits": digits} if mode else {}
    metered(given, customer, columns)
    yield RATED
    (line,) = customer.lines()
    return {"rounded": line["billable_quantity"]}


@asks("convert_quantity")
def convert_quantity(given: Given, customer: Customer) -> Asking:
    metered(given, customer, conversion(given))
    yield RATED
    (line,) = customer.lines()
    return {"quantity": line["billable_quantity"]}


# Shares of days: a period of so many days, and a subscription of a part of it


def subscribe_part(given: Given, customer: Customer, billable: bool = False) -> None:
    """A subscription of the part that is active, of the period that it is cut from."""
    zone = given.take("timezone", "UTC")
    if "period" in given:
        period = given.values("period")
        start, end = (local_midnight(day, zone) for day in period)
        first, last = (local_midnight(day, zone) for day in given.values("active", period))
    else:
        first = start = customer.world.start
        end = start + timedelta(days=int(given.take("period_days")))
        last = start + timedelta(days=int(given.take("days")))
    days = (wall_time(end, zone).date() - wall_time(start, zone).date()).days
    customer.plan(given.take("currency", "USD"), "day", days)
    trial: Row = {}
    if first == last:  # a trial of the whole period
        first, last, trial = start, end, {"trial_ends_at": end.isoformat()}
    customer.subscribe(first, last, start, zone, billable=billable, **trial)


def local_midnight(day: str, zone: str) -> datetime:
    """A date's midnight in a zone; an instant as it is."""
    if "T" in day:
        return datetime.fromisoformat(day).astimezone(UTC)
    midnight = datetime.combine(datetime.fromisoformat(day).date(), time(), zone_of(zone))
    return midnight.astimezone(UTC)


def fee(customer: Customer) -> tuple[Decimal, Decimal]:
    """What the part's line comes to, rounded and exact; a part that reaches beyond the period has one for each."""
    lines = customer.lines()
    return (lines[0]["amount"], lines[0]["exact_amount"]) if lines else (Decimal(0), Decimal(0))


@asks("fraction")
def fraction(given: Given, customer: Customer) -> Asking:
    """The share of a fee of 1, to 9 digits."""
    customer.fee(1, timing="advance")
    subscribe_part(given, customer)
    yield RATED
    _, exact = fee(customer)
    return {"fraction": round(exact, 9)}


@asks("prorate_days")
def prorate_days(given: Given, customer: Customer) -> Asking:
    customer.fee(given.take("amount"), timing="advance")
    subscribe_part(given, customer)
    yield RATED
    amount, exact = fee(customer)
    (currency,) = customer.rows(
        "select minor_digits from catalog.currencies inner join catalog.plans using (currency)"
        " where plan_id = %s"
    )
    return {
        "amount": amount,
        "unrounded_minor_units": Float(exact.scaleb(currency["minor_digits"])),
    }


@asks("prorate_amount")
def prorate_amount(given: Given, customer: Customer) -> Asking:
    """A part's fee; with its tax as the document has it."""
    prorated = given.take("proration", True)
    customer.fee(given.take("amount"), timing="advance", prorated="true" if prorated else "false")
    taxed = "tax_percent" in given
    subscribe_part(given, customer, billable=taxed)
    if not taxed:
        yield RATED
        amount, _ = fee(customer)
        return {"amount": amount}
    customer.tax(given.take("tax_percent"))
    yield ISSUED
    return taxed_amounts(customer)


@asks("true_up")
def true_up(given: Given, customer: Customer) -> Asking:
    """The minimum of a part of a period over what was used in it, and the document's tax."""
    minimum, used = given.take("minimum_amount"), given.decimal("used_amount")
    customer.charge("per_unit", [{"unit_amount": 1}], minimum_amount=minimum)
    subscribe_part(given, customer, billable=True)
    (subscription,) = customer.own("subscriptions")
    customer.use(used, datetime.fromisoformat(subscription["started_at"]))
    customer.tax(given.take("tax_percent", 0))
    yield ISSUED
    lines = customer.document_lines()
    minimums = [line["amount"] for line in lines if line["component"] == "minimum"]
    said = taxed_amounts(customer)
    return {"true_up": sum(minimums, Decimal(0)), "fees_total": said["amount"], "tax": said["tax"]}


def taxed_amounts(customer: Customer) -> dict[str, Decimal]:
    """What the round's documents come to: net, tax, and what is due."""
    documents = customer.documents()
    columns = {"amount": "total", "tax": "tax_amount", "total_with_tax": "amount_due"}
    return {
        name: sum((row[column] for row in documents), Decimal(0))
        for name, column in columns.items()
    }


class Float:
    """A number, equal to one that a source computed in binary: to twelve digits."""

    def __init__(self, value: Decimal) -> None:
        self.value = value

    def __eq__(self, other: Any) -> bool:
        return abs(self.value - decimal(other)) <= Decimal("1e-12") * abs(self.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return f"{self.value:f}"
