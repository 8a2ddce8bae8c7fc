"""From an event forwards: what landed under a correlation id, what became of it, and which document bills it."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from metering_pipeline.errors import MeteringError
from metering_pipeline.reconciliation.line_proof import ENDLESS
from metering_pipeline.reconciliation.statements import rows

PACKAGE = "metering_pipeline.reconciliation"
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
DEFAULT_DAYS = 31
"""Days of usage that are searched where no time is given."""

WHY_NOT = {
    "unmetered": "no metric reads events of this type",
    "unknown_tenant": "the tenant is not in the catalog",
    "outside_subscription": "the tenant had no subscription then",
    "in_trial": "it fell into a trial",
    "not_in_plan": "no charge of the tenant's plan is for it",
    "no_price": "its charge has no price for it, and holds the invoice",
    "not_rated_yet": "it is not rated yet; the next run rates it",
    "value_missing": "the value that the metric reads is missing",
    "value_not_a_number": "the value that the metric reads is not a number",
    "value_too_long": "the value that the metric reads is too long",
    "unknown_operation": "its operation is neither add nor remove",
    "dimension_too_long": "a dimension's value is too long",
}
"""Why usage that counts is on no document, by the reason of reconciliation.event_charges."""

logger = logging.getLogger(__name__)


class UnknownTenantError(MeteringError):
    """Nobody of that name is in the catalog or has ever had usage."""


@dataclass(frozen=True)
class Fate:
    """One event (a fingerprint): its copies, rows of event_copies; its charges, rows of event_charges."""

    copies: list[Any]
    charges: list[Any]

    @property
    def first(self) -> Any:
        """The copy that speaks for the event: the one counted, or else the first."""
        return min(self.copies, key=lambda each: each.state not in ("counted", "voided"))

    @property
    def states(self) -> set[str]:
        return {each.state for each in self.copies}

    @property
    def billed(self) -> list[Any]:
        """The charges that an issued document which stands counts the event in, the first of each charge: later
        documents of the same period count it among the usage that they adjust."""
        standing = [each for each in self.charges if each.is_counted and each.issued_at and not each.voided_by]  # fmt: skip
        return _first(standing, lambda each: each.issued_at)

    @property
    def drafted(self) -> list[Any]:
        return [each for each in self.charges if each.is_counted and not each.issued_at]

    @property
    def verdict(self) -> tuple[bool, str]:
        """Whether it is billed by a document that stands, and the answer in one sentence."""
        billed, states = self.billed, self.states
        if "counted" in states and billed:
            return True, f"Billed by {_lines(billed)}."
        if "voided" in states:
            return False, self._gone("it was voided by its producer")
        if "counted" in states:
            return False, self._why_not()
        if "not_posted" in states:
            return False, "Not billed yet: it has landed, and the next run posts it."
        if states <= {"void", "duplicate"} and not self._has_event:
            return False, "Not billed: only a void of it landed, never the event itself."
        return False, self._gone("it was withdrawn, with the version of its file that held it")

    @property
    def remarks(self) -> Iterator[str]:
        """What else is to be known of it."""
        duplicates = sum(each.state == "duplicate" and each.kind == "event" for each in self.copies)
        conflicts = sum(each.state == "conflict" for each in self.copies)
        if duplicates:
            yield f"{duplicates} further {_copies(duplicates)}: duplicates, counted once."
        if conflicts:
            yield (
                f"{conflicts} further {_copies(conflicts)} with another payload: conflicts, kept and never "
                "counted. The first that landed counts."
            )
        suspect = next((each.first_occurred_at for each in self.copies if each.first_occurred_at), None)  # fmt: skip
        if suspect:
            yield (
                "Suspect: it has the correlation id of an event of another time, "
                f"{instant_text(suspect)}, and may be a retry that was stamped anew. Both count until one is voided."
            )
        for each in self.charges:
            if each.voided_by:
                yield f"{each.document} was taken back by {each.voided_by}."

    @property
    def _has_event(self) -> bool:
        return any(each.kind == "event" for each in self.copies)

    def _gone(self, why: str) -> str:
        if not self.billed:
            return f"Not billed: {why}."
        last = max(each.issued_at for each in self.billed)
        later = [
            each
            for each in self.charges
            if each.document and not each.is_counted and (each.issued_at or ENDLESS) > last
        ]
        by = _first(later, lambda each: each.issued_at or ENDLESS)
        taken_back = f"taken back by {_lines(by)}" if by else "no document has taken it back yet"
        return f"Was billed by {_lines(self.billed)}, then {why}: {taken_back}."

    def _why_not(self) -> str:
        if any(each.is_owed for each in self.charges):
            return "Not billed yet: the rollups still owe its hour; the next run brings it in, or that of the late arrivals."
        if self.drafted:
            late = any(each.issued_at and not each.is_counted for each in self.charges)
            came = (
                "it landed after that period was issued, and is in the adjustment of "
                if late
                else "it is in the draft "
            )
            return f"Not billed yet: {came}{_lines(self.drafted)}."
        reasons = [each.reason for each in self.charges if each.reason]
        if reasons:
            said = "; ".join(dict.fromkeys(WHY_NOT.get(each, each) for each in reasons))
            return f"Not billed: it counts as usage, but {said}."
        if self.charges and all(each.document is None for each in self.charges):
            return "Not billed yet: it is in the usage of a charge whose draft is not drawn up yet."
        return "Not billed yet: it landed after its period was issued, and the next run draws up its adjustment."


@dataclass(frozen=True)
class Answer:
    """What was found under a correlation id, and where was looked: UTC spans of usage, half-open."""

    tenant_id: str
    correlation_id: str
    start: datetime
    end: datetime
    fates: list[Fate]
    rejected: list[Any] = field(default_factory=list)
    unsealed_hours: int = 0
    erasures: list[Any] = field(default_factory=list)
    """The one by which the payload was erased, if it was."""


def find_event(
    connection: psycopg.Connection,
    tenant_id: str,
    correlation_id: str,
    event_type: str | None = None,
    occurred_at: datetime | None = None,
    first_day: date | None = None,
    last_day: date | None = None,
) -> Answer:
    """All events of a tenant with a correlation id, and what became of each.

    With its time the event is found by the ledger's key; where nothing happened at that very microsecond, the
    hours around it are read. Without, the days given are read through one by one, the newest first: by default
    the last DEFAULT_DAYS up to the newest landing hour. Raises UnknownTenantError.
    """
    known = _known(connection, tenant_id)
    for start, end in _searches(known.newest_hour, occurred_at, first_day, last_day):
        copies = list(_copies_between(connection, tenant_id, correlation_id, start, end))
        wanted = [each for each in copies if event_type in (None, each.event_type)]
        if wanted:
            break
    fingerprints = dict.fromkeys(each.fingerprint for each in wanted)
    fates = [
        _fate(
            connection,
            tenant_id,
            correlation_id,
            [each for each in wanted if each.fingerprint == fingerprint],
        )
        for fingerprint in fingerprints
    ]
    landed = {"starts_at": start - timedelta(hours=1), "ends_at": end + DEFAULT_DAYS * DAY}
    unsealed = 0
    if not fates:
        (unsealed,) = rows(connection, PACKAGE, "explain_unsealed", landed)[0]
    request = {"tenant_id": tenant_id, "correlation_id": correlation_id}
    rejected = rows(connection, PACKAGE, "explain_rejected", landed | request)
    erasures = rows(connection, PACKAGE, "explain_erasure", request)
    return Answer(tenant_id, correlation_id, start, end, fates, rejected, unsealed, erasures)


def instant_text(instant: datetime) -> str:
    """An instant as it is shown: UTC, with its microseconds where it has any."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _known(connection: psycopg.Connection, tenant_id: str) -> Any:
    (known,) = rows(connection, PACKAGE, "explain_span", {"tenant_id": tenant_id})
    if not known.is_known and not known.has_usage:
        parameters = {"name": tenant_id, "kind": "tenant"}
        near = [each.name for each in rows(connection, PACKAGE, "explain_names_like", parameters)]
        raise UnknownTenantError(
            f"There is no tenant {tenant_id!r} in the catalog, nor any usage of one."
            + (f" The nearest: {', '.join(near)}." if near else "")
        )
    return known


