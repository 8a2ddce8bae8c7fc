"""Cases about whole documents: coupons, prepaid credits, changes of plan, and when a document is final."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from tests.vectors.asking import ISSUED, NO_WINDOW, RATED, Asking, asks
from tests.vectors.cases import Given, NotSupportedError, decimal
from tests.vectors.prices import Price, Step, sell, use_up_to
from tests.vectors.world import ROUND, Customer, zone_of

FEE_TYPES = {"usage": "usage", "charge": "usage", "subscription": "flat", "fee": "flat"}
"""What sources call the lines that a credit may pay, and our component."""


# Coupons


def bill_fees(customer: Customer, currency: str, amounts: Sequence[Decimal]) -> None:
    """A document with a fee for each amount, in their order."""
    end = customer.world.start + ROUND
    customer.plan(currency, "day", ROUND.days)
    for number, amount in enumerate(amounts):
        customer.fee(amount, f"fee-{number:03d}")
    customer.subscribe(customer.world.start, end, billable=True)


def shares(customer: Customer, count: int) -> list[Decimal]:
    """What the coupon took off each fee."""
    numbers = [row["invoice_number"] for row in customer.documents()]
    rows = customer.world.rows(
        "select charge_id, sum(entries.amount) as amount from invoices.coupon_entries as entries"
        " inner join invoices.issued_invoice_lines using (invoice_number, line_number)"
        " where invoice_number = any(%s) group by charge_id",
        numbers,
    )
    amounts = {row["charge_id"]: row["amount"] for row in rows}
    fees = (f"{customer.name}.fee-{number:03d}" for number in range(count))
    return [amounts.get(fee, Decimal(0)) for fee in fees]


@asks("discount_allocation")
def discount_allocation(given: Given, customer: Customer) -> Asking:
    """A coupon over a document's lines."""
    currency = given.take("currency")
    amounts = [decimal(amount) for amount in given.values("line_amounts")]
    bill_fees(customer, currency, amounts)
    customer.coupon(currency, given.take("amount_off"))
    yield ISSUED
    return {"allocated": shares(customer, len(amounts))}


@asks("allocate")
def allocate(given: Given, customer: Customer) -> Asking:
    """A coupon over lines in the proportions of the weights, each so many times its weight that they suffice."""
    currency, amount, names = given.take("currency"), given.decimal("amount"), given.take("order")
    weights = [decimal(weight) for weight in map(given.take("weights").get, names)]
    if amount < 0 or any(weight < 0 for weight in weights) or (amount and not any(weights)):
        raise NotSupportedError("spreading an amount or by weights that are not positive")
    scale = Decimal(1)
    while sum(weights) * scale < amount or any((weight * scale) % 1 for weight in weights):
        scale *= 10
    bill_fees(customer, currency, [weight * scale for weight in weights])
    if amount:
        customer.coupon(currency, amount)
    yield ISSUED
    return {"allocated": dict(zip(names, shares(customer, len(names)), strict=True))}


# Prepaid credits


def components_of(fee_types: Sequence[str]) -> list[str]:
    if unknown := set(fee_types) - set(FEE_TYPES):
        raise NotSupportedError(f"the fee type {', '.join(sorted(unknown))}")
    return sorted({FEE_TYPES[each] for each in fee_types})


def bill_usage(customer: Customer, currency: str, amount: Decimal) -> None:
    """A document of that amount: units at 1 each."""
    steps = [Step(amount)]
    sell(customer, currency, steps, Price("per_unit", [{"unit_amount": 1}], {}), issue=True)
    use_up_to(customer, 0, steps)


def due(customer: Customer) -> Decimal:
    return sum((row["amount_due"] for row in customer.documents()), Decimal(0))


@asks("apply_wallets")
def apply_wallets(given: Given, customer: Customer) -> Asking:
    """Credits of their priorities on one document."""
    currency, amount = given.take("currency"), given.decimal("amount")
    components = components_of(given.values("fee_types", ["usage"]))
    wallets = given.parts("wallets")
    if len(components) > 1 and any("allowed_fee_types" in wallet for wallet in wallets):
        raise NotSupportedError("an amount of several kinds of fee, without what each comes to")
    if components == ["flat"]:
        bill_fees(customer, currency, [amount])
    else:
        bill_usage(customer, currency, amount)
    for wallet in wallets:
        allowed = wallet.take("allowed_fee_types", None)
        customer.grant(
            wallet.take("id"), currency, wallet.decimal("balance"), int(wallet.take("priority", 1)),
            components=components_of(allowed) if allowed else None,
        )  # fmt: skip
    yield ISSUED
    credits = customer.credits()
    return {
        "applied": {name: applied for name, (applied, _) in credits.items()},
        "balances": {name: balance for name, (_, balance) in credits.items()},
        "total_due": due(customer),
    }


@asks("burn_down")
def burn_down(given: Given, customer: Customer) -> Asking:
    """Credits in units of 1 that pay for usage of the instant t; the document is issued then."""
    usage = given.decimal("usage")
    bill_usage(customer, "USD", usage)
    names = []
    for grant in given.parts("grants"):
        names.append(grant.take("id"))
        begins = days_from(grant.take("effective_at", "t"), "t")
        lasts = grant.take("expires_after", None)
        ends = begins + days_from(lasts) if lasts is not None else None
        amount, priority = grant.decimal("amount"), int(grant.take("priority", 1))
        if begins <= timedelta():  # one to come is not there yet
            expires_on = None if ends is None else customer.world.billing_date + ends
            customer.grant(names[-1], "USD", amount, priority, expires_on=expires_on)
    yield ISSUED
    credits = customer.credits()
    balances = {name: credits[name][1] if name in credits else Decimal(0) for name in names}
    return {"balances": balances, "overage": due(customer)}


