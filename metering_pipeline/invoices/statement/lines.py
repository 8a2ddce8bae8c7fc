"""The lines of a statement: what each is for, its tiers, and how an adjustment comes about."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metering_pipeline.invoices.statement.reading import Document
from metering_pipeline.invoices.statement.reasons import reasons
from metering_pipeline.invoices.statement.writing import number, period

GROUPS = {"regular": "Charges", "adjustment": "Adjustments of earlier periods"}
COMPONENTS = {
    "discount": "discount",
    "maximum": "reduction to the maximum",
    "minimum": "addition up to the minimum",
}
PERCENTAGE_TIERS = {1: "Rate", 2: "For each event", 3: "Limits for each event"}


@dataclass(frozen=True)
class Detail:
    """A row below a line: a tier of it, or how an adjustment comes about. Amounts are not rounded."""

    label: str
    quantity: str
    price: str
    amount: str


@dataclass(frozen=True)
class Line:
    """A line of the document; ``price`` only where one price explains it."""

    number: str
    title: str
    period: str
    quantity: str
    price: str
    amount: str
    details: list[Detail]
    notes: list[str]


@dataclass(frozen=True)
class Group:
    """Lines under a heading."""

    title: str
    lines: list[Line]


def groups(document: Document) -> Iterator[Group]:
    """The lines under their headings; a heading without lines is left out."""
    for kind, title in GROUPS.items():
        lines = [_line(document, each) for each in document.lines if each.kind == kind]
        if lines:
            yield Group(title, lines)


def _line(document: Document, line: Any) -> Line:
    digits = document.head.minor_digits
    tiers = document.tiers.get(line.line_number, [])
    whole = _explained_by_one_price(document, line, tiers)
    title = line.description
    if line.component in COMPONENTS:
        title = f"{title}: {COMPONENTS[line.component]}"
    return Line(
        number=str(line.line_number),
        title=title,
        period=period(line.slice_start, line.slice_end, document.zone),
        quantity=_quantity(line),
        price=_price(line, tiers[0], digits) if whole else "",
        amount=number(line.amount, digits),
        details=[
            *([] if whole else [_tier(line, tier, digits) for tier in tiers]),
            *_billed_before(document, line),
        ],
        notes=list(_notes(document, line, tiers)),
    )


def _explained_by_one_price(document: Document, line: Any, tiers: list[Any]) -> bool:
    """Not so where part of the quantity is free, or where the line is a difference to what was billed."""
    return (
        len(tiers) == 1
        and line.line_number not in document.billed_before
        and not tiers[0].dimension_values
        and (line.component == "flat" or tiers[0].quantity == line.quantity)
    )


def _notes(document: Document, line: Any, tiers: list[Any]) -> Iterator[str]:
    if line.component == "flat" and any(tier.amount != tier.flat_amount for tier in tiers):
        yield "For a part of the full period, by days."
    if line.kind == "adjustment":
        yield from reasons(document, line)


def _quantity(line: Any) -> str:
    if line.component != "usage":
        return ""
    return f"{number(line.quantity)} {line.unit or ''}".rstrip()


def _tier(line: Any, tier: Any, digits: int) -> Detail:
    return Detail(
        label=_label(line, tier),
        quantity="" if line.component == "flat" else number(tier.quantity),
        price=_price(line, tier, digits),
        amount=number(tier.amount, digits),
    )


def _label(line: Any, tier: Any) -> str:
    if tier.dimension_values:
        return ", ".join(f"{name} {value}" for name, value in sorted(tier.dimension_values.items()))
    match line.charge_model:
        case "percentage":
            return PERCENTAGE_TIERS.get(tier.tier, f"Tier {tier.tier}")
        case "matrix":
            return "All other"
        case "flat" | "package" | "per_unit" | "dynamic":
            return "Priced"
        case _:
            return f"Tier {tier.tier}"


def _price(line: Any, tier: Any, digits: int) -> str:
    """0.0018 + 1.50 fixed; 3.5 %; 5.00 for each 500."""
    match line.charge_model:
        case "flat":
            return number(tier.flat_amount, digits)
        case "package":
            return f"{number(tier.flat_amount, digits)} for each {number(line.package_size)}"
        case "dynamic":
            return "as reported"
        case "percentage" if tier.tier == max(PERCENTAGE_TIERS):
            return ""
    parts = []
    if tier.rate_percent:
        parts.append(f"{number(tier.rate_percent)} %")
    if tier.unit_amount or not (tier.rate_percent or tier.flat_amount):
        parts.append(number(tier.unit_amount, digits))
    if tier.flat_amount:
        parts.append(f"{number(tier.flat_amount, digits)} fixed")
    return " + ".join(parts)


def _billed_before(document: Document, line: Any) -> Iterator[Detail]:
    digits = document.head.minor_digits
    earlier = document.billed_before.get(line.line_number, [])
    if earlier:
        yield Detail("This period now", _quantity(line), "", number(line.rated_amount, digits))
    for each in earlier:
        verb = "Taken back by" if each.document_kind == "void" else "Billed on"
        yield Detail(f"{verb} {each.invoice_number}", "", "", number(-each.amount, digits))
