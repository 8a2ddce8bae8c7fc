"""What ``metering explain`` and ``metering evidence`` do and print: the conclusion first, then what it rests on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError
from metering_pipeline.postgres import open_database
from metering_pipeline.progress import step
from metering_pipeline.reconciliation import (
    difference_causes,
    event_fate,
    line_proof,
    usage_history,
)
from metering_pipeline.reconciliation.difference_causes import Span
from metering_pipeline.reconciliation.evidence import write_evidence
from metering_pipeline.reconciliation.laws import one_snapshot
from metering_pipeline.reconciliation.line_proof import Figures, Proof, Step

SHOWN = 40
"""Rows of a table that are shown; a further line counts the rest."""

NOT_MADE = (
    "The views and functions that explain are not in the database yet. They are made by every run: "
    "metering run for any landing hour."
)


def explain_document(console: Console, document: str) -> bool:
    """Print a document's or draft's lines, and whether it is what was frozen."""
    with _connected() as connection:
        head = line_proof.find_document(connection, document)
        lines = line_proof.lines_of(connection, document)
    holds = head.lines_total == head.total and head.content_holds is not False and head.chain_holds is not False  # fmt: skip
    what = head.document_kind.replace("_", " ") + (
        f" of {head.refers_to}" if head.refers_to else ""
    )
    _say(
        console,
        f"{document}: {what} for {head.tenant_id} ({head.tenant_name}), {head.total:,f} {head.currency} net; "
        + (
            "it is what was frozen."
            if holds and head.issued_at
            else "its lines add up."
            if holds
            else "it is NOT what it should be."
        ),
        head.document_kind == "draft" or holds,
    )
    table = _table("line", "charge", "period (UTC)", ">quantity", ">events", ">amount")
    for line in lines:
        table.add_row(
            str(line.line_number),
            escape(line.description),
            _period(line.slice_start, line.slice_end),
            _quantity(line),
            f"{line.event_count:,}",
            f"{line.amount:,f}",
        )
    console.print(table)
    _hint(console, f"metering explain {document} 1", "explains a line")
    return bool(holds)


def explain_line(
    console: Console,
    document: str,
    line_number: int,
    opened: datetime | date | None,
    samples: int,
    every_event: bool,
) -> bool:
    """Print how a line comes about, down to file and line; whether the chain holds."""
    with _connected() as connection:
        proof = line_proof.prove_line(connection, document, line_number, opened, samples)
        if every_event and proof.line.counts_usage:
            with step(console, "All events of the line, from the ledger"):
                proof.steps.append(line_proof.prove_every_event(connection, proof))
    _print_conclusion(console, proof)
    _print_steps(console, proof.steps)
    _print_money(console, proof)
    if proof.line.counts_usage:
        _print_days(console, proof)
        _print_piece(console, proof)
        _hint(
            console,
            f"metering explain {document} {line_number} --hour {_example_hour(proof)}",
            "opens another hour",
        )
        _hint(
            console,
            f"metering explain {document} {line_number} --all-events",
            "reads every event of the line",
        )
    return proof.holds


def explain_change(
    console: Console, document: str, line_number: int, since: str | datetime, samples: int
) -> bool:
    """Print why a line's usage is another one than it was; whether the events found are the whole difference."""
    with _connected() as connection, step(console, "What files changed since"):
        found = usage_history.history(connection, document, line_number, since)
    line, difference = found.line, found.difference
    what = f"{document} line {line_number} ({line.description}, {line.tenant_id})"
    if not found.changes and difference == Figures():
        _say(console, f"{what}: nothing has changed from {found.start} to {found.end}.", True)
    else:
        _say(
            console,
            f"{what}: {difference.count:+,} events, {difference.total:+,f} {_unit(line)} from {found.start} to "
            f"{found.end}. "
            + (
                "The events below are the whole difference, by count, sum and digests."
                if found.is_explained
                else f"{found.owed_hours:,} hours are still owed: ask again after the next run."
                if found.owed_hours
                else "The events below do NOT explain it: something was changed behind the pipeline."
            ),
            found.is_explained,
        )
    states = _table("what was known", ">events", f">sum ({_unit(line)})")
    for state in found.states:
        states.add_row(state, f"{found.known(state).count:,}", f"{found.known(state).total:,f}")
    console.print(states)
    if found.differing_days:
        days = _table(
            "day",
            *(f">{state}" for state in found.states),
            title="Events by day, where they differ",
        )
        for day in found.differing_days[:SHOWN]:
            days.add_row(
                str(day), *(f"{found.known(state, day).count:,}" for state in found.states)
            )
        console.print(days)
        _rest(console, len(found.differing_days))
    _print_changes(console, found.changes, samples, _unit(line))
    return found.is_explained


