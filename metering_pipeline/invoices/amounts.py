"""From a document's lines to what is due: coupons, then taxes, then prepaid credits.

Exact decimals and no database: what is used up, and by whom, is the caller's to keep. Money is rounded
half away from zero to the currency's minor digits, each amount once.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from fractions import Fraction

EXACT = Context(prec=200)
"""Digits enough that no sum or product of the catalog's and the ledger's numbers is ever cut."""

LOWERING = ("discount", "maximum")
"""Components that lower the line of their charge and slice: they are taxed and paid with it."""


@dataclass(frozen=True)
class Line:
    """A line's key within its document, its net amount and its taxes as (code, rate in percent)."""

    line_number: int
    charge_id: str
    component: str
    slice_start: object
    amount: Decimal
    taxes: tuple[tuple[str, Decimal], ...] = ()


@dataclass
class Coupon:
    """A coupon and what it can still do: percent, or the amount left; documents left (None: any number)."""

    coupon_id: str
    description: str
    percent: Decimal | None = None
    amount_left: Decimal | None = None
    documents_left: int | None = None

    def reduction(self, amount: Decimal, minor_digits: int) -> Decimal:
        """What it takes off an amount: never more than the amount, never less than nothing."""
        if amount <= 0 or self.documents_left == 0:
            return Decimal(0)
        if self.percent is not None:
            share = amount * min(self.percent, Decimal(100)) / 100
            return rounded(share, minor_digits)
        return min(amount, whole_units(self.amount_left or Decimal(0), minor_digits))

    def use(self, amount: Decimal) -> None:
        """Keep in mind that a document used so much of it."""
        if self.amount_left is not None:
            self.amount_left -= amount
        if self.documents_left is not None:
            self.documents_left -= 1


@dataclass
class Credit:
    """A prepaid credit and its balance; components: those of lines that it may pay (None: all)."""

    credit_id: str
    balance: Decimal
    components: frozenset[str] | None = None


@dataclass(frozen=True)
class CouponShare:
    line_number: int
    coupon_id: str
    amount: Decimal
    description: str


@dataclass(frozen=True)
class LineTax:
    line_number: int
    tax_code: str
    rate: Decimal
    taxable_amount: Decimal
    tax_amount: Decimal


@dataclass(frozen=True)
class Amounts:
    """What a document comes to: due = total - coupons + taxes - credits, the parts as rows."""

    coupon_amount: Decimal
    tax_amount: Decimal
    credit_amount: Decimal
    amount_due: Decimal
    coupons: list[CouponShare] = field(default_factory=list)
    taxes: list[LineTax] = field(default_factory=list)
    credits: list[tuple[str, Decimal]] = field(default_factory=list)


def reckon(
    lines: Sequence[Line], coupons: Sequence[Coupon], credits: Sequence[Credit], minor_digits: int
) -> Amounts:
    """Reckon a document; coupons and credits are used in the order given, and know it afterwards.

    A document whose total is not positive takes no coupon; one with nothing due takes no credit.
    """
    with localcontext(EXACT):
        shares, left = _use_coupons(lines, coupons, minor_digits)
        taxes, due = _taxes_and_dues(lines, left, minor_digits)
        used = use_credits(due, credits, minor_digits)
        zero = rounded(Decimal(0), minor_digits)
        total = sum((line.amount for line in lines), zero)
        coupon_amount = sum((each.amount for each in shares), zero)
        tax_amount = sum((each.tax_amount for each in taxes), zero)
        credit_amount = sum((amount for _, amount in used), zero)
        amount_due = total - coupon_amount + tax_amount - credit_amount
        return Amounts(coupon_amount, tax_amount, credit_amount, amount_due, shares, taxes, used)


def allocate(amount: Decimal, weights: Sequence[Decimal], minor_digits: int) -> list[Decimal]:
    """Spread an amount of whole minor units by weight, largest remainder first, ties to the earlier.

    The parts add up to the amount. A negative weight has a negative part. Raises ValueError where the
    weights add up to nothing, or the amount is finer than a minor unit.
    """
    units = Fraction(amount) * 10**minor_digits
    total = sum(map(Fraction, weights))
    if total == 0 or units.denominator != 1:
        raise ValueError(f"{amount} cannot be spread over weights of {total}")
    exact = [units * Fraction(weight) / total for weight in weights]
    parts = [share.__floor__() for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], place))
    for place in by_remainder[: int(units) - sum(parts)]:
        parts[place] += 1
    with localcontext(EXACT):
        return [Decimal(part).scaleb(-minor_digits) for part in parts]


