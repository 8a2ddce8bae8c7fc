"""Reads an issued document as it was frozen. Nothing is computed anew."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, tzinfo
from typing import Any

import psycopg

from metering_pipeline.errors import MeteringError
from metering_pipeline.reconciliation.statements import rows
from metering_pipeline.reconciliation.zones import read_zones

PACKAGE = "metering_pipeline.invoices.statement"


class UnknownDocumentError(MeteringError):
    """No document was issued under this number, or for this date."""


@dataclass(frozen=True)
class Document:
    """A document and its rows, as the statements of ``sql/`` give them: amounts and quantities are
    decimals, instants aware. By line number: ``tiers`` to ``corrections``; ``usage_before`` is what the
    document that last billed the line's key knew."""

    head: Any
    zone: tzinfo
    """The subscription's, by the clock rules of the server, which cut its periods."""
    lines: list[Any]
    tiers: dict[int, list[Any]]
    usage: dict[int, list[Any]]
    billed_before: dict[int, list[Any]]
    usage_before: dict[int, list[Any]]
    corrections: dict[int, list[Any]]
    coupons: list[Any]
    taxes: list[Any]
    credits: list[Any]


def read(connection: psycopg.Connection, number: str) -> Document:
    """The document with this number. Raises UnknownDocumentError."""
    parameters = {"number": number}

    def of(name: str) -> list[Any]:
        return rows(connection, PACKAGE, name, parameters)

    heads = of("document")
    if not heads:
        raise UnknownDocumentError(
            f"No document {number!r} was issued. Numbers look like US-000001; "
            "`metering statement --all --date D` takes all that were issued for a date."
        )
    (head,) = heads
    billed_before = _by_line(of("billed_before"))
    return Document(
        head=head,
        zone=read_zones(connection, [head.time_zone])[head.time_zone],
        lines=of("lines"),
        tiers=_by_line(of("tiers")),
        usage=_by_line(of("usage")),
        billed_before=billed_before,
        usage_before={
            line_number: _usage_of(connection, last_billing(earlier))
            for line_number, earlier in billed_before.items()
        },
        corrections=_by_line(of("corrections")),
        coupons=of("coupons"),
        taxes=of("taxes"),
        credits=of("credits"),
    )


def last_billing(earlier: list[Any]) -> Any:
    """Of what earlier documents billed: the newest; one that was taken back since is billed anew."""
    return [each for each in earlier if each.document_kind != "void"][-1]


def numbers_of(connection: psycopg.Connection, billing_date: date) -> list[str]:
    """The numbers of all documents issued for a date. Raises UnknownDocumentError when there is none."""
    found = rows(connection, PACKAGE, "issued_on", {"billing_date": billing_date})
    if not found:
        raise UnknownDocumentError(f"No document was issued for {billing_date}.")
    return [each.invoice_number for each in found]


def _usage_of(connection: psycopg.Connection, line: Any) -> list[Any]:
    found = rows(connection, PACKAGE, "usage", {"number": line.invoice_number})
    return [each for each in found if each.line_number == line.earlier_line_number]


def _by_line(found: Iterable[Any]) -> dict[int, list[Any]]:
    lines: defaultdict[int, list[Any]] = defaultdict(list)
    for each in found:
        lines[each.line_number].append(each)
    return dict(lines)
