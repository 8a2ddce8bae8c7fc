"""What lines were charged for, read anew where their quantity alone does not say what it costs.

A matrix prices usage by its dimensions, some percentages look at each event; a line pins count, sum and
digests. Whether the usage that is read now is what the line was rated from, the digests say. Where it is
not, since something has landed or was voided later, what had landed when the line was issued is tried.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import psycopg

from metering_pipeline.reconciliation.independent_rating import Used
from metering_pipeline.reconciliation.statements import rows
from metering_pipeline.settings import END_OF_TIME

PACKAGE = "metering_pipeline.reconciliation"


@dataclass(frozen=True)
class Wanted:
    """A line: [slice_start, slice_end), how its charge reads usage, and the digests that it pinned.

    route: dimension values that all its usage has. has_price: whether usage of such dimensions is in the line.
    """

    tenant_id: str
    metric: str
    slice_start: datetime
    slice_end: datetime
    route: Mapping[str, str]
    by_event: bool
    has_price: Callable[[Mapping[str, str | None]], bool]
    event_digest: Decimal
    payload_digest: Decimal
    issued_at: datetime | None


def used_by(connection: psycopg.Connection, lines: Sequence[Wanted]) -> list[list[Used] | None]:
    """The usage of each line, events by time; None where it can no longer be told."""
    found = _read(connection, dict(enumerate(lines)), [END_OF_TIME] * len(lines))
    earlier = {
        place: line
        for place, line in enumerate(lines)
        if place not in found and line.issued_at is not None
    }
    found |= _read(connection, earlier, [line.issued_at for line in earlier.values()])
    return [found.get(place) for place in range(len(lines))]


def _read(
    connection: psycopg.Connection,
    lines: Mapping[int, Wanted],
    landed_before: Sequence[datetime | None],
) -> dict[int, list[Used]]:
    """By place the usage of those lines whose digests it has."""
    if not lines:
        return {}
    used: dict[int, list[Used]] = {place: [] for place in lines}
    missing = {place: [line.event_digest, line.payload_digest] for place, line in lines.items()}
    for row in rows(connection, PACKAGE, "line_usage", _parameters(lines, landed_before)):
        if lines[row.place].has_price(row.dimensions):
            used[row.place].append(Used(row.dimensions, row.quantity))
            missing[row.place][0] -= row.event_digest
            missing[row.place][1] -= row.payload_digest
    return {place: parts for place, parts in used.items() if not any(missing[place])}


def _parameters(
    lines: Mapping[int, Wanted], landed_before: Sequence[datetime | None]
) -> dict[str, Sequence[object]]:
    each = lines.values()
    return {
        "places": list(lines),
        "tenants": [line.tenant_id for line in each],
        "metrics": [line.metric for line in each],
        "starts": [line.slice_start for line in each],
        "ends": [line.slice_end for line in each],
        "routes": [json.dumps(line.route) for line in each],
        "by_event": [line.by_event for line in each],
        "landed_before": landed_before,
    }