def use_credits(
    due: dict[str, Decimal], credits: Sequence[Credit], minor_digits: int
) -> list[tuple[str, Decimal]]:
    """Pay what is due, by component, from credits in their order: (credit, amount) of each that paid.

    Never more than is due; of a balance only whole minor units pay. A credit for some components pays no
    more than these come to, less what others like it paid of them.
    """
    left = max(sum(due.values(), Decimal(0)), Decimal(0))
    open_components = {component: max(amount, Decimal(0)) for component, amount in due.items()}
    used = []
    for credit in credits:
        payable = left
        if credit.components is not None:
            allowed = [each for each in open_components if each in credit.components]
            payable = min(left, sum((open_components[each] for each in allowed), Decimal(0)))
        amount = min(payable, whole_units(credit.balance, minor_digits))
        if amount <= 0:
            continue
        if credit.components is not None:
            _take(open_components, allowed, amount)
        credit.balance -= amount
        left -= amount
        used.append((credit.credit_id, amount))
    return used


def rounded(amount: Decimal, minor_digits: int) -> Decimal:
    """Half away from zero, to minor units. Zero has no sign: the database knows none."""
    money = amount.quantize(Decimal(1).scaleb(-minor_digits), ROUND_HALF_UP, EXACT)
    return money if money else money.copy_abs()


def whole_units(amount: Decimal, minor_digits: int) -> Decimal:
    """What of an amount is whole minor units; the rest buys nothing."""
    return amount.quantize(Decimal(1).scaleb(-minor_digits), ROUND_FLOOR, EXACT)


def _use_coupons(
    lines: Sequence[Line], coupons: Sequence[Coupon], minor_digits: int
) -> tuple[list[CouponShare], list[Decimal]]:
    """The shares of each coupon, and what of each line they leave."""
    left = [line.amount for line in lines]
    shares = []
    for coupon in coupons:
        amount = coupon.reduction(sum(left, Decimal(0)), minor_digits)
        if amount == 0:
            continue
        coupon.use(amount)
        parts = allocate(amount, left, minor_digits)
        left = [line_left - part for line_left, part in zip(left, parts, strict=True)]
        shares += [
            CouponShare(line.line_number, coupon.coupon_id, part, coupon.description)
            for line, part in zip(lines, parts, strict=True)
            if part != 0
        ]
    return shares, left


def _taxed_together(lines: Sequence[Line]) -> list[tuple[Line, list[int]]]:
    """The lines' places, those together that are taxed as one, each time with the line that bears the tax.

    A discount and a maximum go with the line that they lower, a minimum stands alone.
    """
    together: defaultdict[tuple[str, object, bool], list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        together[line.charge_id, line.slice_start, line.component == "minimum"].append(place)
    return [
        (lines[min(places, key=lambda place: (lines[place].component in LOWERING, place))], places)
        for places in together.values()
    ]


def _taxes_and_dues(
    lines: Sequence[Line], left: Sequence[Decimal], minor_digits: int
) -> tuple[list[LineTax], dict[str, Decimal]]:
    """The taxes of what the coupons left, and what is due with them by component."""
    taxes: list[LineTax] = []
    due: defaultdict[str, Decimal] = defaultdict(Decimal)
    for bearer, places in _taxed_together(lines):
        taxable = sum((left[place] for place in places), Decimal(0))
        of_line = [
            LineTax(
                bearer.line_number, code, rate, taxable, rounded(taxable * rate / 100, minor_digits)
            )
            for code, rate in bearer.taxes
        ]
        component = "usage" if bearer.component in LOWERING else bearer.component
        due[component] += taxable + sum((tax.tax_amount for tax in of_line), Decimal(0))
        taxes += of_line
    return taxes, dict(due)


def _take(amounts: dict[str, Decimal], names: Sequence[str], amount: Decimal) -> None:
    for name in names:
        taken = min(amounts[name], amount)
        amounts[name] -= taken
        amount -= taken
