"""What a statement says: every text and figure of it, ready to be set as HTML or PDF."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

from metering_pipeline.invoices.statement.lines import Group, groups
from metering_pipeline.invoices.statement.plot import Plot, draw
from metering_pipeline.invoices.statement.reading import Document
from metering_pipeline.invoices.statement.writing import day, measured, number, period

KINDS = {
    "invoice": "Invoice",
    "credit_note": "Credit note",
    "void": "Cancellation",
    "write_off": "Write-off",
}

FIRST = "none: the series begins with this document"


@dataclass(frozen=True)
class Sum:
    """A row of the way from the lines to the amount due."""

    label: str
    amount: str


@dataclass(frozen=True)
class Usage:
    """A line's usage by day: a plot, what it says in words, and its figures (day, quantity, events)."""

    title: str
    unit: str
    summary: str
    plot: Plot
    days: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Digest:
    """What identifies the events of a line of usage."""

    line: str
    events: str
    event_digest: str
    payload_digest: str


@dataclass(frozen=True)
class Page:
    """A statement. ``issued_on`` is the UTC date as year, month, day."""

    number: str
    heading: str
    about: list[str]
    seller: str
    customer: str
    customer_id: str
    facts: list[tuple[str, str]]
    issued_on: tuple[int, int, int]
    currency: str
    groups: list[Group]
    sums: list[Sum]
    amount_due: str
    usage: list[Usage]
    digests: list[Digest]
    sha256: str
    previous_sha256: str


def compose(document: Document) -> Page:
    """Say an issued document in words; the figures are those of its rows."""
    head = document.head
    issued = head.issued_at.astimezone(UTC)
    return Page(
        number=head.invoice_number,
        heading=KINDS[head.document_kind],
        about=list(_about(head)),
        seller=head.legal_entity_name,
        customer=head.tenant_name,
        customer_id=head.tenant_id,
        facts=list(_facts(document)),
        issued_on=(issued.year, issued.month, issued.day),
        currency=head.currency,
        groups=list(groups(document)),
        sums=list(_sums(document)),
        amount_due=f"{number(head.amount_due, head.minor_digits)} {head.currency}",
        usage=[_usage(line, document.usage[line.line_number]) for line in _measured_lines(document)],
        digests=[
            Digest(
                str(line.line_number),
                number(Decimal(line.event_count)),
                f"{line.event_digest:f}",
                f"{line.payload_digest:f}",
            )
            for line in document.lines
            if line.component == "usage"
        ],
        sha256=head.content_sha256,
        previous_sha256=head.previous_sha256 if head.series_number > 1 else FIRST,
    )  # fmt: skip


def _about(head: Any) -> Iterator[str]:
    if head.reversed_as == "void":
        yield f"{head.reversed_by} has since taken back this document as a whole."
    elif head.reversed_as == "write_off":
        yield f"{head.reversed_by} has since written off what this document asks for."
    if head.document_kind == "void":
        yield f"This document takes back {head.refers_to} as a whole. Reason: {head.reason}"
    elif head.document_kind == "write_off":
        yield f"What {head.refers_to} asks for is no longer claimed. Reason: {head.reason}"
    elif head.amount_due < 0:
        yield "The amount is in your favor."


def _facts(document: Document) -> Iterator[tuple[str, str]]:
    head = document.head
    served = [line for line in document.lines if line.kind == "regular"] or document.lines
    start = min(line.slice_start for line in served)
    end = max(line.slice_end for line in served)
    yield "Number", head.invoice_number
    if head.refers_to is not None:
        yield "Refers to", head.refers_to
    yield "Issued", day(head.issued_at.astimezone(document.zone))
    yield "Billing date", day(head.billing_date)
    yield "Service period", period(start, end, document.zone)
    yield "Subscription", head.subscription_id
    yield "Plan", head.plan_name
    yield "Time zone", head.time_zone


def _sums(document: Document) -> Iterator[Sum]:
    head, digits = document.head, document.head.minor_digits
    yield Sum("Sum of the lines", number(head.total, digits))
    for coupon in document.coupons:
        yield Sum(
            f"Coupon {coupon.coupon_id}: {coupon.description}", number(-coupon.amount, digits)
        )
    for tax in document.taxes:
        base = number(tax.taxable_amount, digits)
        yield Sum(
            f"Tax {tax.tax_code}, {number(tax.rate)} % of {base}", number(tax.tax_amount, digits)
        )
    for credit in document.credits:
        expiry = f", expires {day(credit.expires_on)}" if credit.expires_on else ""
        label = f"Prepaid credit {credit.credit_id}: {credit.reason}{expiry}"
        yield Sum(label, number(credit.amount, digits))


def _measured_lines(document: Document) -> Sequence[Any]:
    if document.head.document_kind not in ("invoice", "credit_note"):
        return []
    return [
        line for line in document.lines if line.kind == "regular" and line.line_number in document.usage
    ]  # fmt: skip


def _usage(line: Any, days: Sequence[Any]) -> Usage:
    first = line.slice_start.astimezone(UTC).date()
    values = {each.day: measured(line, each)[0] for each in days if each.day >= first}
    unit = measured(line, days[0])[1]
    last = (line.slice_end.astimezone(UTC) - timedelta(microseconds=1)).date()
    most = max(values, key=lambda each: (values[each], -each.toordinal()), default=first)
    return Usage(
        title=line.description,
        unit=unit,
        summary=f"{line.description}, {unit} by day from {day(first)} to {day(last)}: "
        f"most on {day(most)}, {number(values.get(most, Decimal(0)))}.",
        plot=draw(values, first, last),
        days=[
            (
                day(each.day) if each.day >= first else f"until {day(each.day)}",
                number(measured(line, each)[0]),
                number(Decimal(each.event_count)),
            )
            for each in days
        ],
    )
