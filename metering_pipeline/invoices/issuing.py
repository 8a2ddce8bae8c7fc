"""Issuing: due drafts become frozen, numbered, chained documents. It happens once and is never undone.

One REPEATABLE READ transaction under the pipeline's locks; its snapshot is taken after they have
been got, so it shows what their last holders have done. A serialization failure repeats it whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import class_row

from metering_pipeline.errors import MeteringError, require_texts
from metering_pipeline.invoices.documents import Document, compose, freeze, number
from metering_pipeline.invoices.gate import Hold, find_holds
from metering_pipeline.invoices.reversals import reversal
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.statements import rows, statement

PACKAGE = "metering_pipeline.invoices"
ATTEMPTS = 5

T = TypeVar("T")


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
    """A document that went. The amounts are in the currency; the total is net, negative for a credit note.

    amount_due = total - coupon_amount + tax_amount - credit_amount.
    """

    number: str
    tenant_id: str
    subscription_id: str
    document_kind: str
    total: Decimal
    coupon_amount: Decimal
    tax_amount: Decimal
    credit_amount: Decimal
    amount_due: Decimal
    currency: str

    @classmethod
    def of(cls, document: Document) -> "IssuedInvoice":
        columns = document.columns | {"number": document.columns["invoice_number"]}
        return cls(**{field.name: columns[field.name] for field in fields(cls)})


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


def issue(database: Database, billing_date: date, now: datetime) -> IssueReport:
    """Issue every draft with bill_at before the end of the billing date (UTC) that the gate lets go.

    Issuing the same date again does nothing more. Raises IssuingStoppedError, BillingDateError and
    DraftsNotCurrentError; then nothing has changed.
    """
    return _repeat_on_conflict(lambda: _issue_once(database, billing_date, now, keep=True))


def preview(database: Database, billing_date: date, now: datetime) -> IssueReport:
    """What issue would do, with the numbers it would give; nothing is kept. The switch does not matter.

    Raises BillingDateError and DraftsNotCurrentError.
    """
    return _repeat_on_conflict(lambda: _issue_once(database, billing_date, now, keep=False))


def issue_within(connection: psycopg.Connection, billing_date: date, now: datetime) -> IssueReport:
    """What issue does, in a transaction of the caller's, who answers for lock, snapshot and commit.

    The switch does not matter. Raises BillingDateError and DraftsNotCurrentError.
    """
    last_billing_date = require_billing_date(connection, billing_date, now)
    connection.execute("drop table if exists pg_temp.due_drafts")
    connection.execute(statement(PACKAGE, "collect_due_drafts"), {"due_end": _end(billing_date)})
    connection.execute("analyze due_drafts")
    (state,) = rows(connection, PACKAGE, "draft_currency")
    problem = _why_not_current(state)
    if problem is not None:
        if last_billing_date == billing_date and not state.has_due_drafts:
            return IssueReport(billing_date, [], [], drafts_current=False)
        raise DraftsNotCurrentError(
            f"The drafts cannot be issued: {problem}. Build them again (`metering run --hour` with "
            "the newest landing hour, or materialize rating and invoices/draft_invoices), then issue."
        )
    held = _hold_back(connection, find_holds(connection, billing_date, now), now)
    held_ids = {each.draft_id for each in held}
    documents = compose(connection, billing_date, state.catalog_version, held_ids, now)
    if documents:
        freeze(connection, documents)
        _pin_and_drop(connection, documents)
    issued = [IssuedInvoice.of(each) for each in documents]
    return IssueReport(billing_date, issued, held, drafts_current=True)


def require_billing_date(
    connection: psycopg.Connection, billing_date: date, now: datetime
) -> date | None:
    """The newest billing date that documents were issued for. Raises BillingDateError if this one cannot be issued."""
    due_end = _end(billing_date)
    if now < due_end:
        raise BillingDateError(
            f"Billing date {billing_date} ends at {due_end:%Y-%m-%dT%H:%M}Z; it is "
            f"{now.astimezone(UTC):%Y-%m-%dT%H:%M}Z. Issue it then, or an earlier date now."
        )
    (newest,) = rows(connection, PACKAGE, "newest_billing_date")
    last: date | None = newest.billing_date
    if last is not None and billing_date < last:
        raise BillingDateError(
            f"Documents were issued for {last}; {billing_date} precedes it. "
            "Whatever was due then is due still: issue the newest date that has ended."
        )
    return last


def reverse(
    database: Database, invoice_number: str, kind: str, by: str, why: str, now: datetime
) -> IssuedInvoice:
    """Void a document for re-issue, or write it off: kind void or write_off; the further document that says so.

    What a void takes back is due again, with the coupons and credits that it had used; what a write-off is
    about stays billed, and nothing is given back. The billing date is the newest one issued. Raises
    UnknownDocumentError, NotReversibleError, IssuingStoppedError, ValueError for an empty text.
    """
    require_texts(by=by, why=why)

    def work() -> IssuedInvoice:
        with database.locked(IsolationLevel.REPEATABLE_READ) as connection:
            _require_switched_on(connection)
            document = reversal(connection, invoice_number, kind, by, why, now)
            number(connection, [document])
            freeze(connection, [document])
            if kind == "void":
                connection.execute(statement(PACKAGE, "make_drafts_stale"))
            return IssuedInvoice.of(document)

    return _repeat_on_conflict(work)


def approve(
    database: Database, draft_id: str | None, by: str, why: str, now: datetime
) -> list[str]:
    """Approve a draft as it is now (None: all that are due by now); those approved, in order.

    Another content, total or digest needs another approval. Raises UnknownHoldError where there is no such
    draft, ValueError for an empty text.
    """
    require_texts(by=by, why=why)
    parameters = {"draft_id": draft_id, "by": by, "why": why, "now": now}
    with database.locked() as connection:
        approved = [row.draft_id for row in rows(connection, PACKAGE, "approve_drafts", parameters)]
    if draft_id is not None and not approved:
        raise UnknownHoldError(
            f"There is no draft {draft_id!r}. See invoices.draft_invoices for those there are."
        )
    return sorted(approved)


def hold(database: Database, draft_id: str, by: str, why: str, now: datetime) -> None:
    """Hold a draft, and whatever becomes of it: every draft of its subscription and currency, until
    it is released. Raises UnknownHoldError, ValueError.
    """
    require_texts(by=by, why=why)
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
    require_texts(by=by, why=why)
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


def _repeat_on_conflict(work: Callable[[], T]) -> T:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
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


def _end(billing_date: date) -> datetime:
    return datetime.combine(billing_date, time(), UTC) + timedelta(days=1)


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


def _pin_and_drop(connection: psycopg.Connection, documents: Sequence[Document]) -> None:
    """Pin the usage of what has become documents, and who waived what of it; their drafts are no drafts any more."""
    numbers = {
        "draft_ids": [each.columns["draft_id"] for each in documents],
        "invoice_numbers": [each.columns["invoice_number"] for each in documents],
    }
    for name in ("keep_waivers", "freeze_usage", "drop_issued_drafts", "make_drafts_stale"):
        connection.execute(statement(PACKAGE, name), numbers)


def why_stopped(connection: psycopg.Connection) -> str | None:
    """Who stopped all issuing, when and why; None while it goes on."""
    (switch,) = rows(connection, PACKAGE, "switch_state")
    if not switch.stopped:
        return None
    return (
        f"Issuing was stopped by {switch.changed_by} at "
        f"{switch.changed_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}: {switch.reason}."
    )


def _require_switched_on(connection: psycopg.Connection) -> None:
    stopped = why_stopped(connection)
    if stopped is not None:
        raise IssuingStoppedError(f"{stopped} Resume it first; a preview is possible all the same.")


def _switch(database: Database, stopped: bool, by: str, why: str, now: datetime) -> None:
    require_texts(by=by, why=why)
    with database.locked() as connection:
        parameters = {"stopped": stopped, "by": by, "why": why, "now": now}
        connection.execute(statement(PACKAGE, "set_switch"), parameters)