def explain_event(
    console: Console,
    tenant_id: str,
    correlation_id: str,
    event_type: str | None,
    occurred_at: datetime | None,
    first_day: date | None,
    last_day: date | None,
) -> None:
    """Print what became of a request: its copies, its charges, the documents that bill it."""
    with (
        _connected() as connection,
        step(console, "Events of this tenant with this correlation id"),
    ):
        answer = event_fate.find_event(
            connection, tenant_id, correlation_id, event_type, occurred_at, first_day, last_day
        )
    searched = _searched(answer)
    if not answer.fates:
        _say(
            console,
            f"No: no event of {tenant_id} with correlation id {correlation_id} that occurred in {searched} has landed."
            if not event_type
            else f"No: no {event_type} of {tenant_id} with correlation id {correlation_id} that occurred in {searched} "
            "has landed.",
            False,
        )
    if len(answer.fates) > 1:
        _say(
            console,
            f"{len(answer.fates)} events have this correlation id: another type or time is another event.",
            True,
        )
    for fate in answer.fates:
        _print_fate(console, fate)
    _print_rejected(console, answer)
    for each in answer.erasures:
        console.print(
            f"Its payload was erased on {each.erased_at.astimezone(UTC).date()} by {each.erased_by} ({each.why}): "
            "hashes, quantity and what metrics read are left.",
            markup=False, highlight=False,
        )  # fmt: skip
    if answer.unsealed_hours:
        console.print(
            f"{answer.unsealed_hours:,} landing hours in which it may land are not sealed: files may still come."
        )
    if not answer.fates and occurred_at is None:
        console.print(
            "Another span: --from DAY --to DAY; at once with its time: --at 2026-01-31T12:59:59.25Z"
        )


def explain_window(
    console: Console, span: Span, law: str | None, tenant_id: str | None, samples: int
) -> bool:
    """Print what the laws found in a window and the records, buckets or days that differ; whether all is well."""
    with _connected() as connection:
        causes = difference_causes.find_causes(connection, span, law, tenant_id, samples)
    failing = sorted({each.law for each in causes.results if not each.passed})
    if not causes.results and not causes.differences:
        _say(
            console,
            f"{span}: no law was evaluated for this window, and nothing differs in it.",
            True,
        )
        return True
    count = sum(len(each.rows) for each in causes.differences)
    evaluated = (
        f"{', '.join(failing)} failed when last evaluated"
        if failing
        else "the laws held when last evaluated"
    )
    _say(
        console,
        f"{span}: {evaluated}; "
        + ("the rows that differ are below." if count else "nothing differs by rows now."),
        not failing and not count,
    )
    for each in causes.results:
        if not each.passed and (tenant_id is None or each.tenant_id in (None, tenant_id)):
            who = escape(each.tenant_id or "the window as a whole")
            console.print(
                f"[bold]{each.law}[/bold] {who}, evaluated {event_fate.instant_text(each.evaluated_at)}"
            )
            for name, figure in each.figures.items():
                console.print(f"  {name}: {figure}", markup=False, highlight=False, soft_wrap=True)
    for difference in causes.differences:
        table = _table(*difference.headings, title=difference.title)
        for row in difference.rows:
            table.add_row(*(escape(each) for each in row))
        console.print(table)
        console.print(difference.hint, markup=False, highlight=False, soft_wrap=True)
    return not failing and not count


def write(console: Console, number: str, folder: Path | None) -> bool:
    """Write a document's evidence; whether the events at hand prove all that it froze."""
    folder = folder or settings.load().home / "evidence" / _file_name(number)
    with _connected() as connection, step(console, f"The evidence of {number}"):
        evidence = write_evidence(connection, number, folder)
    rows = ", ".join(f"{count:,} {name}" for name, count in evidence.counts.items())
    console.print(f"{evidence.folder}: {rows}", markup=False, highlight=False, soft_wrap=True)
    if evidence.unproven:
        _say(
            console,
            f"The events at hand are not what was frozen on {len(evidence.unproven)} days: "
            + ", ".join(evidence.unproven[:5]),
            False,
        )
        return False
    console.print(
        "Every day, hour and line adds up from the events in it. README.md in it says how to check that."
    )
    return True


# Parts of a line's explanation


def _print_conclusion(console: Console, proof: Proof) -> None:
    line = proof.line
    draft = "draft " if not line.is_issued else ""
    quantity = f" for {_quantity(line)}" if line.component == "usage" else ""
    broken = [each.name for each in proof.steps if not each.holds]
    _say(
        console,
        f"{draft}{line.document} line {line.line_number}: {line.amount:,f} {line.currency}{quantity}, "
        f"{line.description}, {line.tenant_id}, {_period(line.slice_start, line.slice_end)}. "
        + (
            f"The chain is BROKEN at: {', '.join(broken)}."
            if broken
            else "The chain holds, from the document to the events shown."
            if proof.line.counts_usage
            else "The chain holds."
        ),
        not broken,
    )
    if line.document_kind in ("void", "write_off"):
        console.print(
            f"It is the negation of {proof.document.refers_to} line {line.line_number}: explain that one."
        )
    elif line.component not in ("usage", "flat"):
        console.print(
            "It changes the usage or fee of the same charge and period, and counts no events of its own."
        )


