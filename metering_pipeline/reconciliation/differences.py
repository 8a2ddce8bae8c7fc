"""From a red law to the rows: the relation that shows its differences, the first of them, and what mends them.

For the checks and for ``metering status``. What a row says of quantity and properties is its customer's, and not
shown; the relation has it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from metering_pipeline.reconciliation.laws import LawResult
from metering_pipeline.reconciliation.statements import statement
from metering_pipeline.settings import HOUR

PACKAGE = "metering_pipeline.reconciliation"
SCHEMA: LiteralString = "reconciliation"
SHOWN = 5
"""Rows shown of a relation."""


@dataclass(frozen=True)
class Relation:
    """A view of the differences between two stages.

    The window column is an instant or a date; the columns shown lead to the row. Mends: what to do, with the first
    and the last hour of the window in it.
    """

    name: LiteralString
    window: LiteralString
    shown: tuple[LiteralString, ...]
    mends: str
    of_tenants: bool = True
    has_debts: bool = False


FILES = Relation(
    "files_to_landing",
    "landed_hour",
    ("file_key", "accepted_count", "accepted_found", "rejected_count", "rejected_found"),
    "metering rebuild --stage landing --from {first} --to {last} reads the files again and names the lines; "
    "--repair puts back what they say",
    of_tenants=False,
)
COPIES = Relation(
    "copies_to_ledger",
    "landed_hour",
    ("file_key", "line_number", "event_type", "occurred_at", "correlation_id", "posted_as", "differs_in"),
    "metering rebuild --stage ledger --from {first} --to {last} --repair puts back what landing says "
    "(if landing itself was changed: --stage landing first)",
)  # fmt: skip
CONTRIBUTIONS = Relation(
    "ledger_to_rollups",
    "landed_hour",
    ("metric", "hour", "dimensions", "ledger_count", "contributed_count", "differs_in"),
    "metering rebuild --stage rollups --from {first} --to {last} (after the ledger, if that differs too)",
    has_debts=True,
)
HOURLY = Relation(
    "contributions_to_hourly",
    "hour",
    ("metric", "hour", "dimensions", "contributed_count", "hourly_count", "differs_in"),
    "metering rebuild --stage rollups --from {first} --to {last}; a bucket to which nothing contributed: insert it "
    "into rollups.touched_buckets, the next run merges it again",
    has_debts=True,
)
DAILY = Relation(
    "hourly_to_daily",
    "day",
    ("metric", "day", "dimensions", "hourly_count", "daily_count", "differs_in"),
    "insert these days into rollups.touched_days (tenant_id, metric, day); the next run sums them again",
    has_debts=True,
)
USAGE = Relation(
    "rollups_to_lines",
    "usage_month",
    ("usage_month", "metric", "hourly_count", "rated_count", "unrated_count"),
    "insert the tenant's days into rating.touched (tenant_id, metric, day); the next run rates them again",
)
SLICES = Relation(
    "lines_to_slices",
    "slice_start",
    ("subscription_id", "charge_id", "component", "slice_start", "differs_in"),
    "insert the line into rating.touched_slices (subscription_id, charge_id, component, slice_start); the next run "
    "rates it again",
    has_debts=True,
)
LINES = Relation(
    "lines_to_documents",
    "slice_start",
    ("subscription_id", "charge_id", "component", "slice_start", "rated_amount", "billed_amount",
     "drafted_amount", "draft_id", "invoice_number"),
    "insert the subscription into invoices.touched_subscriptions; the next run draws its drafts up anew",
    has_debts=True,
)  # fmt: skip
DOCUMENTS = Relation(
    "documents_to_lines",
    "billing_date",
    ("invoice_number", "line_number", "differs_in"),
    "an issued document never changes, so somebody went past the triggers: restore these rows from a backup; its "
    "content and the chain say what they were. metering invoice void bills it anew",
    of_tenants=False,  # a missing document has none
)
RELATIONS = (
    FILES, COPIES, CONTRIBUTIONS, HOURLY, DAILY, USAGE, SLICES, LINES, DOCUMENTS,
)  # fmt: skip
"""In the order in which usage flows."""


@dataclass(frozen=True)
class Differences:
    """The first rows of a relation that differ, as text; the query that shows all of them; what mends them."""

    relation: Relation
    rows: list[dict[str, str]]
    query: str
    remedy: str

    @property
    def first(self) -> str:
        """The first row in a line."""
        return _line(self.rows[0])

    def __str__(self) -> str:
        lines = map(_line, self.rows)
        return "\n".join([*lines, f"all of them: {self.query}", f"to mend: {self.remedy}"])


@dataclass(frozen=True)
class RedWindow:
    """A failing row of a law with what it says itself, and where its rows are."""

    result: LawResult
    facts: list[str]
    differences: list[Differences]

    def __str__(self) -> str:
        tenant = self.result.tenant_id or "tenant unknown"
        return f"{self.result.law} {_window(self.result)} {tenant}"


def explained(connection: psycopg.Connection, result: LawResult) -> RedWindow:
    """Look up the rows behind a failing result. A relation in which nothing differs any more is left out."""
    return RedWindow(result, list(_facts(result)), list(_found(connection, result)))


def red_results(connection: psycopg.Connection, shown: int) -> list[LawResult]:
    """What stands: the first failing rows of each law, by the newest evaluation of each window; a tenant's
    rather than the window's."""
    with connection.cursor(row_factory=class_row(LawResult)) as cursor:
        return cursor.execute(statement(PACKAGE, "red_results"), {"shown": shown}).fetchall()


