"""The comparison of a provider's usage with ours, as the views of the dbt project make it."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import class_row

from metering_pipeline.reconciliation.providers.usage import written
from metering_pipeline.reconciliation.statements import rows, statement

PACKAGE = "metering_pipeline.reconciliation"

ADVICE = {
    "late": "We count it, they had closed: bill it in their next period, or push these events to them anew.",
    "voided": "They still count what was voided: cancel these events there, or credit them.",
    "duplicate": "They counted copies of an event: give them its fingerprint as the idempotency key, and credit.",
    "conflict": "They counted a copy that says something else: ask the producer which is right (ledger.conflicts).",
    "rejected": "They counted records that are no valid events: see landing.rejected_events.",
    "missed_hours": "They have nothing of hours in which there was usage: send these hours again.",
    "no_customer": "The tenant is no customer there: add it, or map it in provider_customers.csv.",
    "unknown_customer": "Map the customer in provider_customers.csv; without a tenant: not ours on purpose.",
    "unmetered": "Map the meter in provider_meters.csv; without a metric: not ours on purpose.",
    "partial_period": "The period had not ended when they were asked: fetch again after its end.",
    "quantity": "Nothing that we know of accounts for it: compare the events of these instants one by one.",
}
"""What a person can do about a cause."""


@dataclass(frozen=True)
class Cause:
    """Why a period differs, how much of the difference it makes (in the metric's unit), and what was found."""

    cause: str
    amount: Decimal
    detail: str

    def __str__(self) -> str:
        return f"{self.cause.replace('_', ' ')} {self.amount:+,f}: {self.detail}"


@dataclass(frozen=True)
class Period:
    """A tenant's metric in a period, theirs and ours; None: nothing. Tenant or metric are None where theirs
    is none of ours."""

    tenant_id: str | None
    customer: str | None
    metric: str | None
    meter: str | None
    period_start: datetime
    period_end: datetime
    theirs: Decimal | None
    ours: Decimal | None
    difference: Decimal
    difference_percent: Decimal
    state: str
    is_beyond: bool

    @property
    def who(self) -> str:
        return self.tenant_id or f"(customer {self.customer})"

    @property
    def what(self) -> str:
        return self.metric or f"(meter {self.meter})"

    @property
    def when(self) -> str:
        return f"{written(self.period_start)} to {written(self.period_end)}"


@dataclass(frozen=True)
class Comparison:
    """A source's newest word against ours: the periods, the largest differences first, and their causes."""

    source: str
    periods: list[Period]
    causes: dict[Period, list[Cause]]

    @property
    def beyond(self) -> list[Period]:
        """Those that differ beyond the threshold."""
        return [each for each in self.periods if each.is_beyond]

    def advice(self) -> list[str]:
        """What to do about each cause that is there, named."""
        there = {each.cause for causes in self.causes.values() for each in causes}
        return [f"{cause.replace('_', ' ')}: {ADVICE[cause]}" for cause in ADVICE if cause in there]


def compare(connection: psycopg.Connection, source: str) -> Comparison:
    """Compare the newest word of a source with our usage as it is now."""
    parameters = {"source": source}
    with connection.cursor(row_factory=class_row(Period)) as cursor:
        periods = cursor.execute(statement(PACKAGE, "provider_periods"), parameters).fetchall()
    causes: defaultdict[tuple[object, ...], list[Cause]] = defaultdict(list)
    if any(each.difference for each in periods):
        for row in rows(connection, PACKAGE, "provider_causes", parameters):
            key = (row.tenant_id or row.customer, row.metric or row.meter, row.period_start)
            causes[key].append(Cause(row.cause, row.amount, row.detail))
    explained = {
        each: causes[
            (each.tenant_id or each.customer, each.metric or each.meter, each.period_start)
        ]
        for each in periods
    }
    return Comparison(source, periods, {each: found for each, found in explained.items() if found})


def provider_state(connection: psycopg.Connection, source: str) -> Any | None:
    """When a source was asked last, and how many of its periods differ, and whose: columns as provider_state.sql
    names them. None where it was never asked."""
    if not rows(connection, PACKAGE, "provider_last_asked", {"source": source}):
        return None
    (state,) = rows(connection, PACKAGE, "provider_state", {"source": source})
    return state