def _print_steps(console: Console, steps: Iterable[Step]) -> None:
    table = _table("", "step", "says")
    for each in steps:
        table.add_row(
            "[green]✓[/green]" if each.holds else "[red]✗[/red]", each.name, escape(each.says)
        )
    console.print(table)


def _print_money(console: Console, proof: Proof) -> None:
    if proof.tiers:
        table = _table(
            "tier", ">quantity", ">unit amount", ">flat amount", ">percent", ">amount, not rounded"
        )
        for each in proof.tiers:
            values = ", ".join(
                f"{name} {value}" for name, value in sorted((each.dimension_values or {}).items())
            )
            table.add_row(
                escape(values) or str(each.tier),
                f"{each.quantity:,f}",
                f"{each.unit_amount:,f}",
                f"{each.flat_amount:,f}",
                f"{each.rate_percent:,f}",
                f"{each.amount:,f}",
            )
        console.print(table)
    for each in proof.billed_before:
        verb = "took back" if each.document_kind == "void" else "billed"
        console.print(
            f"{each.document} line {each.line_number} {verb} {abs(each.amount):,f} of it before."
        )


def _print_days(console: Console, proof: Proof) -> None:
    changed = [">events now", "since it was issued"] if proof.changed_days else []
    table = _table("UTC day", ">events", f">sum ({_unit(proof.line)})", *changed)
    for day in proof.days:
        figures = [str(day.day), f"{day.known.count:,}", f"{day.known.total:,f}"]
        if day.known != day.now:
            figures += [f"{day.now.count:,}", _said((each.change, each) for each in day.changes)]
        table.add_row(*figures)
    console.print(table)
    changes = [
        usage_history.Change(each.change, Figures.of_change(each), each)
        for day in proof.days
        for each in day.changes
    ]
    _print_changes(console, changes, 5, _unit(proof.line))


def _print_piece(console: Console, proof: Proof) -> None:
    piece = proof.piece
    if piece is None:
        return
    of_day = [each for each in proof.pieces if each.day == piece.day]
    table = _table(
        "hour (UTC)",
        "dimensions",
        ">events",
        ">sum",
        ">event digest",
        title=f"The hours of {piece.day}",
    )
    for each in of_day[:SHOWN]:
        mark = " ←" if each == piece else ""
        table.add_row(
            _hour(each) + mark,
            _dimensions(each.dimensions),
            f"{each.event_count:,}",
            f"{each.value_sum:,f}",
            f"{each.event_digest}",
        )
    console.print(table)
    _rest(console, len(of_day))
    title = f"The first {len(proof.events)} of {piece.event_count:,} events of {_hour(piece)}, and where they landed"
    table = _table(
        "occurred at (UTC), correlation id", "file, line", ">counts", "hashes", title=title
    )
    for each in proof.events:
        holds = each.fingerprint_holds and each.payload_holds
        erased = f"\npayload erased {each.erased_at.astimezone(UTC).date()}" if each.erased_at else ""  # fmt: skip
        table.add_row(
            f"{event_fate.instant_text(each.occurred_at)}\n{escape(each.correlation_id)}",
            f"{escape(str(each.file_key))}\nline {each.line_number}",
            f"{each.value:,f}",
            ("[green]✓[/green]" if holds else "[red]✗[/red]") + erased,
        )
    console.print(table)


def _print_changes(
    console: Console, changes: Sequence[usage_history.Change], samples: int, unit: str
) -> None:
    if not changes:
        return
    table = _table(
        "change", "occurred at, correlation id", "by file, line", ">counts",
        title=f"What changed ({unit}), and the record that did it",
    )  # fmt: skip
    for each in changes[:samples]:
        event = each.event
        table.add_row(
            each.why,
            f"{event_fate.instant_text(event.occurred_at)}\n{escape(event.correlation_id)}",
            f"{escape(event.file_key)}\nline {event.line_number}",
            f"{each.figures.total:+,f}",
        )
    console.print(table)
    if len(changes) > samples:
        console.print(
            f"{_said((each.why, each.event) for each in changes)} in all; --samples {len(changes)} shows each."
        )


# Parts of an event's fate


