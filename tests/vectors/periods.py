"""Cases about time: boundaries and periods are those that rating.billing_periods has of a subscription."""

import calendar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.dbt.company import Row
from tests.vectors.asking import RATED, Asking, asks
from tests.vectors.cases import Answer, Given, NotSupportedError
from tests.vectors.world import DAYS, Customer, zone_of

CALENDAR = datetime(2001, 1, 1)  # noqa: DTZ001 a wall time in the case's zone
"""A Monday, and the first of a year: the anchor of everything that goes by the calendar."""

INSTANT = timedelta(microseconds=1)
MONTHS = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}


def interval_of(given: Given) -> tuple[str, object]:
    """The interval and how many of it."""
    interval, count = given.take("interval"), given.take("interval_count", 1)
    if interval == "thirty_days":
        return "day", 30 * int(count)
    if interval not in DAYS:
        raise NotSupportedError(f"the interval {interval}")
    return interval, count


def calendar_anchor(zone: str) -> datetime:
    return CALENDAR.replace(tzinfo=zone_of(zone))


def calendar_start(instant: datetime, interval: str) -> datetime:
    """Where the calendar's interval that holds a local instant begins."""
    day = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if interval in MONTHS:
        return day.replace(day=1, month=(day.month - 1) // MONTHS[interval] * MONTHS[interval] + 1)
    return day - timedelta(days=day.weekday()) if interval == "week" else day


def anchor_of(given: Given, zone: str, interval: str) -> datetime:
    """The anchor; of a calendar cycle where the interval of the zone's calendar begins that holds the instant."""
    if isinstance(given.take("anchor"), str):
        return given.instant("anchor")  # type: ignore[no-any-return]
    instant = given.part("anchor").instant("calendar_boundary_after")
    return calendar_start(instant.astimezone(zone_of(zone)), interval)


def containing(periods: list[Row], instant: datetime, kind: str = "period") -> Row:
    """The one period that holds an instant. Raises OutsideError."""
    found = [row for row in periods if row[f"{kind}_start"] <= instant < row[f"{kind}_end"]]
    if not found:
        raise OutsideError
    (period,) = found
    return period


class OutsideError(Exception):
    """The instant lies in none of the periods."""


@asks("next_boundary", world="calendar")
def next_boundary(given: Given, customer: Customer) -> Asking:
    """A subscription that starts there: where its first period ends."""
    zone = given.take("timezone", "UTC")
    interval, count = interval_of(given)
    start = given.instant("period_start")
    end = given.instant("end_date", None)
    anchor = anchor_of(given, zone, interval)
    if interval == "week" and (start - anchor) % DAYS["week"] == timedelta():
        anchor = start  # of several weeks, those that begin with the period
    customer.plan("USD", interval, count)
    customer.subscribe(start, end, anchor, zone)
    yield RATED
    return {"next": customer.periods()[0]["period_end"]}


@asks("period_of_event", world="calendar")
def period_of_event(given: Given, customer: Customer) -> Asking:
    """The period that holds the instant; without a start of the subscription, the full one."""
    zone = given.take("timezone", "UTC")
    interval, count = interval_of(given)
    event, start = given.instant("event"), given.instant("subscription_start", None)
    given.take(
        "known_period", None
    )  # one that the source has looked up before: nothing here needs it
    anchor = anchor_of(given, zone, interval)
    if given.take("calendar", False):
        anchor = calendar_anchor(zone)
    customer.plan("USD", interval, count)
    customer.subscribe(start or min(anchor, event), anchor=anchor, zone=zone)
    yield RATED
    kind = "period" if start else "full_period"
    try:
        period = containing(customer.periods(), event, kind)
    except OutsideError:
        return {"error": True}
    return {"period_start": period[f"{kind}_start"], "period_end": period[f"{kind}_end"]}


@asks("list_periods", world="calendar")
def list_periods(given: Given, customer: Customer) -> Asking:
    """The periods of a subscription, to its end or as far as they begin before ``until``."""
    zone = given.take("timezone", "UTC")
    interval, count = interval_of(given)
    until = given.instant("until", None)
    customer.plan("USD", interval, count)
    customer.subscribe(
        given.instant("start"), given.instant("end", None), anchor_of(given, zone, interval), zone
    )
    yield RATED
    periods = [
        [row["period_start"], row["period_end"]]
        for row in customer.periods()
        if until is None or row["period_start"] < until
    ]
    ends: Answer = {
        f"{name}_period_end": end
        for name, (_, end) in zip(("first", "second"), periods, strict=False)
    }
    return {"periods": periods, "period_count": Decimal(len(periods)), **ends}


@asks("previous_boundary", world="calendar")
def previous_boundary(given: Given, customer: Customer) -> Asking:
    """The full period of a subscription that starts there, or an instant before, begins at it."""
    zone = given.take("timezone", "UTC")
    interval, count = interval_of(given)
    start = given.instant("timestamp")
    if not given.take("inclusive"):
        start -= INSTANT
    customer.plan("USD", interval, count)
    customer.subscribe(start, anchor=anchor_of(given, zone, interval), zone=zone)
    yield RATED
    return {"previous": customer.periods()[0]["full_period_start"]}


@asks("next_reset", world="calendar")
def next_reset(given: Given, customer: Customer) -> Asking:
    """Boundaries lie at the local midnight of the anchor's day: the end of the period that holds now.

    After the subscription's end it is the end.
    """
    zone = given.take("timezone", "UTC")
    interval, count = interval_of(given)
    anchor = anchor_of(given, zone, interval).astimezone(zone_of(zone))
    midnight = anchor.replace(hour=0, minute=0, second=0, microsecond=0)
    end = given.instant("end_date", None)
    customer.plan("USD", interval, count)
    customer.subscribe(given.instant("subscription_start"), end, midnight, zone)
    now = given.instant("now")
    yield RATED
    try:
        return {"next": containing(customer.periods(), now)["period_end"]}
    except OutsideError:
        over = end and now >= end
        return {"next": customer.periods()[-1]["period_end"]} if over else {"error": True}


@asks(*(f"floor_{interval}" for interval in DAYS), world="calendar")
def floor_interval(given: Given, customer: Customer) -> Asking:
    """Where the calendar's interval that holds an instant begins: the full period of such a subscription."""
    interval = given.take("op").removeprefix("floor_")
    zone = given.take("timezone", "UTC")
    customer.plan("USD", interval)
    customer.subscribe(given.instant("timestamp"), anchor=calendar_anchor(zone), zone=zone)
    yield RATED
    return {"result": customer.periods()[0]["full_period_start"]}


@asks("floor_hour", world="calendar")
def floor_hour(given: Given, customer: Customer) -> Asking:
    """The hour that usage is kept in; hours are those of UTC, which a zone may be minutes away from."""
    zone, instant = given.take("timezone", "UTC"), given.instant("timestamp")
    offset = instant.astimezone(zone_of(zone)).utcoffset() or timedelta()
    yield RATED
    hour = "{{ hour_of('%(instant)s::timestamptz + %(minutes)s') }} - %(minutes)s"
    minutes = offset % timedelta(hours=1)
    return {"result": customer.world.macro(hour, {"instant": instant, "minutes": minutes})}


@asks("add_days", world="calendar")
def add_days(given: Given, customer: Customer) -> Asking:
    """The boundary of an interval of so many days anchored at the instant: the next one, or the one before."""
    zone, days = given.take("timezone", "UTC"), int(given.take("days"))
    instant = given.instant("timestamp")
    customer.plan("USD", "day", abs(days) or 1)
    customer.subscribe(instant - INSTANT if days < 0 else instant, anchor=instant, zone=zone)
    yield RATED
    first = customer.periods()[0]
    edge = "full_period_start" if days < 0 else "period_end" if days else "period_start"
    return {"result": first[edge]}


@asks("contains", world="calendar")
def contains(given: Given, customer: Customer) -> Asking:
    """Whether a subscription of that span is charged for usage of that instant."""
    customer.plan("USD", "year")
    customer.charge("per_unit", [{"unit_amount": 1}])
    customer.subscribe(given.instant("start"), given.instant("end"))
    customer.use(Decimal(1), given.instant("timestamp"))
    yield RATED
    return {"contains": sum(line["quantity"] for line in customer.lines()) == 1}


@asks("days_between", world="calendar")
def days_between(given: Given, customer: Customer) -> Asking:
    """The days that a fee of a subscription of that span is charged for."""
    start = given.instant("start")
    customer.plan("USD", "year")
    customer.fee(1)
    customer.subscribe(start, given.instant("end"), zone=given.take("timezone", "UTC"))
    yield RATED
    return {"days": Decimal(sum(line["charged_days"] for line in customer.lines()))}


# Billing days: dates instead of instants, the day of the month clamped


def billing_anchor(interval: str, start: datetime, day: int) -> datetime:
    """A date with that day of the month on the cycle of the start's month; the nearest to it there is.

    A cycle of days or weeks has no day of the month: it begins with the start.
    """
    if interval not in MONTHS:
        return start
    months = [start.year * 12 + start.month - 1 - back for back in range(0, 97, MONTHS[interval])]
    dates = [(month // 12, month % 12 + 1) for month in months]
    length, year, month = max(
        (min(day, calendar.monthrange(year, month)[1]), year, month) for year, month in dates
    )
    return datetime(year, month, length, tzinfo=UTC)


def subscribe_by_billing_day(given: Given, customer: Customer, timing: str) -> None:
    """A fee of 1 for each interval, cut by the billing day."""
    (interval, count), start = interval_of(given), given.instant("start")
    anchor = billing_anchor(interval, start, int(given.take("billing_day")))
    customer.plan("USD", interval, count)
    customer.fee(1, timing=timing)
    customer.subscribe(start, given.instant("end", None), anchor, billable=True)


def timing_of(given: Given) -> str:
    billing = given.take("billing")
    if billing not in ("in_advance", "in_arrears"):
        raise NotSupportedError(f"billing {billing}")
    return str(billing).removeprefix("in_")


def due_by(customer: Customer, as_of: datetime) -> list[Row]:
    """The lines whose billing instant has come."""
    return customer.world.rows(
        "select drafted.slice_end, rated.exact_amount, rated.charged_days, rated.full_days"
        " from invoices.draft_invoice_lines as drafted"
        " inner join rating.rated_lines as rated"
        " using (subscription_id, charge_id, component, slice_start)"
        " where drafted.subscription_id = %s and drafted.bill_at <= %s order by slice_start",
        customer.name,
        as_of,
    )


@asks("first_billing_day_on_or_after", world="calendar")
def first_billing_day(given: Given, customer: Customer) -> Asking:
    """The start, where the first period is a full one, else the first period's end."""
    subscribe_by_billing_day(given, customer, "advance")
    yield RATED
    first = customer.periods()[0]
    full = first["period_start"] == first["full_period_start"]
    return {"first": first["period_start"] if full else first["period_end"]}


@asks("boundaries", world="calendar")
def boundaries(given: Given, customer: Customer) -> Asking:
    """The starts of the periods that have begun."""
    as_of = given.instant("as_of")
    subscribe_by_billing_day(given, customer, "advance")
    yield RATED
    starts = [row["period_start"] for row in customer.periods()]
    return {"boundaries": [start for start in starts if start <= as_of]}


@asks("billed_through", world="calendar")
def billed_through(given: Given, customer: Customer) -> Asking:
    """How far the lines reach whose billing instant has come; before them a boundary to begin on."""
    as_of = given.instant("as_of")
    subscribe_by_billing_day(given, customer, timing_of(given))
    yield RATED
    reached = [line["slice_end"] for line in due_by(customer, as_of)]
    first = customer.periods()[0]
    if first["period_start"] == first["full_period_start"] <= as_of:
        reached.append(first["period_start"])
    return {"billed_through": max(reached, default=None)}


@asks("billing_cycles", world="calendar")
def billing_cycles(given: Given, customer: Customer) -> Asking:
    """The fees whose billing instant has come, of an interval's fee of 1; each quotient has 9 digits."""
    as_of = given.instant("as_of")
    subscribe_by_billing_day(given, customer, timing_of(given))
    yield RATED
    due = due_by(customer, as_of)
    shares = [Fraction(line["charged_days"], line["full_days"]) for line in due]
    return {
        "cycles": sum((round(line["exact_amount"], 9) for line in due), Decimal(0)),
        "cycles_as_fractions": Shares(shares),
    }


class Shares:
    """Fractions of intervals, equal to a text like ``14/31 + 2`` with the same sum."""

    def __init__(self, shares: list[Fraction]) -> None:
        self._sum = sum(shares, Fraction(0))

    def __eq__(self, other: Any) -> bool:
        terms = str(other).split("+")
        return self._sum == sum((Fraction(term.strip()) for term in terms), Fraction(0))

    def __hash__(self) -> int:
        return hash(self._sum)

    def __str__(self) -> str:
        return str(self._sum)