def differing_rows(
    connection: psycopg.Connection,
    relation: Relation,
    start: datetime,
    end: datetime,
    tenant_id: str | None = None,
    limit: int = SHOWN,
    subscriptions: Sequence[str] | None = None,
) -> Differences:
    """The first rows of a relation in [start, end) that differ and are no debt; of some subscriptions, or of all."""
    of_tenant = relation.of_tenants and tenant_id is not None
    shown = ["state", *(["tenant_id"] if relation.of_tenants else []), *relation.shown]
    query = sql.SQL("select {columns} from {relation} where {conditions}")
    parts = {
        "relation": sql.SQL(f"{SCHEMA}.{relation.name}"),
        "conditions": sql.SQL(" and ").join(
            [
                sql.SQL("{} >= {}").format(sql.SQL(relation.window), _bound(relation, start)),
                sql.SQL("{} < {}").format(sql.SQL(relation.window), _bound(relation, end)),
                *([sql.SQL("tenant_id = {}").format(sql.Literal(tenant_id))] if of_tenant else []),
                *([sql.SQL("not is_pending")] if relation.has_debts else []),
                sql.SQL("state <> 'identical'"),
            ]
        ),
    }
    all_columns = query.format(columns=sql.SQL("*"), **parts).as_string(connection)
    some = query.format(columns=sql.SQL(", ").join(map(sql.SQL, shown)), **parts)
    if subscriptions is not None:
        some += sql.SQL(" and subscription_id = any({})").format(sql.Literal(list(subscriptions)))
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(some + sql.SQL(" limit {}").format(sql.Literal(limit)))
        rows = [{name: _text(value) for name, value in row.items()} for row in cursor]
    last = max(start, end - HOUR)
    remedy = relation.mends.format(first=_hour(start), last=_hour(last))
    return Differences(relation, rows, all_columns, remedy)


def _found(connection: psycopg.Connection, result: LawResult) -> Iterator[Differences]:
    for relation, start, end in _places(result):
        if _is_there(connection, relation):
            found = differing_rows(connection, relation, start, end, result.tenant_id)
            if found.rows:
                yield found


def _is_there(connection: psycopg.Connection, relation: Relation) -> bool:
    """A law may fail in the very first run, before the views are made."""
    name = (f"{SCHEMA}.{relation.name}",)
    return connection.execute("select to_regclass(%s)", name).fetchone() != (None,)


def _places(result: LawResult) -> Iterator[tuple[Relation, datetime, datetime]]:
    """The relations that show what a law's figures name, each with its window."""
    start, end, figures = result.window_start, result.window_end, result.figures
    match result.law:
        case "L1":
            yield from ((relation, start, end) for relation in (FILES, COPIES))
        case "L2":
            yield COPIES, start, end
        case "L3" if end - start == HOUR:
            if {"landing_to_ledger", "copies_without_owner"} & figures.keys():
                yield COPIES, start, end
            if "ledger_to_contributions" in figures:
                yield CONTRIBUTIONS, start, end
            hours = _hours(figures.get("contributions_to_hourly"))
            if hours:
                yield HOURLY, min(hours), max(hours) + HOUR
        case "L3":
            yield from ((relation, start, end) for relation in (HOURLY, DAILY))
        case "L4":
            yield from ((relation, start, end) for relation in (USAGE, SLICES))
        case "L5":
            yield DOCUMENTS, start, end


def _hours(compared: Mapping[str, Any] | None) -> list[datetime]:
    samples = compared["samples"] if compared else []
    return [datetime.fromisoformat(each["hour"]) for each in samples]


def _facts(result: LawResult) -> Iterator[str]:
    """What a result's figures say in so many words: the faults of lines and documents."""
    if result.law == "L4" and result.tenant_id is not None:
        for line in result.figures["lines"]:
            name = " ".join(line[key] for key in ("subscription_id", "charge_id", "component"))
            yield f"{name} from {line['slice_start']}: {', '.join(line['faults'])}"
    for sample in result.figures.get("unread_events", {}).get("samples", []):
        metric = sample.get("metric")
        yield (
            f"{sample['event_type']} {metric or 'without a metric'} of {sample['hour']}: the ledger has "
            f"{sample['ledger_count']} that cannot be read, "
            f"rollups.{'unreadable_values' if metric else 'unmetered_events'} {sample['noted_count']}; to mend: "
            f"metering rebuild --stage rollups --from {_hour(result.window_start)} --to {_hour(result.window_start)}"
        )
    if result.law == "L5":
        for sample in result.figures.get("samples", []):
            yield f"{sample['document']}: {', '.join(sample['faults'])}"
        for series in result.figures.get("broken_series", []):
            yield f"series {series} has a gap, or lost documents that L5 has seen"


def _window(result: LawResult) -> str:
    start = result.window_start.astimezone(UTC)
    length = result.window_end - result.window_start
    if length == HOUR:
        return f"landing hour {_hour(start)}"
    return f"{start:%Y-%m-%d}" if length == timedelta(days=1) else f"{start:%Y-%m}"


def _hour(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H}"


def _bound(relation: Relation, instant: datetime) -> sql.Literal:
    utc = instant.astimezone(UTC)
    if relation.window in ("day", "usage_month", "billing_date"):
        return sql.Literal(utc.date().isoformat())
    return sql.Literal(utc.strftime("%Y-%m-%d %H:%MZ"))


def _line(row: Mapping[str, str]) -> str:
    pairs = [f"{name.replace('_', ' ')} {value}" for name, value in row.items() if value]
    return ", ".join([row["state"], *pairs[1:]])


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case list():
            return ", ".join(map(str, value))
        case dict():
            return json.dumps(value)
    return str(value)