def _searches(
    newest_hour: datetime | None,
    occurred_at: datetime | None,
    first_day: date | None,
    last_day: date | None,
) -> Iterator[tuple[datetime, datetime]]:
    if occurred_at is not None:
        yield occurred_at, occurred_at + INSTANT
        yield occurred_at - timedelta(hours=1), occurred_at + timedelta(hours=1)
        return
    newest = (newest_hour or datetime(1970, 1, 1, tzinfo=UTC)).astimezone(UTC).date()
    last = last_day or max(newest, first_day or newest)
    first = first_day or last - (DEFAULT_DAYS - 1) * DAY
    yield _midnight(first), _midnight(last) + DAY


def _copies_between(
    connection: psycopg.Connection,
    tenant_id: str,
    correlation_id: str,
    start: datetime,
    end: datetime,
) -> Iterator[Any]:
    """The copies that occurred in a span, read UTC day by UTC day, the newest first."""
    days = (end - start) // DAY + 1
    for number in range(days):
        lower = max(start, end - (number + 1) * DAY)
        upper = end - number * DAY
        if lower >= upper:
            break
        if days > 1:
            logger.info("%s, day %s of %s", lower.date(), number + 1, days - 1)
        yield from rows(
            connection,
            PACKAGE,
            "explain_copies",
            {
                "tenant_id": tenant_id,
                "correlation_id": correlation_id,
                "starts_at": lower,
                "ends_at": upper,
            },
        )


def _fate(
    connection: psycopg.Connection, tenant_id: str, correlation_id: str, copies: list[Any]
) -> Fate:
    parameters = {
        "tenant_id": tenant_id,
        "correlation_id": correlation_id,
        "event_type": copies[0].event_type,
        "occurred_at": copies[0].occurred_at,
    }
    return Fate(copies, rows(connection, PACKAGE, "explain_charges", parameters))


def _names(charges: list[Any]) -> list[str]:
    return list(dict.fromkeys(each.document for each in charges))


def _lines(charges: list[Any]) -> str:
    """US-000036 lines 1, 4 and 7; US-000050 line 2."""
    parts = []
    for document in _names(charges):
        numbers = sorted({each.line_number for each in charges if each.document == document})
        *most, last = map(str, numbers)
        shown = f"lines {', '.join(most)} and {last}" if most else f"line {last}"
        parts.append(f"{document} {shown}")
    return "; ".join(parts)


def _first(charges: list[Any], when: Callable[[Any], datetime]) -> list[Any]:
    """Of the rows of each metric and charge the earliest."""
    first: dict[tuple[Any, ...], Any] = {}
    for each in sorted(charges, key=when):
        first.setdefault((each.metric, each.charge_id, each.slice_start), each)
    return list(first.values())


def _copies(count: int) -> str:
    return "copy" if count == 1 else "copies"


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
