"""From a line of a document to its tiers, days, hours, events, files: each step compared with the one before it.

What a document was issued with is frozen; what the rollups and the ledger have may have changed since. So a
day that differs is compared by what files brought or took back after the document was issued: explained, or not.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from metering_pipeline.errors import MeteringError
from metering_pipeline.reconciliation.statements import rows
from metering_pipeline.settings import hour_of

PACKAGE = "metering_pipeline.reconciliation"
DAY = timedelta(days=1)
ENDLESS = datetime.max.replace(tzinfo=UTC)
"""An instant after all others: nothing lies beyond it."""

logger = logging.getLogger(__name__)


class UnknownLineError(MeteringError):
    """There is no such document, draft or line; the message names the nearest."""


@dataclass(frozen=True)
class Figures:
    """A set of events: how many, the sum of their values, and the digests of their two hashes."""

    count: Decimal = Decimal(0)
    total: Decimal = Decimal(0)
    event_digest: Decimal = Decimal(0)
    payload_digest: Decimal = Decimal(0)

    @classmethod
    def of(cls, row: Any, prefix: str = "") -> "Figures":
        """Those of a row with the columns of a bucket, or of line_days with a prefix."""
        names = (
            (f"{prefix}_count", f"{prefix}_sum", f"{prefix}_event_digest", f"{prefix}_payload_digest")
            if prefix
            else ("event_count", "value_sum", "event_digest", "payload_digest")
        )  # fmt: skip
        return cls(*(Decimal(getattr(row, name) or 0) for name in names))

    @classmethod
    def of_change(cls, row: Any) -> "Figures":
        """Those of one side of a changed event, a row of usage_changes."""
        terms = (Decimal(digest_term(each)) for each in (row.fingerprint, row.payload_hash))
        return cls(*(row.sign * each for each in (Decimal(1), row.value, *terms)))

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            self.count + other.count,
            self.total + other.total,
            self.event_digest + other.event_digest,
            self.payload_digest + other.payload_digest,
        )

    def __sub__(self, other: "Figures") -> "Figures":
        return self + Figures(
            -other.count, -other.total, -other.event_digest, -other.payload_digest
        )


NOTHING = Figures()


def digest_term(fingerprint: Any) -> int:
    """The low 64 bits of a hash, signed: what a digest adds up."""
    return int.from_bytes(fingerprint.bytes[8:], "big", signed=True)


def total(figures: Sequence[Figures] | Iterator[Figures]) -> Figures:
    return sum(figures, start=NOTHING)


@dataclass(frozen=True)
class Step:
    """A link of the chain: what was compared, and whether it holds."""

    name: str
    holds: bool
    says: str


@dataclass(frozen=True)
class Day:
    """A UTC day of a line: what the line knows, what there is now, and what the changes since say."""

    day: date
    known: Figures
    now: Figures
    changes: list[Any] = field(default_factory=list)

    @property
    def is_explained(self) -> bool:
        return self.known + total([Figures.of_change(each) for each in self.changes]) == self.now


@dataclass
class Proof:
    """All that leads from a line to its events. ``piece`` is the piece of usage that was opened."""

    document: Any
    line: Any
    tiers: list[Any]
    billed_before: list[Any]
    days: list[Day]
    pieces: list[Any]
    piece: Any | None = None
    events: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(step.holds for step in self.steps)

    @property
    def changed_days(self) -> list[Day]:
        return [each for each in self.days if each.known != each.now]


def find_document(connection: psycopg.Connection, document: str) -> Any:
    """An issued document or a draft. Raises UnknownLineError."""
    found = rows(connection, PACKAGE, "explain_document", {"document": document})
    if not found:
        raise UnknownLineError(
            f"There is no document and no draft {document!r}.{_names_like(connection, document)} "
            "metering invoice list has all numbers, metering issue --preview the drafts."
        )
    return found[0]


def lines_of(connection: psycopg.Connection, document: str) -> list[Any]:
    """The lines of a document or draft, in order."""
    return rows(connection, PACKAGE, "explain_document_lines", {"document": document})


def find_line(connection: psycopg.Connection, document: str, line_number: int) -> Any:
    """A line of an issued document or a draft. Raises UnknownLineError."""
    known = lines_of(connection, document) or []
    if not known:
        find_document(connection, document)
    for line in known:
        if line.line_number == line_number:
            return line
    last = f"its lines are 1 to {known[-1].line_number}" if known else "it has no lines"
    raise UnknownLineError(f"{document} has no line {line_number}: {last}.")


def prove_line(
    connection: psycopg.Connection,
    document: str,
    line_number: int,
    opened: datetime | date | None = None,
    samples: int = 5,
) -> Proof:
    """The chain of one line, and one piece of its usage opened: the hour given, the busiest of the day given,
    or the busiest of all. Reads the rollups, and of the ledger that one hour.

    Raises UnknownLineError, also for an hour or a day that the line counts nothing of.
    """
    line = find_line(connection, document, line_number)
    parameters = {"document": document, "line_number": line_number}
    proof = Proof(
        find_document(connection, document),
        line,
        rows(connection, PACKAGE, "explain_tiers", parameters),
        rows(connection, PACKAGE, "explain_billed_before", parameters),
        list(_days(connection, line)),
        rows(connection, PACKAGE, "explain_hours", parameters) if line.counts_usage else [],
    )
    proof.steps += _document_steps(connection, proof)
    proof.steps += _money_steps(proof)
    if not line.counts_usage:
        if opened is not None:
            raise UnknownLineError(f"{document} line {line_number} counts no usage of its own.")
        return proof
    proof.steps += _usage_steps(connection, proof)
    proof.piece = _opened(proof, opened)
    if proof.piece is not None:
        proof.events = _events(connection, line, proof.piece, samples)
        proof.steps += _event_steps(connection, proof)
    return proof


def prove_every_event(connection: psycopg.Connection, proof: Proof) -> Step:
    """Add up all events of the line from the ledger, their hashes computed anew, and compare each hour."""
    line = proof.line
    wanted: dict[tuple[datetime, str], Figures] = {}
    for piece in proof.pieces:
        key = (hour_of(piece.starts_at), str(piece.dimensions))
        wanted[key] = wanted.get(key, NOTHING) + Figures.of(piece)
    days = sorted({piece.starts_at.astimezone(UTC).date() for piece in proof.pieces})
    events = wrong = 0
    differing: list[str] = []
    for number, day in enumerate(days, start=1):
        logger.info("%s, day %s of %s, %s events so far", day, number, len(days), f"{events:,}")
        starts_at, ends_at = _within(line, day)
        for found in rows(
            connection, PACKAGE, "explain_every_event", _span(line, starts_at, ends_at)
        ):
            events += found.event_count
            wrong += found.wrong_hashes
            if wanted.pop((found.hour, str(found.dimensions)), NOTHING) != Figures.of(found):
                differing.append(f"{found.hour.astimezone(UTC):%Y-%m-%dT%H} {found.dimensions}")
    differing += [f"{hour.astimezone(UTC):%Y-%m-%dT%H} {dims}" for hour, dims in wanted]
    says = f"{events:,} events read from the ledger, {wrong:,} with a hash that is not theirs"
    if differing:
        says += f"; {len(differing):,} hours differ, first {differing[0]}"
    return Step("all events", not wrong and not differing, says)


def changes_of(
    connection: psycopg.Connection,
    line: Any,
    day: date,
    landed_from: datetime = ENDLESS,
    known_after: datetime = ENDLESS,
) -> list[Any]:
    """What files have changed in a line's usage of a UTC day since a landing hour, or an instant of the clock:
    rows of reconciliation.usage_changes. The day before a slice stands for all that is carried into it."""
    starts_at, ends_at = counted_span(line, day)
    parameters = _span(line, starts_at, ends_at)
    return rows(
        connection,
        PACKAGE,
        "explain_changes",
        parameters | {"landed_from": landed_from, "known_after": known_after},
    )


def owed_hours(connection: psycopg.Connection, line: Any) -> int:
    """How many hours of a line's usage the rollups still owe."""
    span = {"tenant_id": line.tenant_id, "starts_at": line.counted_from, "ends_at": line.slice_end}
    (owed,) = rows(connection, PACKAGE, "explain_owed", span)
    return int(owed.hours)


