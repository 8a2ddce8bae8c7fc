"""Voids and write-offs: further documents about an issued one, with its lines and amounts negated."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import psycopg

from metering_pipeline.errors import MeteringError
from metering_pipeline.invoices.amounts import EXACT, Amounts, CouponShare, LineTax
from metering_pipeline.invoices.documents import Document, read_rows

NEGATED = ("total", "coupon_amount", "tax_amount", "credit_amount", "amount_due")


class UnknownDocumentError(MeteringError):
    """No document has this number."""


class NotReversibleError(MeteringError):
    """The document cannot be voided or written off; the message says why."""


def reversal(
    connection: psycopg.Connection, invoice_number: str, kind: str, by: str, why: str, now: datetime
) -> Document:
    """The further document, not numbered yet. A void gives back coupons and credits, a write-off does not.

    Raises UnknownDocumentError, NotReversibleError.
    """
    found = read_rows(connection, "document_to_reverse", invoice_number=invoice_number)
    if not found:
        raise UnknownDocumentError(
            f"There is no document {invoice_number!r}. See `metering invoice list`."
        )
    (document,) = found
    _require_reversible(document, kind)
    with localcontext(EXACT):
        amounts = _negated_amounts(connection, invoice_number, gives_back=kind == "void")
        negated = {name: -document[name] for name in NEGATED}
    columns = {
        name: value
        for name, value in document.items()
        if name not in ("reversed_by", "reversed_as")
    }
    columns |= negated | {
        "document_kind": kind,
        "issued_at": now.astimezone(UTC),
        "refers_to": invoice_number,
        "decided_by": by,
        "reason": why,
    }
    lines = read_rows(connection, "lines_to_reverse", invoice_number=invoice_number)
    return Document(columns, [line | {"tiers": []} for line in lines], amounts)


def _require_reversible(document: dict[str, Any], kind: str) -> None:
    number, word = document["invoice_number"], _word(kind)
    if document["document_kind"] in ("void", "write_off"):
        raise NotReversibleError(
            f"{number} is a {_word(document['document_kind'])} of {document['refers_to']}: "
            f"there is no {word} of it."
        )
    if document["reversed_by"] is not None:
        raise NotReversibleError(
            f"{number} has a {_word(document['reversed_as'])} already: {document['reversed_by']}."
        )
    if kind == "write_off" and document["amount_due"] <= 0:
        raise NotReversibleError(
            f"{number} comes to {document['amount_due']} {document['currency']}: "
            "there is nothing to write off."
        )


def _negated_amounts(
    connection: psycopg.Connection, invoice_number: str, gives_back: bool
) -> Amounts:
    """The parts with their signs turned; the sums are the document's own."""
    taxes = [
        LineTax(
            row["line_number"], row["tax_code"], row["rate"], -row["taxable_amount"], -row["tax_amount"]
        )
        for row in read_rows(connection, "taxes_to_reverse", invoice_number=invoice_number)
    ]  # fmt: skip
    coupons, credits = [], []
    if gives_back:
        coupons = [
            CouponShare(row["line_number"], row["coupon_id"], -row["amount"], row["description"])
            for row in read_rows(connection, "coupons_to_return", invoice_number=invoice_number)
        ]
        credits = [
            (row["credit_id"], row["amount"])
            for row in read_rows(connection, "credits_to_return", invoice_number=invoice_number)
        ]
    zero = Decimal(0)
    return Amounts(zero, zero, zero, zero, coupons, taxes, credits)


def _word(kind: str) -> str:
    return kind.replace("_", "-")
