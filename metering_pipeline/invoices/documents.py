"""Documents on their way into the frozen tables: what they come to, their number, their content, their hash."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from metering_pipeline.invoices.amounts import (
    Amounts,
    Coupon,
    CouponShare,
    Credit,
    Line,
    LineTax,
    reckon,
)
from metering_pipeline.reconciliation.statements import statement

PACKAGE = "metering_pipeline.invoices"
BY_ISSUING = "issuing"

Row = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """A document with its lines and amounts. The columns are those of invoices.issued_invoices; a line
    has the columns of a frozen line and its tiers."""

    columns: Row
    lines: list[Row]
    amounts: Amounts


def compose(
    connection: psycopg.Connection,
    billing_date: date,
    catalog_version: int,
    held: Collection[str],
    now: datetime,
) -> list[Document]:
    """The due drafts that nothing holds, as numbered documents. Moves the series' heads."""
    drafts = read_rows(connection, "documents_to_issue", held=list(held))
    draft_ids = [draft["draft_id"] for draft in drafts]
    lines = _by_draft(read_rows(connection, "lines_to_issue", draft_ids=draft_ids))
    tiers = _by_line(read_rows(connection, "tiers_to_issue", draft_ids=draft_ids))
    taxes = _by_line(read_rows(connection, "taxes_to_issue", draft_ids=draft_ids))
    stock = _Stock(connection, billing_date, {draft["tenant_id"] for draft in drafts}, now)
    documents = []
    for draft in drafts:
        draft_id = draft["draft_id"]
        for line in lines[draft_id]:
            line["tiers"] = tiers[draft_id, line["line_number"]]
        amounts = reckon(
            [_line(each, taxes[draft_id, each["line_number"]]) for each in lines[draft_id]],
            stock.coupons(draft),
            stock.credits[draft["tenant_id"], draft["currency"]],
            draft["minor_digits"],
        )
        columns = draft | {
            "document_kind": "credit_note" if draft["total"] < 0 else "invoice",
            "billing_date": billing_date,
            "catalog_version": catalog_version,
            "issued_at": now.astimezone(UTC),
            **_sums(amounts),
            **dict.fromkeys(("refers_to", "decided_by", "reason")),
        }
        documents.append(Document(columns, lines[draft_id], amounts))
    number(connection, documents)
    return documents


def number(connection: psycopg.Connection, documents: Sequence[Document]) -> None:
    """Number and chain documents in their order, series by series, and move the series' heads."""
    entities = {"legal_entities": sorted({each.columns["legal_entity"] for each in documents})}
    connection.execute(statement(PACKAGE, "make_series"), entities)
    heads = {
        head["legal_entity"]: head for head in read_rows(connection, "lock_series", **entities)
    }
    for document in documents:
        head = heads[document.columns["legal_entity"]]
        head["last_number"] += 1
        document.columns.update(
            series=head["series"],
            series_number=head["last_number"],
            invoice_number=f"{head['series']}-{head['last_number']:06d}",
            previous_sha256=head["last_sha256"],
        )
        content = _content(document)
        head["last_sha256"] = hashlib.sha256(content.encode()).hexdigest()
        document.columns.update(content=content, content_sha256=head["last_sha256"])
    with connection.cursor() as cursor:
        cursor.executemany(statement(PACKAGE, "move_series"), list(heads.values()))


def freeze(connection: psycopg.Connection, documents: Sequence[Document]) -> None:
    """Write numbered documents, each with all its parts."""
    numbered = [(each.columns["invoice_number"], each) for each in documents]
    _copy(connection, "issued_invoices", (each.columns for each in documents))
    _copy(
        connection,
        "issued_invoice_lines",
        (
            {"invoice_number": name, **_without(line, "tiers", "usage_sha256")}
            for name, document in numbered
            for line in document.lines
        ),
    )
    _copy(
        connection,
        "issued_tier_slices",
        (
            {
                "invoice_number": name,
                "line_number": line["line_number"],
                **tier,
                "dimension_values": json.dumps(tier["dimension_values"]),
            }
            for name, document in numbered
            for line in document.lines
            for tier in line["tiers"]
        ),
    )
    for table in ("issued_invoice_taxes", "coupon_entries"):
        parts = "taxes" if table == "issued_invoice_taxes" else "coupons"
        _copy(
            connection,
            table,
            (
                {"invoice_number": name, **vars(part)}
                for name, document in numbered
                for part in getattr(document.amounts, parts)
            ),
        )
    _copy(
        connection,
        "credit_entries",
        (entry for name, each in numbered for entry in _credit_entries(name, each)),
    )


