"""A second rating, in plain Python, that shares no code with the rating models.

It prices what an issued line pinned (quantity, charge version, subscription version) and is
compared with what was billed. Fractions, so nothing is rounded but the result. What cannot be told
from the quantity (a matrix, a percentage that looks at each event) is told from the usage itself.
The tier slices that were frozen with the line must agree with the price and with the quantity; they
say what it costs only where the usage that the line was rated from can no longer be told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

CUT = Fraction(1, 10**18)
"""Shown quantities end at 18 digits after the point: so much may be missing of each."""


class UnknownChargeModelError(ValueError):
    """A charge model that this rating does not know; the message names it."""


class ContradictionError(ValueError):
    """Tier slices that do not agree with the price or the quantity; the message says how."""


@dataclass(frozen=True)
class Tier:
    """A price tier: up_to is cumulative and inclusive, None is open; amounts in the currency.

    A row of a matrix names dimension values instead; without any it is for all the rest.
    """

    up_to: Decimal | None
    unit_amount: Decimal
    flat_amount: Decimal
    rate_percent: Decimal = Decimal(0)
    dimension_values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TierSlice:
    """A row that explains an amount: the part of the quantity in a tier, and what it costs."""

    tier: int
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True)
class Used:
    """A part of a line's usage: an event, or all that has the same dimensions. Metered units."""

    dimensions: Mapping[str, str | None]
    quantity: Decimal


@dataclass(frozen=True)
class Terms:
    """What a charge says beside its tiers: quantities in units, amounts in the currency."""

    conversion_operation: str | None = None
    conversion_factor: Decimal = Decimal(1)
    quantity_rounding: str | None = None
    quantity_digits: int = 0
    included_quantity: Decimal = Decimal(0)
    package_size: Decimal = Decimal(1)
    discount_percent: Decimal = Decimal(0)
    discount_amount: Decimal = Decimal(0)
    maximum_amount: Decimal | None = None
    minimum_amount: Decimal = Decimal(0)
    prorated: bool = True
    amount_per_event: Decimal = Decimal(0)
    free_events: int | None = None
    free_amount: Decimal | None = None
    minimum_per_event: Decimal | None = None
    maximum_per_event: Decimal | None = None

    @property
    def reads_events(self) -> bool:
        """Whether the quantity does not say what a percentage comes to."""
        limits = (
            self.free_events,
            self.free_amount,
            self.minimum_per_event,
            self.maximum_per_event,
        )
        return any(limit is not None for limit in limits)


def usage_amount(
    charge_model: str,
    tiers: Sequence[Tier],
    quantity: Decimal,
    terms: Terms = Terms(),
    event_count: int = 0,
    slices: Sequence[TierSlice] = (),
    used: Sequence[Used] | None = None,
) -> Fraction:
    """The exact amount of a metered quantity; used: what it is made of, if that can be told.

    Raises UnknownChargeModelError, ContradictionError.
    """
    if charge_model == "matrix":
        frozen = _matrix(tiers, _converted(quantity, terms), slices)
        return frozen if used is None else _rows_of_matrix(tiers, terms, used)
    if charge_model == "percentage" and terms.reads_events:
        frozen = _percentage_of_events(tiers, terms, event_count, slices)
        return frozen if used is None else _event_by_event(tiers, terms, used)
    amount = _billable(quantity, terms)
    if charge_model in ("graduated", "graduated_percentage"):
        return _graduated(tiers, amount)
    if charge_model == "volume":
        return _price(next(t for t in tiers if t.up_to is None or amount <= t.up_to), amount)
    if charge_model == "dynamic":
        return _price(tiers[0], amount) if tiers else amount
    if charge_model in ("per_unit", "percentage", "package"):
        (tier,) = tiers
        if charge_model == "package":
            return ceil(amount / Fraction(terms.package_size)) * Fraction(tier.flat_amount)
        return _price(tier, amount) + Fraction(event_count) * Fraction(terms.amount_per_event)
    raise UnknownChargeModelError(f"Usage cannot be priced by the charge model {charge_model!r}.")


def matrix_row(tiers: Sequence[Tier], dimensions: Mapping[str, str | None]) -> Tier | None:
    """The row that prices usage of these dimensions: the one that names most of them, else the first."""
    fitting = [
        tier
        for tier in tiers
        if all(dimensions.get(name) == value for name, value in tier.dimension_values.items())
    ]
    return max(fitting, key=lambda tier: len(tier.dimension_values), default=None)


def discount(terms: Terms, amount: Decimal, minor_digits: int) -> Decimal:
    """What a line of the amount is reduced by, negative or 0: a percentage, then a fixed amount."""
    before = max(Fraction(amount), Fraction(0))
    percentage = min(Fraction(terms.discount_percent), Fraction(100)) / 100
    first = Fraction(rounded(before * percentage, minor_digits))
    second = min(Fraction(terms.discount_amount), before - first)
    return rounded(-first - second, minor_digits)


def above_maximum(terms: Terms, amount: Decimal, minor_digits: int) -> Decimal:
    """What lies above the maximum, negative or 0."""
    if terms.maximum_amount is None:
        return Decimal(0)
    return rounded(
        min(Fraction(terms.maximum_amount) - Fraction(amount), Fraction(0)), minor_digits
    )


def up_to_minimum(terms: Terms, amount: Decimal, share: Fraction, minor_digits: int) -> Decimal:
    """What the amount lacks of the minimum of a share of the period, or 0."""
    minimum = Fraction(terms.minimum_amount) * (share if terms.prorated else 1)
    return rounded(max(minimum - Fraction(amount), Fraction(0)), minor_digits)


