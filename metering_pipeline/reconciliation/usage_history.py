"""Why a line's usage changed: what had landed by an instant, what each document knew, what is known now, and the
events between two of these."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import psycopg

from metering_pipeline.reconciliation.line_proof import (
    ENDLESS,
    NOTHING,
    Figures,
    UnknownLineError,
    changes_of,
    find_line,
    lines_of,
    owed_hours,
    total,
)
from metering_pipeline.reconciliation.statements import rows

PACKAGE = "metering_pipeline.reconciliation"
NOW = "now"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """An event that counts in one of two states and not, or otherwise, in the other. ``why`` is what became of
    it, ``figures`` what it adds; ``event`` a row of reconciliation.usage_changes with the file that did it."""

    why: str
    figures: Figures
    event: Any


@dataclass(frozen=True)
class History:
    """A line's usage by UTC day in several states of knowledge, by their names, in order; and the changes from
    ``start`` to ``end``, two of these."""

    line: Any
    states: dict[str, dict[date, Figures]]
    start: str
    end: str
    changes: list[Change]
    owed_hours: int
    """Hours that the rollups still owe: where an edge cuts such an hour, now may lag behind the changes."""

    @property
    def difference(self) -> Figures:
        return self.known(self.end) - self.known(self.start)

    @property
    def is_explained(self) -> bool:
        """Whether the events found are the whole difference: count, sum and both digests."""
        return total([each.figures for each in self.changes]) == self.difference

    def known(self, state: str, day: date | None = None) -> Figures:
        """What a state has of a day, or of all days."""
        days = self.states[state]
        return total(list(days.values())) if day is None else days.get(day, NOTHING)

    @property
    def differing_days(self) -> list[date]:
        """The days of which not all states have the same."""
        days = sorted({day for known in self.states.values() for day in known})
        return [day for day in days if len({self.known(each, day) for each in self.states}) > 1]


def history(
    connection: psycopg.Connection, document: str, line_number: int, since: str | datetime
) -> History:
    """How the usage of a line came to be another one since a landing hour, or since a document knew it.

    Of an issued line the end is what it knew when ``since`` is another document; else what is known now.
    Raises UnknownLineError.
    """
    line = find_line(connection, document, line_number)
    if not line.counts_usage:
        raise UnknownLineError(f"{document} line {line_number} counts no usage of its own.")
    billing = _billing_lines(connection, line)
    now = _now(connection, line)
    states: dict[str, dict[date, Figures]] = {}
    if isinstance(since, datetime):
        start, end = f"landed before {since.astimezone(UTC):%Y-%m-%dT%H}", NOW
        changes = _since_hour(connection, line, since)
        states[start] = _taken_back(now, line, changes)
    else:
        earlier = _line_of(connection, billing, since, line)
        start = earlier.document
        end = NOW if since == document or not line.is_issued else document
        changes = _since_clock(connection, line, earlier.issued_at)
        if end != NOW:
            changes = _without(changes, _since_clock(connection, line, line.issued_at))
    states |= {each.document: _known(connection, each) for each in billing}
    states[NOW] = now
    return History(line, states, start, end, changes, owed_hours(connection, line))


def _billing_lines(connection: psycopg.Connection, line: Any) -> list[Any]:
    """The issued lines of the same charge and slice, oldest first."""
    found = rows(
        connection,
        PACKAGE,
        "explain_same_slice",
        {"document": line.document, "line_number": line.line_number},
    )
    return [find_line(connection, each.document, each.line_number) for each in found]


def _line_of(
    connection: psycopg.Connection, billing: Iterable[Any], document: str, line: Any
) -> Any:
    for each in billing:
        if each.document == document:
            return each
    if not lines_of(connection, document):
        find_line(connection, document, 1)
    names = ", ".join(f"{each.document} line {each.line_number}" for each in billing) or "none yet"
    raise UnknownLineError(
        f"{document} bills nothing of the charge and period of {line.document} line {line.line_number}. "
        f"Documents that do: {names}."
    )


def _now(connection: psycopg.Connection, line: Any) -> dict[date, Figures]:
    days: defaultdict[date, Figures] = defaultdict(Figures)
    parameters = {"document": line.document, "line_number": line.line_number}
    for piece in rows(connection, PACKAGE, "explain_hours", parameters):
        days[piece.day] += Figures.of(piece)
    return dict(days)


def _known(connection: psycopg.Connection, line: Any) -> dict[date, Figures]:
    parameters = {"document": line.document, "line_number": line.line_number}
    found = rows(connection, PACKAGE, "explain_days", parameters)
    return {each.day: Figures.of(each, "known") for each in found if each.known_count}


def _since_hour(connection: psycopg.Connection, line: Any, hour: datetime) -> list[Change]:
    return _changes(connection, line, landed_from=hour)


def _since_clock(connection: psycopg.Connection, line: Any, instant: datetime) -> list[Change]:
    return _changes(connection, line, known_after=instant)


def _changes(
    connection: psycopg.Connection,
    line: Any,
    landed_from: datetime = ENDLESS,
    known_after: datetime = ENDLESS,
) -> list[Change]:
    """The changes of all days of the line, day by day."""
    found: list[Change] = []
    days = rows(
        connection,
        PACKAGE,
        "explain_line_days",
        {"document": line.document, "line_number": line.line_number},
    )
    for number, each in enumerate(days, start=1):
        logger.info("%s, day %s of %s", each.day, number, len(days))
        found += [
            Change(row.change, Figures.of_change(row), row)
            for row in changes_of(connection, line, each.day, landed_from, known_after)
        ]
    return found


def _without(changes: list[Change], later: list[Change]) -> list[Change]:
    """The changes that had happened before the later ones did.

    What came and went again is in none of the first and in the later ones: turned round, it is there.
    """
    left = Counter(_key(each) for each in later)
    kept = []
    for each in changes:
        if left[_key(each)]:
            left[_key(each)] -= 1
        else:
            kept.append(each)
    for each in later:
        if left[_key(each)]:
            left[_key(each)] -= 1
            kept.append(Change(f"there, later {each.why}", NOTHING - each.figures, each.event))
    return kept


def _key(change: Change) -> tuple[Any, ...]:
    return (change.event.fingerprint, change.event.payload_hash, change.event.sign)


def _taken_back(
    now: dict[date, Figures], line: Any, changes: Iterable[Change]
) -> dict[date, Figures]:
    days = defaultdict(Figures, now)
    for each in changes:
        days[_day(line, each.event.occurred_at)] -= each.figures
    return dict(days)


def _day(line: Any, instant: datetime) -> date:
    first = line.slice_start.astimezone(UTC)
    if instant < first:
        return date.fromordinal(first.date().toordinal() - 1)
    return instant.astimezone(UTC).date()
