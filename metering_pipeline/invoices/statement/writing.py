"""How figures and times are written for a customer: exact, readable, never through a float."""

from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import Any

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MINUS = "\N{MINUS SIGN}"
MULTIPLES = ((12, "tn"), (9, "bn"), (6, "M"), (3, "k"))


def number(value: Decimal, digits: int = 0) -> str:
    """A decimal with all its digits, at least so many after the point: 1,234.50."""
    whole, _, fraction = f"{value if value else abs(value):,f}".partition(".")
    fraction = fraction.rstrip("0").ljust(digits, "0")
    return f"{whole}.{fraction}".rstrip(".").replace("-", MINUS)


def short(value: Decimal, largest: Decimal) -> str:
    """A round number of an axis, in the thousands of its largest one: 0.5, 2,500, 20k, 3M."""
    for power, multiple in MULTIPLES:
        if value and largest >= Decimal(10) ** (power + (power == 3)):
            return number(value.scaleb(-power)) + multiple
    return number(value)


def measured(line: Any, usage: Any) -> tuple[Decimal, str]:
    """A day's usage as it adds up over days, with its unit: the sum, or the number of events."""
    if line.aggregation == "sum":
        return usage.value_sum, line.unit
    unit = line.unit if line.aggregation == "count" else "events"
    return Decimal(usage.event_count), unit or "events"


def day(value: date) -> str:
    """31 Jan 2026."""
    return f"{short_day(value)} {value.year}"


def short_day(value: date) -> str:
    """31 Jan."""
    return f"{value.day} {MONTHS[value.month - 1]}"


def moment(value: datetime, zone: tzinfo) -> str:
    """An instant in a zone, to the second or finer where it needs it: 20 Jan 2026 10:37 +05:45."""
    local = value.astimezone(zone)
    fine = "microseconds" if local.microsecond else "seconds" if local.second else "minutes"
    return f"{day(local)} {local.time().isoformat(fine)} {_offset(local)}"


def period(start: datetime, end: datetime, zone: tzinfo) -> str:
    """A half-open span of time: whole local days as people say them, other edges as instants."""
    first, after = start.astimezone(zone), end.astimezone(zone)
    if first.time() != time() or after.time() != time() or first >= after:
        return f"{moment(start, zone)} to {moment(end, zone)}"
    last = date.fromordinal(after.toordinal() - 1)
    if first.date() == last:
        return day(last)
    return f"{short_day(first) if first.year == last.year else day(first)} to {day(last)}"


def _offset(local: datetime) -> str:
    text = local.isoformat()[-6:]
    return "UTC" if local.utcoffset() == UTC.utcoffset(None) else text.replace("-", MINUS)