def _days(connection: psycopg.Connection, line: Any) -> Iterator[Day]:
    if not line.counts_usage:
        return
    parameters = {"document": line.document, "line_number": line.line_number}
    for row in rows(connection, PACKAGE, "explain_days", parameters):
        known, now = Figures.of(row, "known"), Figures.of(row, "hourly")
        changes = (
            changes_of(connection, line, row.day, known_after=line.issued_at)
            if known != now and line.is_issued
            else []
        )
        yield Day(row.day, known, now, changes)


def _document_steps(connection: psycopg.Connection, proof: Proof) -> Iterator[Step]:
    document, line = proof.document, proof.line
    if line.is_issued:
        yield Step(
            "content",
            document.content_holds,
            f"SHA-256 {document.content_sha256[:16]}… is that of the frozen text"
            if document.content_holds
            else "the frozen text does not have its SHA-256",
        )
        before = document.previous_document
        named = f"names the hash of {before}" if before else "is the first of its series"
        yield Step(
            "chain",
            document.chain_holds,
            f"it {named}"
            if document.chain_holds
            else "it does not name the hash of the document before it",
        )
        parameters = {"document": line.document, "line_number": line.line_number}
        found = rows(connection, PACKAGE, "explain_content", parameters)
        same = [each.holds for each in found] == [True]
        says = "the frozen text says the same" if same else "the frozen text says something else"
        yield Step("line", same, says)
    adds_up = document.lines_total == document.total
    yield Step(
        "document",
        adds_up,
        f"its lines add up to {document.lines_total:,f}, it says {document.total:,f} {document.currency}",
    )