class _Stock:
    """What coupons and credits can still give, used up document by document."""

    def __init__(
        self,
        connection: psycopg.Connection,
        billing_date: date,
        tenants: Collection[str],
        now: datetime,
    ) -> None:
        connection.execute(
            statement(PACKAGE, "expire_credits"), {"billing_date": billing_date, "now": now}
        )
        self._coupons: defaultdict[str, list[tuple[Row, Coupon]]] = defaultdict(list)
        parameters = {"billing_date": billing_date, "tenants": sorted(tenants)}
        for row in read_rows(connection, "coupons_in_force", **parameters):
            coupon = Coupon(
                row["coupon_id"], row["description"], row["percent"], row["amount_left"], row["documents_left"]
            )  # fmt: skip
            self._coupons[row["tenant_id"]].append((row, coupon))
        self.credits: defaultdict[tuple[str, str], list[Credit]] = defaultdict(list)
        for row in read_rows(connection, "credits_in_force", **parameters):
            components = None if row["components"] is None else frozenset(row["components"])
            credit = Credit(row["credit_id"], row["balance"], components)
            self.credits[row["tenant_id"], row["currency"]].append(credit)

    def coupons(self, draft: Row) -> list[Coupon]:
        """Those for the draft's subscription and currency."""
        return [
            coupon
            for row, coupon in self._coupons[draft["tenant_id"]]
            if row["subscription_id"] in (None, draft["subscription_id"])
            and row["currency"] in (None, draft["currency"])
        ]


def _line(line: Row, taxes: Iterable[Row]) -> Line:
    return Line(
        line["line_number"],
        line["charge_id"],
        line["component"],
        line["slice_start"],
        line["amount"],
        tuple((tax["tax_code"], tax["rate"]) for tax in taxes),
    )


def _sums(amounts: Amounts) -> Row:
    names = ("coupon_amount", "tax_amount", "credit_amount", "amount_due")
    return {name: getattr(amounts, name) for name in names}


def _content(document: Document) -> str:
    """The canonical text of a document: JSON, keys sorted, decimals as strings, instants in UTC,
    a line's taxes and coupons by their names.

    It holds the hash of the document before it, so that the hashes are a chain.
    """
    amounts = document.amounts
    taxes = _parts(sorted(amounts.taxes, key=lambda each: each.tax_code))
    coupons = _parts(sorted(amounts.coupons, key=lambda each: each.coupon_id))
    lines = [
        line | {"taxes": taxes[line["line_number"]], "coupons": coupons[line["line_number"]]}
        for line in document.lines
    ]
    credits = dict(amounts.credits)
    return json.dumps(
        {**_without(document.columns, "draft_id"), "lines": lines, "credits": credits},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
        default=_canonical,
    )


def _parts(parts: Sequence[CouponShare] | Sequence[LineTax]) -> defaultdict[int, list[Row]]:
    """The parts by line number."""
    grouped: defaultdict[int, list[Row]] = defaultdict(list)
    for part in parts:
        grouped[part.line_number].append(_without(vars(part), "line_number"))
    return grouped


def _canonical(value: object) -> str:
    match value:
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        case date():
            return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical text")


def _credit_entries(invoice_number: str, document: Document) -> Iterable[Row]:
    """A credit that pays goes down; one that a void returns goes up."""
    columns = document.columns
    for credit_id, amount in document.amounts.credits:
        yield {
            "credit_id": credit_id,
            "kind": "applied" if amount > 0 else "returned",
            "tenant_id": columns["tenant_id"],
            "currency": columns["currency"],
            "amount": -amount,
            "invoice_number": invoice_number,
            "entered_at": columns["issued_at"],
            "entered_by": columns["decided_by"] or BY_ISSUING,
            "reason": columns["reason"] or f"paid {invoice_number}",
        }


def _copy(connection: psycopg.Connection, table: str, values: Iterable[Row]) -> None:
    """Write rows that all have the same columns.

    By way of a temporary table: PostgreSQL copies nothing into a table that has row-level security.
    """
    rows = iter(values)
    first = next(rows, None)
    if first is None:
        return
    names = {
        "table": psycopg.sql.Identifier("invoices", table),
        "columns": psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, first)),
    }
    connection.execute(_MAKE_ARRIVING.format(**names))
    copy = psycopg.sql.SQL("copy pg_temp.arriving from stdin")
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        stream.write_row(list(first.values()))
        for row in rows:
            stream.write_row([row[column] for column in first])
    connection.execute(_WRITE_ARRIVED.format(**names))
    connection.execute("drop table pg_temp.arriving")


_MAKE_ARRIVING = psycopg.sql.SQL(
    "create temporary table arriving on commit drop as select {columns} from {table} with no data"
)
_WRITE_ARRIVED = psycopg.sql.SQL(
    "insert into {table} ({columns}) select {columns} from pg_temp.arriving"
)


def read_rows(connection: psycopg.Connection, name: str, **parameters: Any) -> list[Row]:
    """The rows that a statement of this package gives."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(PACKAGE, name), parameters).fetchall()


def _by_draft(rows: Iterable[Row]) -> defaultdict[str, list[Row]]:
    grouped: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.pop("draft_id")].append(row)
    return grouped


def _by_line(rows: Iterable[Row]) -> defaultdict[tuple[str, int], list[Row]]:
    grouped: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.pop("draft_id"), row.pop("line_number")].append(row)
    return grouped


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}
