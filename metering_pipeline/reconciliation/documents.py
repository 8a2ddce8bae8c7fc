"""L5: documents and their lines, and an independent rating of what each line pinned."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg
from psycopg.rows import class_row

from metering_pipeline.reconciliation.independent_calendar import Calendar, starts_a_slice
from metering_pipeline.reconciliation.independent_rating import (
    ContradictionError,
    Terms,
    Tier,
    TierSlice,
    UnknownChargeModelError,
    Used,
    above_maximum,
    discount,
    flat_amount,
    matrix_row,
    rounded,
    up_to_minimum,
    usage_amount,
)
from metering_pipeline.reconciliation.line_usage import Wanted, used_by
from metering_pipeline.reconciliation.statements import rows, statement
from metering_pipeline.reconciliation.zones import read_zones

PACKAGE = "metering_pipeline.reconciliation"
SAMPLES = 5

Finding = tuple[datetime, datetime, str | None, bool, dict[str, Any]]
"""Window start, window end, tenant (None: the window), passed, figures."""


@dataclass(frozen=True)
class PinnedLine:
    """A line, issued or drafted, with what it pinned and what its key has been billed with it."""

    billing_date: date
    tenant_id: str
    document: str
    line_number: int
    charge_id: str
    charge_version: int
    subscription_id: str
    subscription_version: int
    component: str
    metric: str | None
    slice_start: datetime
    slice_end: datetime
    quantity: Decimal
    rated_amount: Decimal
    currency: str
    billed: Decimal
    event_count: int
    value_sum: Decimal
    event_digest: Decimal
    payload_digest: Decimal
    issued_at: datetime | None
    """None for a draft."""
    slice_billed: dict[str, str]
    """By component what all lines of the same charge and slice have been billed with it."""
    slices: list[dict[str, Any]]
    """The tier slices that say what no quantity tells: of a matrix, a percentage that looks at
    each event, or a commitment."""
    counted: Decimal | None
    """Of a commitment: what the other lines that count towards it came to then. None: that cannot be
    told, since one of them was first billed later, or is not billed yet."""

    def beside(self, *components: str) -> Decimal:
        """The amount of other lines of the same charge and slice."""
        return sum((Decimal(self.slice_billed.get(each, 0)) for each in components), Decimal(0))


@dataclass(frozen=True)
class LineFault:
    """A line whose amount an independent rating does not confirm."""

    line: PinnedLine
    fault: str


@dataclass(frozen=True)
class _Charge:
    plan_id: str
    charge_model: str
    aggregation: str | None
    billing_interval: str
    interval_count: int
    cut_days: list[date]
    dimension_route: dict[str, str]
    tiers: list[Tier]
    terms: Terms

    @property
    def needs_usage(self) -> bool:
        """Whether a quantity does not say what it costs."""
        return self.charge_model == "matrix" or (
            self.charge_model == "percentage" and self.terms.reads_events
        )

    def has_price(self, dimensions: Mapping[str, str | None]) -> bool:
        """Whether usage of these dimensions is in its lines."""
        return self.charge_model != "matrix" or matrix_row(self.tiers, dimensions) is not None


@dataclass(frozen=True)
class _Subscription:
    plan_id: str
    zone: tzinfo
    anchor: datetime
    started_at: datetime
    trial_ends_at: datetime | None
    ended_at: datetime | None

    def calendar(self, charge: _Charge) -> Calendar:
        return Calendar(self.zone, self.anchor, charge.billing_interval, charge.interval_count)

    def has_slice(self, start: datetime, charge: _Charge) -> bool:
        """Whether it has a slice of the charge that starts at the instant."""
        return (
            self.plan_id == charge.plan_id
            and (self.ended_at is None or start < self.ended_at)
            and starts_a_slice(
                start, self.calendar(charge), self.started_at, self.trial_ends_at, charge.cut_days
            )
        )


@dataclass(frozen=True)
class _Prices:
    charges: Mapping[tuple[str, int], _Charge]
    subscriptions: Mapping[tuple[str, int], _Subscription]
    minor_digits: Mapping[str, int]


@dataclass
class _Day:
    """What was found for one billing date."""

    documents: int = 0
    faults: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))
    broken_series: set[str] = field(default_factory=set)
    last_numbers: dict[str, int] = field(default_factory=dict)

    def blame(self, tenant_id: str, document: str, faults: Iterable[str]) -> None:
        self.faults[tenant_id].setdefault(document, []).extend(faults)


def line_faults(connection: psycopg.Connection, lines: Iterable[PinnedLine]) -> list[LineFault]:
    """The lines whose billed amount differs from an independent rating of what they pinned."""
    prices = _read_prices(connection)
    known = list(lines)
    used = _read_usage(connection, known, prices)
    faults = []
    for place, line in enumerate(known):
        fault = _line_fault(line, prices, used.get(place))
        if fault is not None:
            faults.append(LineFault(line, fault))
    return faults


def document_findings(
    connection: psycopg.Connection, window_start: datetime, window_end: datetime
) -> Iterator[Finding]:
    """Evaluate the documents of the billing dates in [window_start, window_end), date by date."""
    parameters = {"window_start": window_start, "window_end": window_end}
    days: defaultdict[date, _Day] = defaultdict(_Day)
    known_dates = rows(connection, PACKAGE, "known_billing_dates", parameters)
    for known in known_dates:
        days[known.billing_date] = _Day()
    _check_documents(connection, parameters, days)
    for known in known_dates:
        day = days[known.billing_date]
        if known.series and day.last_numbers.get(known.series, 0) < known.last_number:
            day.broken_series.add(known.series)
    _check_series_heads(connection, parameters, days)
    _check_credits(connection, parameters, days)
    with connection.cursor(row_factory=class_row(PinnedLine)) as cursor:
        lines = cursor.execute(statement(PACKAGE, "issued_keys"), parameters).fetchall()
    for each in line_faults(connection, lines):
        days[each.line.billing_date].blame(
            each.line.tenant_id, each.line.document, [f"line {each.line.line_number}: {each.fault}"]
        )
    for billing_date in sorted(days):
        yield from _day_findings(billing_date, days[billing_date])


def _check_documents(
    connection: psycopg.Connection, parameters: Mapping[str, Any], days: defaultdict[date, _Day]
) -> None:
    for row in rows(connection, PACKAGE, "issued_documents", parameters):
        day = days[row.billing_date]
        day.documents += 1
        day.last_numbers[row.series] = row.series_number  # in order
        if row.faults:
            day.blame(row.tenant_id, row.invoice_number, row.faults)
        if row.number_missing:
            day.broken_series.add(row.series)
        elif row.chain_broken:
            # Either of the two was changed; which one, the chain alone cannot tell.
            for tenant_id in {row.tenant_id, row.previous_tenant_id} - {None}:
                day.blame(tenant_id, row.invoice_number, ["the chain breaks before it"])


def _check_series_heads(
    connection: psycopg.Connection, parameters: Mapping[str, Any], days: defaultdict[date, _Day]
) -> None:
    first = parameters["window_start"].astimezone(UTC).date()
    for row in rows(connection, PACKAGE, "series_heads"):
        billing_date = row.billing_date or first
        if billing_date < first or _midnight(billing_date) >= parameters["window_end"]:
            continue
        if row.number_missing or row.tenant_id is None:
            days[billing_date].broken_series.add(row.series)
        else:
            document = f"head of series {row.series}"
            days[billing_date].blame(row.tenant_id, document, ["the chain breaks after it"])


def _check_credits(
    connection: psycopg.Connection, parameters: Mapping[str, Any], days: defaultdict[date, _Day]
) -> None:
    for row in rows(connection, PACKAGE, "broken_credits", parameters):
        fault = f"entry {row.entry_id} ({row.kind}) was changed, or the entry before it is gone"
        days[row.entered_on].blame(row.tenant_id, f"credit {row.credit_id}", [fault])


def _day_findings(billing_date: date, day: _Day) -> Iterator[Finding]:
    start = _midnight(billing_date)
    end = start + timedelta(days=1)
    figures = {
        "documents": day.documents,
        "failing_documents": sum(len(documents) for documents in day.faults.values()),
        "failing_tenants": len(day.faults),
        "broken_series": sorted(day.broken_series),
        "last_numbers": day.last_numbers,
    }
    yield start, end, None, not day.faults and not day.broken_series, figures
    for tenant_id, documents in sorted(day.faults.items()):
        samples = [
            {"document": document, "faults": faults[:SAMPLES]}
            for document, faults in sorted(documents.items())[:SAMPLES]
        ]
        yield start, end, tenant_id, False, {"documents": len(documents), "samples": samples}


def _read_usage(
    connection: psycopg.Connection, lines: list[PinnedLine], prices: _Prices
) -> dict[int, list[Used] | None]:
    """By place the usage of the lines whose quantity does not say what it costs."""
    wanted = {
        place: Wanted(
            line.tenant_id,
            line.metric,
            line.slice_start,
            line.slice_end,
            charge.dimension_route,
            charge.charge_model != "matrix",
            charge.has_price,
            line.event_digest,
            line.payload_digest,
            line.issued_at,
        )
        for place, line in enumerate(lines)
        if line.component == "usage" and line.metric is not None
        for charge in [prices.charges.get((line.charge_id, line.charge_version))]
        if charge is not None and charge.needs_usage
    }
    return dict(zip(wanted, used_by(connection, list(wanted.values())), strict=True))


def _line_fault(line: PinnedLine, prices: _Prices, used: Sequence[Used] | None) -> str | None:
    charge = prices.charges.get((line.charge_id, line.charge_version))
    subscription = prices.subscriptions.get((line.subscription_id, line.subscription_version))
    if charge is None or subscription is None:
        return "the pinned version of the charge or subscription is not in the catalog"
    pinned = {"count": Decimal(line.event_count), "sum": line.value_sum}.get(
        charge.aggregation or ""
    )
    if line.component == "usage" and pinned is not None and pinned != line.quantity:
        return f"quantity is {line.quantity}, its pinned usage {pinned}"
    try:
        amount = _due(line, charge, subscription, prices.minor_digits[line.currency], used)
    except (UnknownChargeModelError, ContradictionError) as error:
        return str(error)
    if line.rated_amount == 0 and _was_withdrawn(line, charge, prices):
        amount = Decimal(0)
    if amount != line.rated_amount:
        return f"rated {line.rated_amount}, independently {amount} {line.currency}"
    if amount != line.billed:
        return f"billed {line.billed} in all, independently {amount} {line.currency}"
    return None


def _due(
    line: PinnedLine,
    charge: _Charge,
    subscription: _Subscription,
    minor_digits: int,
    used: Sequence[Used] | None,
) -> Decimal:
    if not subscription.has_slice(line.slice_start, charge):
        return Decimal(0)
    share = subscription.calendar(charge).share(line.slice_start, line.slice_end)
    slices = [
        TierSlice(each["tier"], Decimal(each["quantity"]), Decimal(each["amount"]))
        for each in line.slices
    ]
    match line.component:
        case "flat":
            return rounded(flat_amount(charge.tiers, share, charge.terms), minor_digits)
        case "commitment":
            agreed = flat_amount(charge.tiers, share, charge.terms)
            left = agreed - _counted_towards(line, slices)
            return rounded(max(left, Fraction(0)), minor_digits) if slices else Decimal(0)
        case "discount":
            return discount(charge.terms, line.beside("usage", "flat"), minor_digits)
        case "maximum":
            amount = line.beside("usage", "discount")
            return above_maximum(charge.terms, amount, minor_digits)
        case "minimum":
            amount = line.beside("usage", "discount", "maximum")
            return up_to_minimum(charge.terms, amount, share, minor_digits)
    exact = usage_amount(
        charge.charge_model,
        charge.tiers,
        line.quantity,
        charge.terms,
        line.event_count,
        slices,
        used,
    )
    return rounded(exact, minor_digits)


def _counted_towards(line: PinnedLine, slices: Sequence[TierSlice]) -> Fraction:
    """What the frozen slices of a commitment say was used of it, as the other lines must say too."""
    frozen = -sum((Fraction(each.amount) for each in slices if each.tier == 2), Fraction(0))
    if slices and line.counted is not None and frozen != line.counted:
        raise ContradictionError(
            f"slices count {float(frozen)} towards the commitment, the other lines come to {line.counted}"
        )
    return frozen


def _was_withdrawn(line: PinnedLine, charge: _Charge, prices: _Prices) -> bool:
    """Whether a later version of the subscription no longer has the slice: all of it goes back."""
    return any(
        not subscription.has_slice(line.slice_start, charge)
        for (subscription_id, version), subscription in prices.subscriptions.items()
        if subscription_id == line.subscription_id and version > line.subscription_version
    )


def _read_prices(connection: psycopg.Connection) -> _Prices:
    charges = {
        (row.charge_id, row.version): _Charge(
            row.plan_id,
            row.charge_model,
            row.aggregation,
            row.billing_interval,
            row.interval_count,
            row.cut_days,
            row.dimension_route,
            [
                Tier(*tier)
                for tier in zip(
                    row.up_to,
                    row.unit_amounts,
                    row.flat_amounts,
                    row.rate_percents,
                    row.dimension_values,
                    strict=True,
                )
            ],
            Terms(*(getattr(row, each.name) for each in fields(Terms))),
        )
        for row in rows(connection, PACKAGE, "charges")
    }
    versions = rows(connection, PACKAGE, "subscriptions")
    zones = read_zones(connection, {row.time_zone for row in versions})
    subscriptions = {
        (row.subscription_id, row.version): _Subscription(
            row.plan_id,
            zones[row.time_zone],
            datetime.combine(row.anchor_date, row.anchor_time),
            row.started_at,
            row.trial_ends_at,
            row.ended_at,
        )
        for row in versions
    }
    currencies = {row.currency: row.minor_digits for row in rows(connection, PACKAGE, "currencies")}
    return _Prices(charges, subscriptions, currencies)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
