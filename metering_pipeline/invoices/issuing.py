"""Issuing: due drafts become frozen, numbered, chained documents. It happens once and is never undone.

One REPEATABLE READ transaction under the pipeline's lock; its snapshot is taken after the lock has
been got, so it shows what the lock's last holder has done. A serialization failure repeats it whole.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import class_row, dict_row

from metering_pipeline.errors import MeteringError
from metering_pipeline.invoices.gate import Hold, find_holds
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.statements import rows, statement

PACKAGE = "metering_pipeline.invoices"
ATTEMPTS = 5


class IssuingError(MeteringError):
    """Nothing was issued; the message says why and what to do."""


class IssuingStoppedError(IssuingError):
    """The switch is off."""


class BillingDateError(IssuingError):
    """The billing date has not ended, or precedes one that documents were issued for."""


class DraftsNotCurrentError(IssuingError):
    """The drafts are not built from the present usage, catalog or documents."""


class UnknownHoldError(IssuingError):
    """There is no such draft, or no such standing hold of it."""


@dataclass(frozen=True)
class IssuedInvoice:
    """A document that went. The total is in the currency, negative for a credit note."""

    number: str
    tenant_id: str
    subscription_id: str
    document_kind: str
    total: Decimal
    currency: str


@dataclass(frozen=True)
class HeldInvoice:
    """A reason why a due draft did not go; a draft may have several."""

    draft_id: str
    tenant_id: str
    reason: str
    detail: str
    total: Decimal
    currency: str


@dataclass(frozen=True)
class IssueReport:
    """What a run of issuing did. ``drafts_current`` is false only where the billing date was issued
    before and nothing was due: then drafts built anew may show more."""

    billing_date: date
    issued: list[IssuedInvoice]
    held: list[HeldInvoice]
    drafts_current: bool


@dataclass(frozen=True)
class _Document:
    """A draft on its way out, with its place in the series and its frozen content."""

    draft_id: str
    invoice_number: str
    series: str
    series_number: int
    document_kind: str
    tenant_id: str
    subscription_id: str
    legal_entity: str
    currency: str
    total: Decimal
    billing_date: date
    bill_at: datetime
    catalog_version: int
    issued_at: datetime
    content: str
    content_sha256: str
    previous_sha256: str
    coupon_amount: Decimal
    tax_amount: Decimal
    credit_amount: Decimal
    amount_due: Decimal
    refers_to: str | None = None
    decided_by: str | None = None
    reason: str | None = None


def issue(database: Database, billing_date: date, now: datetime) -> IssueReport:
    """Issue every draft with bill_at before the end of the billing date (UTC) that the gate lets go.

    Issuing the same date again does nothing more. Raises IssuingStoppedError, BillingDateError and
    DraftsNotCurrentError; then nothing has changed.
    """
    return _repeat_on_conflict(database, billing_date, now, keep=True)


def preview(database: Database, billing_date: date, now: datetime) -> IssueReport:
    """What issue would do, with the numbers it would give; nothing is kept. The switch does not matter.

    Raises BillingDateError and DraftsNotCurrentError.
    """
    return _repeat_on_conflict(database, billing_date, now, keep=False)


def issue_within(connection: psycopg.Connection, billing_date: date, now: datetime) -> IssueReport:
    """What issue does, in a transaction of the caller's, who answers for lock, snapshot and commit.

    The switch does not matter. Raises BillingDateError and DraftsNotCurrentError.
    """
    due_end = datetime.combine(billing_date, time(), UTC) + timedelta(days=1)
    if now < due_end:
        raise BillingDateError(
            f"Billing date {billing_date} ends at {due_end:%Y-%m-%dT%H:%M}Z; it is "
            f"{now.astimezone(UTC):%Y-%m-%dT%H:%M}Z. Issue it then, or an earlier date now."
        )
    connection.execute("drop table if exists pg_temp.due_drafts")
    connection.execute(statement(PACKAGE, "collect_due_drafts"), {"due_end": due_end})
    connection.execute("analyze due_drafts")
    (state,) = rows(connection, PACKAGE, "draft_currency")
    if state.last_billing_date is not None and billing_date < state.last_billing_date:
        raise BillingDateError(
            f"Documents were issued for {state.last_billing_date}; {billing_date} precedes it. "
            "Whatever was due then is due still: issue the newest date that has ended."
        )
    problem = _why_not_current(state)
    if problem is not None:
        if state.last_billing_date == billing_date and not state.has_due_drafts:
            return IssueReport(billing_date, [], [], drafts_current=False)
        raise DraftsNotCurrentError(
            f"The drafts cannot be issued: {problem}. Build them again (`metering run --hour` with "
            "the newest landing hour, or materialize rating and invoices/draft_invoices), then issue."
        )
    held = _hold_back(connection, find_holds(connection, billing_date, now), now)
    documents = _compose(connection, billing_date, state.catalog_version, held, now)
    _freeze(connection, documents)
    issued = [
        IssuedInvoice(
            each.invoice_number,
            each.tenant_id,
            each.subscription_id,
            each.document_kind,
            each.total,
            each.currency,
        )
        for each in documents
    ]
    return IssueReport(billing_date, issued, held, drafts_current=True)


def hold(database: Database, draft_id: str, by: str, why: str, now: datetime) -> None:
    """Hold a draft, and whatever becomes of it: every draft of its subscription and currency, until
    it is released. Raises UnknownHoldError, ValueError.
    """
    _require(by=by, why=why)
    parameters = {"draft_id": draft_id, "detail": f"{by}: {why}", "now": now}
    with database.locked() as connection:
        if connection.execute(statement(PACKAGE, "hold_by_hand"), parameters).fetchone() is None:
            raise UnknownHoldError(
                f"There is no draft {draft_id!r}. See invoices.draft_invoices for those there are."
            )


def release(
    database: Database,
    draft_id: str,
    reason: str | None = None,
    *,
    by: str,
    why: str,
    now: datetime,
) -> list[str]:
    """Let a held draft go in spite of a reason (None: of all it is held for); the reasons released.

    Takes effect in the next run of issuing, holds good for what the hold says now and for its total
    (one by hand has simply gone), and is kept for good in invoices.hold_releases. Raises UnknownHoldError when the draft is not held so,
    ValueError for an empty text.
    """
    _require(by=by, why=why)
    parameters = {"draft_id": draft_id, "reason": reason, "by": by, "why": why, "now": now}
    with database.locked() as connection:
        released = [row.reason for row in rows(connection, PACKAGE, "release_hold", parameters)]
    if not released:
        raise UnknownHoldError(
            f"Draft {draft_id!r} is not held{f' for {reason!r}' if reason else ''}. "
            "See invoices.held_invoices for the standing holds."
        )
    return sorted(released)


def stop_issuing(database: Database, by: str, why: str, now: datetime) -> None:
    """Switch all issuing off. Raises ValueError for an empty text."""
    _switch(database, stopped=True, by=by, why=why, now=now)


def resume_issuing(database: Database, by: str, why: str, now: datetime) -> None:
    """Switch issuing on again. Raises ValueError for an empty text."""
    _switch(database, stopped=False, by=by, why=why, now=now)


def _repeat_on_conflict(
    database: Database, billing_date: date, now: datetime, keep: bool
) -> IssueReport:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _issue_once(database, billing_date, now, keep)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _issue_once(database: Database, billing_date: date, now: datetime, keep: bool) -> IssueReport:
    with database.locked(IsolationLevel.REPEATABLE_READ) as connection:
        if keep:
            _require_switched_on(connection)
        report = issue_within(connection, billing_date, now)
        if not keep:
            raise psycopg.Rollback
    return report


def _why_not_current(state: Any) -> str | None:
    if state.rating_owes:
        return "usage has changed that is not rated yet"
    if state.catalog_version is None or state.catalog_version != state.newest_catalog_version:
        return (
            f"they are built from version {state.catalog_version} of the catalog, "
            f"the newest is {state.newest_catalog_version}"
        )
    if state.stale:
        return "what they are built from has changed since (usage, the catalog or issued documents)"
    return None


def _hold_back(
    connection: psycopg.Connection, holds: Sequence[Hold], now: datetime
) -> list[HeldInvoice]:
    """Write the holds of this run; those that stand, earlier ones by hand included."""
    parameters = {
        "draft_ids": [each.draft_id for each in holds],
        "reasons": [each.reason for each in holds],
        "details": [each.detail for each in holds],
        "now": now,
    }
    for name in ("drop_old_holds", "follow_drafts", "keep_holds"):
        connection.execute(statement(PACKAGE, name), parameters)
    with connection.cursor(row_factory=class_row(HeldInvoice)) as cursor:
        return cursor.execute(statement(PACKAGE, "standing_holds")).fetchall()


def _compose(
    connection: psycopg.Connection,
    billing_date: date,
    catalog_version: int,
    held: Sequence[HeldInvoice],
    now: datetime,
) -> list[_Document]:
    """Number and chain what goes, series by series, and move the series' heads."""
    with connection.cursor(row_factory=dict_row) as cursor:
        drafts = cursor.execute(
            statement(PACKAGE, "documents_to_issue"), {"held": [each.draft_id for each in held]}
        ).fetchall()
        names = {"legal_entities": sorted({draft["legal_entity"] for draft in drafts})}
        cursor.execute(statement(PACKAGE, "make_series"), names)
        heads = {
            head["legal_entity"]: head
            for head in cursor.execute(statement(PACKAGE, "lock_series"), names)
        }
        lines = _lines_by_draft(cursor, [draft["draft_id"] for draft in drafts])
        documents = []
        for draft in drafts:
            head = heads[draft["legal_entity"]]
            head["last_number"] += 1
            draft |= {
                "billing_date": billing_date,
                "catalog_version": catalog_version,
                "issued_at": now.astimezone(UTC),
                "series": head["series"],
                "series_number": head["last_number"],
                "invoice_number": f"{head['series']}-{head['last_number']:06d}",
                "document_kind": "credit_note" if draft["total"] < 0 else "invoice",
                "previous_sha256": head["last_sha256"],
                "coupon_amount": Decimal(0),
                "tax_amount": Decimal(0),
                "credit_amount": Decimal(0),
                "amount_due": draft["total"],
                "refers_to": None,
                "decided_by": None,
                "reason": None,
            }
            content = _content(draft, lines[draft["draft_id"]])
            head["last_sha256"] = hashlib.sha256(content.encode()).hexdigest()
            documents.append(
                _Document(**draft, content=content, content_sha256=head["last_sha256"])
            )
        cursor.executemany(statement(PACKAGE, "move_series"), list(heads.values()))
    return documents


