"""A second rating, in plain Python, that shares no code with the rating models.

It prices what an issued line pinned (quantity, charge version, subscription version) and is
compared with what was billed. Fractions, so nothing is rounded but the result.
"""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo


class UnknownChargeModelError(ValueError):
    """A charge model that this rating does not know; the message names it."""


@dataclass(frozen=True)
class Tier:
    """A price tier: up_to is cumulative and inclusive, None is open; amounts in the currency."""

    up_to: Decimal | None
    unit_amount: Decimal
    flat_amount: Decimal


@dataclass(frozen=True)
class Slice:
    """The part of a billing period that a line covers, [start, end), and the calendar around it."""

    start: datetime
    end: datetime
    time_zone: str
    anchor: datetime
    """Local wall time, without an offset: all boundaries are counted from it."""


def usage_amount(charge_model: str, tiers: Sequence[Tier], quantity: Decimal) -> Fraction:
    """The exact amount of a metered quantity. Raises UnknownChargeModelError."""
    if charge_model == "per_unit":
        (tier,) = tiers
        return _price(tier, Fraction(quantity))
    if charge_model == "graduated":
        return _graduated(tiers, Fraction(quantity))
    raise UnknownChargeModelError(f"Usage cannot be priced by the charge model {charge_model!r}.")


def flat_amount(tiers: Sequence[Tier], part: Slice) -> Fraction:
    """The exact flat amount, prorated by local calendar days of the full period around the part."""
    (tier,) = tiers
    start, end = _local(part.start, part), _local(part.end, part)
    period_start, period_end = _full_period(start, part.anchor)
    share = Fraction((end.date() - start.date()).days, (period_end - period_start).days)
    return Fraction(tier.flat_amount) * min(max(share, Fraction(0)), Fraction(1))


def starts_a_period(
    start: datetime, time_zone: str, anchor: datetime, started_at: datetime
) -> bool:
    """Whether a billing period of the subscription starts at the instant."""
    if start <= started_at:
        return start == started_at
    zone = ZoneInfo(time_zone)
    local = start.astimezone(zone)
    months = (local.year - anchor.year) * 12 + local.month - anchor.month
    wall = datetime.combine(_boundary(anchor, months), anchor.time(), zone)
    # a wall time that the clock shows twice is two instants: either may be meant
    return start.astimezone(UTC) in {wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1)}


def rounded(amount: Fraction, minor_digits: int) -> Decimal:
    """Half away from zero, to the currency's minor digits."""
    units = abs(amount) * 10**minor_digits
    whole = (2 * units.numerator + units.denominator) // (2 * units.denominator)
    sign = 1 if amount < 0 else 0
    return Decimal((sign, tuple(int(digit) for digit in str(whole)), -minor_digits))


def _price(tier: Tier, quantity: Fraction) -> Fraction:
    return quantity * Fraction(tier.unit_amount) + Fraction(tier.flat_amount)


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


def _local(instant: datetime, part: Slice) -> datetime:
    return instant.astimezone(ZoneInfo(part.time_zone)).replace(tzinfo=None)


def _full_period(local: datetime, anchor: datetime) -> tuple[date, date]:
    """The days that bound the monthly period around a local time, clamped per month from the anchor."""
    months = (local.year - anchor.year) * 12 + local.month - anchor.month
    if datetime.combine(_boundary(anchor, months), anchor.time()) > local:
        months -= 1
    return _boundary(anchor, months), _boundary(anchor, months + 1)


def _boundary(anchor: datetime, months: int) -> date:
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    last_day = monthrange(year, month + 1)[1]
    return date(year, month + 1, min(anchor.day, last_day))
