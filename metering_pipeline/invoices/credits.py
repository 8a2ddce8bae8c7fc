"""Prepaid credits: granted and taken back by hand; documents use them when they are issued."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
from psycopg.rows import class_row

from metering_pipeline.errors import MeteringError, require_texts
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.statements import statement

PACKAGE = "metering_pipeline.invoices"
COMPONENTS = ("usage", "flat", "minimum", "commitment")
"""What a credit may be restricted to. A discount and a maximum count with the line that they lower."""


class CreditError(MeteringError):
    """The credit cannot be granted or voided; the message says why."""


@dataclass(frozen=True)
class CreditBalance:
    """A credit and what is left of it, in its currency."""

    credit_id: str
    tenant_id: str
    currency: str
    priority: int
    expires_on: date | None
    components: list[str] | None
    granted_at: datetime
    granted: Decimal
    applied: Decimal
    voided: Decimal
    expired: Decimal
    balance: Decimal


def grant(
    database: Database,
    tenant_id: str,
    amount: Decimal,
    currency: str,
    *,
    by: str,
    why: str,
    now: datetime,
    priority: int = 50,
    expires_on: date | None = None,
    components: tuple[str, ...] = (),
) -> str:
    """Grant a credit; its id. It pays from the next document on, before expires_on, for the components
    (none: for all). Raises CreditError, ValueError for an empty text.
    """
    require_texts(by=by, why=why)
    if not amount.is_finite() or amount <= 0:
        raise CreditError(f"A credit of {amount} {currency} is none: give a positive amount.")
    if expires_on is not None and expires_on <= now.astimezone(UTC).date():
        raise CreditError(f"{expires_on} has come: the credit would never pay.")
    unknown = sorted(set(components) - set(COMPONENTS))
    if unknown:
        raise CreditError(f"{', '.join(unknown)}: known components are {', '.join(COMPONENTS)}.")
    parameters = {
        "tenant_id": tenant_id, "amount": amount, "currency": currency, "priority": priority,
        "expires_on": expires_on, "components": list(components) or None, "by": by, "why": why, "now": now,
    }  # fmt: skip
    with database.locked() as connection:
        granted = connection.execute(statement(PACKAGE, "grant_credit"), parameters).fetchone()
    if granted is None:
        raise CreditError(f"The catalog has no tenant {tenant_id!r} or no currency {currency!r}.")
    return str(granted[0])


def void(database: Database, credit_id: str, by: str, why: str, now: datetime) -> Decimal:
    """Take back what is left of a credit; how much that was. Raises CreditError, ValueError."""
    require_texts(by=by, why=why)
    parameters = {"credit_id": credit_id, "by": by, "why": why, "now": now}
    with database.locked() as connection:
        voided = connection.execute(statement(PACKAGE, "void_credit"), parameters).fetchone()
    if voided is None:
        raise CreditError(f"There is no credit {credit_id!r} with anything left.")
    return Decimal(voided[0])


def balances(
    connection: psycopg.Connection, now: datetime, tenant_id: str | None = None
) -> list[CreditBalance]:
    """The credits of a tenant (None: of all) as of an instant, in the order in which they pay."""
    with connection.cursor(row_factory=class_row(CreditBalance)) as cursor:
        return cursor.execute(
            statement(PACKAGE, "credit_balances"), {"now": now, "tenant_id": tenant_id}
        ).fetchall()