def _lines_by_draft(
    cursor: psycopg.Cursor[dict[str, Any]], draft_ids: Sequence[str]
) -> defaultdict[str, list[dict[str, Any]]]:
    lines: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    cursor.execute(statement(PACKAGE, "lines_to_issue"), {"draft_ids": draft_ids})
    for line in cursor:
        lines[line.pop("draft_id")].append(line)
    return lines


def _content(document: dict[str, Any], lines: Sequence[dict[str, Any]]) -> str:
    """The canonical text of a document: JSON, keys sorted, decimals as strings, instants in UTC.

    It holds the hash of the document before it, so that the hashes are a chain.
    """
    known = {key: value for key, value in document.items() if key != "draft_id"}
    return json.dumps(
        {**known, "lines": list(lines)},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
        default=_canonical,
    )


def _canonical(value: object) -> str:
    match value:
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        case date():
            return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical text")


def _freeze(connection: psycopg.Connection, documents: Sequence[_Document]) -> None:
    if not documents:
        return
    columns = list(vars(documents[0]))
    copy = psycopg.sql.SQL("copy invoices.issued_invoices ({}) from stdin").format(
        psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
    )
    numbers = {
        "draft_ids": [each.draft_id for each in documents],
        "invoice_numbers": [each.invoice_number for each in documents],
    }
    with connection.cursor() as cursor:
        with cursor.copy(copy) as stream:
            for document in documents:
                stream.write_row([getattr(document, column) for column in columns])
        for name in ("freeze_lines", "freeze_usage", "drop_issued_drafts", "make_drafts_stale"):
            cursor.execute(statement(PACKAGE, name), numbers)


def _require_switched_on(connection: psycopg.Connection) -> None:
    (switch,) = rows(connection, PACKAGE, "switch_state")
    if switch.stopped:
        raise IssuingStoppedError(
            f"Issuing was stopped by {switch.changed_by} at "
            f"{switch.changed_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}: {switch.reason}. "
            "Resume it first; a preview is possible all the same."
        )


def _switch(database: Database, stopped: bool, by: str, why: str, now: datetime) -> None:
    _require(by=by, why=why)
    with database.locked() as connection:
        parameters = {"stopped": stopped, "by": by, "why": why, "now": now}
        connection.execute(statement(PACKAGE, "set_switch"), parameters)


def _require(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise ValueError(f"{name} must not be empty: it is kept for good")
