"""The gate before issuing: which due drafts must not go, and why.

It evaluates the laws itself, in the issuing transaction, for the windows of what is due; what it
finds is kept as law results like every other evaluation.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import psycopg
from psycopg.rows import class_row

from metering_pipeline.reconciliation.documents import PinnedLine, line_faults
from metering_pipeline.reconciliation.laws import DAY, evaluate, evaluate_day_of_usage
from metering_pipeline.reconciliation.statements import rows, statement
from metering_pipeline.settings import HOUR, hour_of

PACKAGE = "metering_pipeline.invoices"
SAMPLES = 5
DOCUMENT_DAYS = timedelta(days=40)
"""Documents of so many days before the billing date are verified again (L5): a billing period and
its grace. Older ones were, each time, and stay red once they are."""

BY_STATEMENT = {
    "hour_not_sealed": "holds_hour_not_sealed",
    "pending_usage": "holds_pending_usage",
    "unrated_usage": "holds_unrated_usage",
    "not_approved": "holds_not_approved",
}


@dataclass(frozen=True)
class Hold:
    """Why a due draft must not go. The detail is the same as long as the cause is."""

    draft_id: str
    reason: str
    detail: str


def find_holds(connection: psycopg.Connection, billing_date: date, now: datetime) -> list[Hold]:
    """The holds of the due drafts, which the temporary table due_drafts has.

    Reasons: law_failed, never_evaluated, hour_not_sealed, manifest_absent, totals_differ, pending_usage,
    unrated_usage, not_approved, provider_differs.
    """
    holds = _holds(connection, "never_evaluated", "holds_never_evaluated")
    _evaluate_laws(connection, billing_date, now)
    holds += _law_holds(connection, billing_date)
    for reason, name in BY_STATEMENT.items():
        holds += _holds(connection, reason, name)
    sources = rows(connection, PACKAGE, "holds_source_incomplete")
    holds += [Hold(row.draft_id, row.reason, row.detail) for row in sources]
    (provider,) = rows(connection, PACKAGE, "provider_gate")
    if provider.holds:
        holds += _holds(connection, "provider_differs", "holds_provider_differs")
    return holds


def _holds(connection: psycopg.Connection, reason: str, name: str) -> list[Hold]:
    return [Hold(row.draft_id, reason, row.detail) for row in rows(connection, PACKAGE, name)]


def _evaluate_laws(connection: psycopg.Connection, billing_date: date, now: datetime) -> None:
    (bounds,) = rows(connection, PACKAGE, "due_bounds")
    if bounds.due == 0:
        return
    if bounds.first_landing_hour is not None:
        for law in ("L1", "L2", "L3"):
            evaluate(connection, law, bounds.first_landing_hour, hour_of(now) + HOUR, now)
        for day in bounds.red_days:
            if bounds.usage_start - DAY < day < bounds.usage_end:
                evaluate_day_of_usage(connection, day, now)
        evaluate(connection, "L4", bounds.usage_start, bounds.usage_end, now)
    end = datetime.combine(billing_date, time(), UTC) + timedelta(days=1)
    start = end - DOCUMENT_DAYS
    evaluate(connection, "L5", min(start, bounds.red_documents_since or start), end, now)


def _law_holds(connection: psycopg.Connection, billing_date: date) -> list[Hold]:
    failures: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows(connection, PACKAGE, "holds_law_failed"):
        failures[row.draft_id].append(f"{row.law} in {_some(row.windows)}")
    for draft_id, faults in _draft_faults(connection, billing_date).items():
        failures[draft_id].append(f"the draft itself: {_some(faults)}")
    return [
        Hold(draft_id, "law_failed", "; ".join(details)) for draft_id, details in failures.items()
    ]


def _draft_faults(connection: psycopg.Connection, billing_date: date) -> dict[str, list[str]]:
    """What L5 would find in the documents if the drafts went as they are."""
    faults: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows(connection, PACKAGE, "draft_faults"):
        faults[row.draft_id] += row.faults
    with connection.cursor(row_factory=class_row(PinnedLine)) as cursor:
        lines = cursor.execute(
            statement(PACKAGE, "draft_keys"), {"billing_date": billing_date}
        ).fetchall()
    for each in line_faults(connection, lines):
        faults[each.line.document].append(f"line {each.line.line_number}: {each.fault}")
    return faults


def _some(texts: Iterable[str]) -> str:
    """The first few, and how many there are more."""
    known = list(texts)
    more = f" and {len(known) - SAMPLES} more" if len(known) > SAMPLES else ""
    return ", ".join(known[:SAMPLES]) + more