def flat_amount(tiers: Sequence[Tier], share: Fraction, terms: Terms = Terms()) -> Fraction:
    """The exact flat amount of a share of the full period."""
    (tier,) = tiers
    return Fraction(tier.flat_amount) * (share if terms.prorated else 1)


def rounded(amount: Fraction, minor_digits: int) -> Decimal:
    """Half away from zero, to the currency's minor digits."""
    units = Fraction(abs(amount)) * Fraction(10) ** minor_digits
    whole = (2 * units.numerator + units.denominator) // (2 * units.denominator)
    sign = 1 if amount < 0 else 0
    return Decimal((sign, tuple(int(digit) for digit in str(whole)), -minor_digits))


def _price(tier: Tier, quantity: Fraction) -> Fraction:
    unit_amount = Fraction(tier.unit_amount) + Fraction(tier.rate_percent) / 100
    return quantity * unit_amount + Fraction(tier.flat_amount)


def _converted(quantity: Decimal, terms: Terms) -> Fraction:
    if terms.conversion_operation == "multiply":
        return Fraction(quantity) * Fraction(terms.conversion_factor)
    if terms.conversion_operation == "divide":
        return Fraction(quantity) / Fraction(terms.conversion_factor)
    return Fraction(quantity)


def _billable(quantity: Decimal, terms: Terms) -> Fraction:
    """The quantity that is priced: converted, rounded, without the included units."""
    if terms.included_quantity.is_infinite():
        return Fraction(0)
    amount = _converted(quantity, terms)
    unit = Fraction(10) ** -terms.quantity_digits
    if terms.quantity_rounding == "round":
        amount = Fraction(rounded(amount, terms.quantity_digits))
    elif terms.quantity_rounding == "ceiling":
        amount = ceil(amount / unit) * unit
    elif terms.quantity_rounding == "floor":
        amount = floor(amount / unit) * unit
    return max(amount - Fraction(terms.included_quantity), Fraction(0))


def _rows_of_matrix(tiers: Sequence[Tier], terms: Terms, used: Sequence[Used]) -> Fraction:
    """Each combination of dimensions at the price of its row."""
    amount = Fraction(0)
    for part in used:
        row = matrix_row(tiers, part.dimensions)
        if row is None:
            raise ContradictionError(f"no row of the matrix prices {dict(part.dimensions)}")
        amount += _converted(part.quantity, terms) * Fraction(row.unit_amount)
    return amount


def _event_by_event(tiers: Sequence[Tier], terms: Terms, events: Sequence[Used]) -> Fraction:
    """What each event costs that is not free, within its limits."""
    (tier,) = tiers
    free = terms.free_events is not None or terms.free_amount is not None
    total = so_far = Fraction(0)
    for number, event in enumerate(events, start=1):
        payable = _converted(event.quantity, terms)
        so_far += payable
        if free and terms.free_events is not None and number > terms.free_events:
            free = False
        elif free and terms.free_amount is not None and so_far > terms.free_amount:
            free = False
            payable = so_far - Fraction(terms.free_amount)
        if not free:
            cost = payable * Fraction(tier.rate_percent) / 100 + Fraction(terms.amount_per_event)
            if terms.minimum_per_event is not None:
                cost = max(cost, Fraction(terms.minimum_per_event))
            if terms.maximum_per_event is not None:
                cost = min(cost, Fraction(terms.maximum_per_event))
            total += cost
    return total


def _matrix(tiers: Sequence[Tier], quantity: Fraction, slices: Sequence[TierSlice]) -> Fraction:
    """Each row at its own price; the rows hold all of the quantity."""
    held = sum((Fraction(part.quantity) for part in slices), Fraction(0))
    if abs(held - quantity) > CUT * max(len(slices), 1):
        raise ContradictionError(f"the rows of the matrix hold {float(held)} of {float(quantity)}")
    return _slices_at(
        {part.tier: Fraction(tiers[part.tier - 1].unit_amount) for part in slices}, slices
    )


def _percentage_of_events(
    tiers: Sequence[Tier], terms: Terms, event_count: int, slices: Sequence[TierSlice]
) -> Fraction:
    """The rate, the amount of each event, and what limits made of them, which stands as frozen."""
    (tier,) = tiers
    if any(part.quantity > event_count for part in slices if part.tier > 1):
        raise ContradictionError(f"slices say more events than there are: {event_count}")
    limits = {part.tier: Fraction(0) for part in slices if part.tier == 3}
    prices = {1: Fraction(tier.rate_percent) / 100, 2: Fraction(terms.amount_per_event)}
    exact = _slices_at(prices, [part for part in slices if part.tier not in limits])
    return exact + sum(
        (Fraction(part.amount) for part in slices if part.tier in limits), Fraction(0)
    )


def _slices_at(prices: Mapping[int, Fraction], slices: Sequence[TierSlice]) -> Fraction:
    """The sum of slices, each of which is its quantity at its price."""
    total = Fraction(0)
    for part in slices:
        exact = Fraction(part.quantity) * prices[part.tier]
        if abs(exact - Fraction(part.amount)) > CUT * max(abs(prices[part.tier]), Fraction(1)):
            raise ContradictionError(f"slice {part.tier} is not its quantity at its price")
        total += Fraction(part.amount)
    return total


def _graduated(tiers: Sequence[Tier], quantity: Fraction) -> Fraction:
    amount = Fraction(0)
    below = Fraction(0)
    for number, tier in enumerate(tiers):
        if number > 0 and quantity <= below:
            break
        top = quantity if tier.up_to is None else min(quantity, Fraction(tier.up_to))
        amount += _price(tier, top - below)
        below = top if tier.up_to is None else Fraction(tier.up_to)
    return amount