def _print_fate(console: Console, fate: event_fate.Fate) -> None:
    first = fate.first
    _, says = fate.verdict
    _say(console, says, True)
    console.print(
        f"{first.event_type} at {event_fate.instant_text(first.occurred_at)}, fingerprint {first.fingerprint}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    for remark in fate.remarks:
        console.print(remark, markup=False, highlight=False)
    table = _table("record", "landed in", "file, line", ">quantity", "until")
    for each in fate.copies:
        kind = (
            f"{each.state} (void)" if each.kind == "void" and each.state != "void" else each.state
        )
        table.add_row(
            kind,
            f"{each.landed_hour.astimezone(UTC):%Y-%m-%dT%H}",
            f"{escape(each.file_key)}\nline {each.line_number}",
            f"{each.quantity:,f}",
            event_fate.instant_text(each.known_until) if each.known_until else "",
        )
    console.print(table)
    if not fate.charges:
        return
    table = _table("metric", ">counts", "charge", "document, line", "counted")
    for each in fate.charges:
        document = f"{each.document} line {each.line_number}" if each.document else ""
        if each.document and not each.issued_at:
            document += " (draft)"
        table.add_row(
            escape(each.metric or "none"),
            f"{each.value:,f}" if each.value is not None else "",
            escape(each.charge_id or event_fate.WHY_NOT.get(each.reason, each.reason or "")),
            escape(document),
            "" if not each.document else "yes" if each.is_counted else "no",
        )
    console.print(table)


def _print_rejected(console: Console, answer: event_fate.Answer) -> None:
    for each in answer.rejected:
        who = "" if each.names_tenant else " (it does not name the tenant)"
        console.print(
            f"Rejected: a record with this correlation id{who} in {each.file_key} line {each.line_number}: "
            f"{each.reason}: {each.detail}",
            markup=False, highlight=False,
        )  # fmt: skip


def _searched(answer: event_fate.Answer) -> str:
    last = answer.end - event_fate.DAY
    if answer.end - answer.start < event_fate.DAY:
        return f"{event_fate.instant_text(answer.start)} to {event_fate.instant_text(answer.end)}"
    return f"{answer.start.date()} to {last.date()} (UTC days)"


# Small things


@contextmanager
def _connected() -> Iterator[psycopg.Connection]:
    """A connection that reads, and sees one moment; a database without the views that explain says so."""
    with open_database(settings.load(), reading=True).connect(autocommit=True) as connection:
        # compiling would cost more than any of these queries
        connection.execute("set jit = off")
        try:
            with one_snapshot(connection):
                yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
            raise MeteringError(NOT_MADE) from error


def _say(console: Console, text: str, is_well: bool) -> None:
    """The conclusion: plain text, red where something is wrong."""
    console.print(text, style="bold" if is_well else "bold red", markup=False, highlight=False)


def _hint(console: Console, command: str, does: str) -> None:
    console.print(f"[dim]{escape(command)}   {does}[/dim]", highlight=False, soft_wrap=True)


def _table(*headings: str, title: str | None = None) -> Table:
    """A table that fits narrow terminals; a heading that begins with > is a column of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        number = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"), justify="right" if number else "left", overflow="fold"
        )
    return table


def _said(changes: Iterable[tuple[str, Any]]) -> str:
    """3 added, 1 voided: how many events each kind of change concerns."""
    events = {(why, event.fingerprint) for why, event in changes}
    kinds = Counter(why for why, _ in events)
    return ", ".join(f"{count:,} {why}" for why, count in sorted(kinds.items()))


def _rest(console: Console, count: int) -> None:
    if count > SHOWN:
        console.print(f"and {count - SHOWN:,} more")


def _period(start: datetime, end: datetime) -> str:
    first, last = (
        f"{each.astimezone(UTC):%Y-%m-%d}" if each.astimezone(UTC).time().isoformat() == "00:00:00"
        else f"{each.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
        for each in (start, end)
    )  # fmt: skip
    return f"{first} to {last}"


def _hour(piece: Any) -> str:
    start, end = (each.astimezone(UTC) for each in (piece.starts_at, piece.ends_at))
    whole = end - start == settings.HOUR
    return f"{start:%Y-%m-%dT%H}" if whole else f"{start:%Y-%m-%dT%H:%M} to {end:%H:%M}"


def _example_hour(proof: Proof) -> str:
    instant = proof.pieces[-1].starts_at if proof.pieces else proof.line.slice_start
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H}"


def _quantity(line: Any) -> str:
    return f"{line.quantity:,f} {_unit(line)}" if line.component == "usage" else ""


def _unit(line: Any) -> str:
    return line.unit or ""


def _dimensions(dimensions: dict[str, Any]) -> str:
    return escape(", ".join(f"{name} {value}" for name, value in sorted(dimensions.items())))


def _file_name(number: str) -> str:
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in number)