DAYS_OF = {"d": 1, "w": 7, "y": 365}


def days_from(text: str, origin: str = "") -> timedelta:
    """How far from an origin: ``t``, ``t+10d``; a length without one: ``30d``."""
    found = re.fullmatch(re.escape(origin) + r"(?:([+-]?)(\d+)([dwy]))?", text)
    if not found or text == "":
        raise NotSupportedError(f"a length of time {text}")
    sign, number, unit = found.groups()
    days = int(number or 0) * DAYS_OF.get(unit, 0)
    return timedelta(days=-days if sign == "-" else days)


@asks("cap_credit")
def cap_credit(given: Given, customer: Customer) -> Asking:
    """What a further credit can pay of a document that earlier credits have paid a part of."""
    bill_usage(customer, "USD", given.decimal("original_amount"))
    for number, name in enumerate(("previous_credits", "potential_credit"), start=1):
        amount = given.decimal(name)
        if amount > 0:
            customer.grant(name, "USD", amount, number)
    yield ISSUED
    applied, _ = customer.credits().get("potential_credit", (Decimal(0), Decimal(0)))
    return {"credit": applied}


# Changes of plan


@asks("plan_change")
def plan_change(given: Given, customer: Customer) -> Asking:
    """A fee paid in advance, ended within its period, and the new plan's fee for the rest of it; or one of them."""
    given.take("action")
    zone, currency = given.take("timezone", "UTC"), given.take("currency")
    start, change = given.instant("period_start"), given.instant("change_date")
    end = given.instant("period_end_inclusive_day") + timedelta(days=1)
    old, new = fee_of(given, "old"), fee_of(given, "new")
    if given.decimal("original_amount_paid", old) != old:
        raise NotSupportedError("a credit for an amount that is not what the old plan costs")
    days = (end.astimezone(zone_of(zone)).date() - start.astimezone(zone_of(zone)).date()).days
    customer.plan(currency, "day", days)
    if old is not None:
        customer.fee(old, timing="advance")
    customer.subscribe(start, end, start, zone, billable=True)
    yield ISSUED
    charge = change_plan(customer, change, new)
    yield ISSUED
    lines = customer.document_lines()
    return {
        "net": sum((line["amount"] for line in lines), Decimal(0)),
        "credits": [line["amount"] for line in lines if line["charge_id"] != charge],
        "charges": [line["amount"] for line in lines if line["charge_id"] == charge],
    }


def fee_of(given: Given, plan: str) -> Decimal | None:
    """What a plan costs; none without it."""
    amount = given.decimal(f"{plan}_unit_amount", None)
    quantity = given.decimal(f"{plan}_quantity", Decimal(1))
    return None if amount is None else quantity * amount


def change_plan(customer: Customer, change: datetime, fee: Decimal | None) -> str:
    """End the subscription; another follows it on a plan with that fee. The fee's charge."""
    (standing,) = customer.own("subscriptions")
    ended = {"version": 2, "ended_at": change.isoformat(), "recorded_at": "1970-01-02T00:00:00Z"}
    follower = f"{customer.name}.new"
    catalog = customer.company.catalog
    catalog["subscriptions"].append(standing | ended)
    if fee is None:
        return ""
    catalog["subscriptions"].append(
        standing
        | {"subscription_id": follower, "plan_id": follower, "started_at": change.isoformat()}
    )
    catalog["plans"] += [
        row | {"plan_id": follower} for row in catalog["plans"] if row["plan_id"] == customer.name
    ]
    charge = customer.fee(fee, "new-fee", timing="advance")
    catalog["charges"][-1]["plan_id"] = follower
    return charge


# When a document is final


@asks("finalization_time")
def finalization_time(given: Given, customer: Customer) -> Asking:
    """The cut-off of the last of the tenant's drafts, one a line, with the grace of this world."""
    given.take("collection_window", NO_WINDOW)
    for number, line in enumerate(given.parts("lines")):
        if "override" in line:
            raise NotSupportedError("a collection window of a line's own")
        at = line.instant("invoice_at")
        name = f"{customer.name}.{number}"
        bill_line(Customer(customer.world, name, customer.tenant), at, line.take("metered", True))
    yield RATED
    (row,) = customer.rows(
        "select max(cut_off) as cut_off from invoices.draft_invoices where tenant_id = %s"
    )
    return {"finalize_at": row["cut_off"]}


def bill_line(line: Customer, at: datetime, metered: bool) -> None:
    """A subscription of a day that bills one line at that instant: usage of the day before, or a fee."""
    day = timedelta(days=1)
    line.plan("USD", "day")
    if metered:
        line.metric("count")
        line.charge("per_unit", [{"unit_amount": 1}], metric=line.name)
        line.subscribe(at - day, at, billable=True)
        line.use(Decimal(1), at - day / 2, line.name)
    else:
        line.fee(1, timing="advance")
        line.subscribe(at, at + day, billable=True)
