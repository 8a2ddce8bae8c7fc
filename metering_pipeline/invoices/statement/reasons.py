"""Why an adjustment came about, from what differs between its line and the one that billed before."""

from collections.abc import Iterator
from datetime import UTC
from typing import Any

from metering_pipeline.invoices.statement.reading import Document, last_billing
from metering_pipeline.invoices.statement.writing import measured, number, short_day

COMPARED = ("quantity", "event_count", "event_digest", "payload_digest")


def reasons(document: Document, line: Any) -> list[str]:
    """The sentences that explain an adjustment, at least one."""
    earlier = document.billed_before.get(line.line_number)
    if not earlier:
        return ["Not billed before: it became known after the period had been invoiced."]
    before = last_billing(earlier)
    found = [*_repriced(document, line, before), *_resubscribed(line, before)]
    if any(getattr(line, each) != getattr(before, each) for each in COMPARED):
        found += _used_otherwise(document, line, before)
    return found or ["It follows from the other adjustments of this period."]


def _repriced(document: Document, line: Any, before: Any) -> Iterator[str]:
    if line.charge_version != before.charge_version:
        corrections = document.corrections.get(line.line_number, [])
        why = f" {corrections[0].reason}" if corrections else ""
        yield (
            f"The price was corrected (version {before.charge_version} to {line.charge_version})."
            f"{why}"
        )


def _resubscribed(line: Any, before: Any) -> Iterator[str]:
    if line.subscription_version != before.subscription_version:
        yield "The subscription was changed: its plan or its dates."


def _used_otherwise(document: Document, line: Any, before: Any) -> Iterator[str]:
    change = line.event_count - before.event_count
    events = f"{abs(change):,} {'event' if abs(change) == 1 else 'events'} {'more' if change > 0 else 'fewer'}"
    said = "other events" if change == 0 else events
    yield (
        "Usage of this period became known or was withdrawn after it had been billed: "
        f"{number(before.quantity)} before, {number(line.quantity)} now, {said}."
    )
    days = _changed_days(document, line)
    if days:
        yield f"By day (UTC): {'; '.join(days)}."


def _changed_days(document: Document, line: Any) -> list[str]:
    now = {each.day: each for each in document.usage.get(line.line_number, [])}
    then = {each.day: each for each in document.usage_before.get(line.line_number, [])}
    said = []
    for day in sorted({*now, *then}):
        rows = [then.get(day), now.get(day)]
        if _facts(rows[0]) != _facts(rows[1]):
            values = [number(measured(line, row)[0]) if row else "0" for row in rows]
            unit = measured(line, rows[0] or rows[1])[1]
            until = "" if day >= line.slice_start.astimezone(UTC).date() else "until "
            said.append(f"{until}{short_day(day)} {values[0]} before, {values[1]} {unit} now")
    return said


def _facts(row: Any) -> object:
    return row and (row.event_count, row.value_sum, row.event_digest, row.payload_digest)