def _money_steps(proof: Proof) -> Iterator[Step]:
    line, digits = proof.line, proof.document.minor_digits
    if line.document_kind in ("void", "write_off"):
        return
    if line.component in ("usage", "flat"):
        exact = sum((each.amount for each in proof.tiers), start=Decimal(0))
        rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
        yield Step(
            "tiers",
            rounded == line.rated_amount,
            f"they add up to {exact:,f}, rounded {rounded:,f}; rated is {line.rated_amount:,f}",
        )
    before = sum((each.amount for each in proof.billed_before), start=Decimal(0))
    yield Step(
        "amount",
        line.rated_amount - before == line.amount,
        f"rated {line.rated_amount:,f} - billed before {before:,f} = {line.amount:,f}",
    )


def _usage_steps(connection: psycopg.Connection, proof: Proof) -> Iterator[Step]:
    line = proof.line
    known = total([each.known for each in proof.days])
    same = (known.count, known.event_digest, known.payload_digest) == (
        line.event_count, line.event_digest, line.payload_digest,
    )  # fmt: skip
    yield Step(
        "days",
        same,
        f"{len(proof.days)} UTC days add up to {known.count:,} events and the digests; "
        f"the line has {line.event_count:,}",
    )
    if line.aggregation in ("count", "sum"):
        quantity = known.count if line.aggregation == "count" else known.total
        yield Step(
            "quantity",
            quantity == line.quantity,
            f"they add up to {quantity:,f} {line.unit}; the line has {line.quantity:,f}",
        )
    yield _hours_step(connection, proof)


def _hours_step(connection: psycopg.Connection, proof: Proof) -> Step:
    line, changed = proof.line, proof.changed_days
    hours = f"{len(proof.pieces):,} hours of usage"
    if not changed:
        return Step("hours", True, f"{hours} add up to each of the days")
    days = f"{len(changed)} of {len(proof.days)} days"
    owed = owed_hours(connection, line)
    if not line.is_issued:
        return Step(
            "hours",
            False,
            f"{days} have changed since the draft was drawn up ({owed:,} hours are still owed): "
            "metering run draws it up anew",
        )
    unexplained = [each for each in changed if not each.is_explained]
    if unexplained:
        return Step(
            "hours",
            False,
            f"{days} differ, and what landed since does not explain {len(unexplained)} of them: "
            + ", ".join(f"{each.day}" for each in unexplained[:5])
            + (f"; {owed:,} hours are still owed, ask again after the next run" if owed else ""),
        )
    net = total([each.now - each.known for each in changed])
    return Step(
        "hours",
        True,
        f"{hours}; {days} have changed since it was issued ({net.count:+,} events), exactly by what landed since",
    )


def _opened(proof: Proof, opened: datetime | date | None) -> Any | None:
    """The piece of usage with most events: of all, of a UTC day, or of an hour."""
    pieces = proof.pieces
    if isinstance(opened, datetime):
        pieces = [each for each in pieces if hour_of(each.starts_at) == opened]
    elif opened is not None:
        pieces = [each for each in pieces if each.starts_at.astimezone(UTC).date() == opened]
    if not pieces and opened is not None:
        line = proof.line
        raise UnknownLineError(
            f"{line.document} line {line.line_number} counts nothing of "
            f"{opened:{'%Y-%m-%dT%H' if isinstance(opened, datetime) else '%Y-%m-%d'}}. Its usage is of "
            f"{line.counted_from.astimezone(UTC):%Y-%m-%dT%H:%MZ} to {line.slice_end.astimezone(UTC):%Y-%m-%dT%H:%MZ}."
        )
    return max(pieces, key=lambda each: each.event_count, default=None)


def _events(connection: psycopg.Connection, line: Any, piece: Any, at_most: int) -> list[Any]:
    parameters = _span(line, piece.starts_at, piece.ends_at) | {
        "dimensions": Jsonb(piece.dimensions),
        "at_most": at_most,
    }
    return rows(connection, PACKAGE, "explain_events", parameters)


def _event_steps(connection: psycopg.Connection, proof: Proof) -> Iterator[Step]:
    piece, line = proof.piece, proof.line
    assert piece is not None  # noqa: S101  (the caller has opened one)
    parameters = _span(line, piece.starts_at, piece.ends_at) | {
        "dimensions": Jsonb(piece.dimensions)
    }
    found = rows(connection, PACKAGE, "explain_ledger", parameters)
    ledger = Figures.of(found[0]) if found else NOTHING
    yield Step(
        "events",
        ledger == Figures.of(piece),
        f"{piece.starts_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}: the ledger has {ledger.count:,} events, the hour "
        f"{piece.event_count:,}; sum and digests {'too' if ledger == Figures.of(piece) else 'DIFFER'}",
    )
    wrong = [each for each in proof.events if not (each.fingerprint_holds and each.payload_holds)]
    unknown = [each for each in proof.events if each.file_key is None]
    says = f"of the {len(proof.events)} shown, computed anew, {len(wrong) or 'none'} differ"
    if unknown:
        says += f"; {len(unknown)} come from a file that landing does not know"
    yield Step("hashes", not wrong and not unknown, says)


def _span(line: Any, starts_at: datetime, ends_at: datetime) -> dict[str, Any]:
    return {
        "tenant_id": line.tenant_id,
        "metric": line.metric,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "dimensions": Jsonb(line.dimension_route),
    }


def _within(line: Any, day: date) -> tuple[datetime, datetime]:
    """The part of a UTC day that the line counts."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return max(midnight, line.counted_from), min(midnight + DAY, line.slice_end)


def counted_span(line: Any, day: date) -> tuple[datetime, datetime]:
    """The span of usage that a line books on a UTC day: what is carried, on the day before the slice."""
    if line.counted_from < line.slice_start and day < line.slice_start.astimezone(UTC).date():
        return line.counted_from, line.slice_start
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return max(midnight, line.slice_start), min(midnight + DAY, line.slice_end)


def _names_like(connection: psycopg.Connection, name: str, kind: str = "document") -> str:
    found = rows(connection, PACKAGE, "explain_names_like", {"name": name, "kind": kind})
    return f" The nearest: {', '.join(each.name for each in found)}." if found else ""
