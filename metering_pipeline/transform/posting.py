"""The posting models in a transaction of our own, to be undone or kept, and what they change by it.

dbt commits each model that it runs. So here dbt renders the SQL only, and it is sent on the connection
that may land too: the very statements of an ordinary run, in one transaction where that is wanted.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import adbc_driver_manager
from adbc_driver_postgresql import dbapi

from metering_pipeline.errors import MeteringError, without_rows
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import LANDED_LOCK, PIPELINE_LOCKS, Database
from metering_pipeline.transform.dbt import compiled_models, compiled_text

LEDGER = "metering.ledger.usage_events"
CONTRIBUTIONS = "usage_contributions"
HOURLY = "usage_hourly"
DAILY = "usage_daily"
RATING = ("billing_periods", "period_usage_daily", "rated_lines", "draft_invoices")


class PostingError(MeteringError):
    """PostgreSQL refused a statement, or was not reached any more; nothing of the transaction is left."""


@dataclass(frozen=True)
class RowChanges:
    """Rows of a rollup's table that were looked at: those that stayed, and those that did not."""

    table: str
    identical: int
    new: int
    changed: int
    vanished: int

    @property
    def differing(self) -> int:
        return self.new + self.changed + self.vanished


@dataclass(frozen=True)
class BucketChanges:
    """The hourly buckets of a tenant and metric that change, and what they hold: events and quantity."""

    tenant_id: str
    metric: str
    new: int
    changed: int
    vanished: int
    events_before: int
    events_after: int
    quantity_before: Decimal
    quantity_after: Decimal


@dataclass(frozen=True)
class Changes:
    """What becomes of the rollups: rows by table, hourly buckets by tenant and metric."""

    tables: tuple[RowChanges, ...]
    buckets: tuple[BucketChanges, ...]

    @property
    def differing(self) -> int:
        return sum(table.differing for table in self.tables)


@dataclass(frozen=True)
class LineChange:
    """A line of a draft: what it charges before and after, of what quantity. Absent is 0."""

    charge_id: str
    component: str
    slice_start: datetime
    slice_end: datetime
    quantity_before: Decimal
    quantity_after: Decimal
    amount_before: Decimal
    amount_after: Decimal


@dataclass(frozen=True)
class DraftChange:
    """A draft whose lines change: the sum of its lines before and after (an absent draft is 0).

    Adjusts: the issued documents whose lines it adjusts, by number. Lines: those that change, for the
    first few drafts only.
    """

    draft_id: str
    tenant_id: str
    currency: str
    total_before: Decimal
    total_after: Decimal
    lines_changed: int
    adjusts: str
    lines: tuple[LineChange, ...] = ()


DETAILED_DRAFTS = 20
"""Drafts whose lines are told one by one: those whose total changes most."""


@contextmanager
def posting_errors() -> Iterator[None]:
    """PostgreSQL's errors as one of our own."""
    try:
        yield
    except adbc_driver_manager.Error as error:
        raise PostingError(without_rows(str(error))) from None


class Posting:
    """Posting models on a connection, within its transaction; the caller commits, or leaves it to be undone."""

    def __init__(self, database: Database, connection: dbapi.Connection, window: Window) -> None:
        self._database = database
        self._cursor = connection.cursor()
        self._script = connection.cursor()
        self._window = window
        self._remember = ""

    def lock(self) -> None:
        """Wait for the pipeline's locks, after that of what has landed; all are held to the transaction's end."""
        self.rows("select pg_advisory_xact_lock_shared($1::bigint)", LANDED_LOCK)
        for lock in PIPELINE_LOCKS:
            self.rows("select pg_advisory_xact_lock($1::bigint)", lock)

    def send(self, script: str) -> None:
        """Send statements whose rows nobody wants. The driver's own executescript would commit before them."""
        statement = self._script.adbc_statement
        statement.set_sql_query(script)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="posting") as sender:
            sent = sender.submit(statement.execute_update)
            try:
                # looked after again and again: a signal that another thread takes does not wake this one
                while wait([sent], timeout=0.1).not_done:
                    pass
            except KeyboardInterrupt:
                # again and again: PostgreSQL does not promise that a request to cancel has an effect
                while wait([sent], timeout=0.1).not_done:
                    statement.cancel()
                raise
            sent.result()

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        self._cursor.execute(query, parameters=list(parameters) or None)
        return self._cursor.fetchall() if self._cursor.description else []

    def call(self, macro: str, window: Window | None = None) -> None:
        """Send what a macro of the dbt project says for a window."""
        self.send(self._text(macro, window))

    def ask(self, macro: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of the query that a macro of the dbt project says."""
        return self.rows(self._text(macro), *parameters)

    def post(self, models: Sequence[str], window: Window) -> None:
        """Run models in order, as the materialization does; what they change is remembered once watched."""
        for script in compiled_models(self._database, models, window):
            if self._remember:
                self.send(self._remember)
            self.send("set local work_mem = '192MB'")
            self.send(script)
            self.send(_AFTER_MODEL)

    def watch(self) -> None:
        """Remember from now on what the rows of the rollups were before the models changed them."""
        self.call("watch_rows")
        self._remember = self._text("remember_rows")

    def changes(self) -> Changes:
        """How the rollups' rows differ from what they were before."""
        tables = self.ask("row_changes")
        buckets = self.ask("bucket_changes")
        return Changes(
            tuple(RowChanges(*table) for table in tables),
            tuple(
                BucketChanges(
                    tenant_id, metric, new, changed, vanished, *events, *map(Decimal, quantities)
                )
                for tenant_id, metric, _, new, changed, vanished, *events_and_quantities in buckets
                for events, quantities in [(events_and_quantities[:2], events_and_quantities[2:])]
            ),
        )

    def rate(self) -> None:
        """Rate what has changed and draft it. What the drafts were before is remembered for draft_changes."""
        self.call("remember_money")
        self.post(RATING, self._window)

    def draft_changes(self) -> tuple[DraftChange, ...]:
        """The drafts that the rating changed, the largest change first."""
        drafts = self.ask("draft_changes")
        names = "\n".join(draft_id for draft_id, *_ in drafts[:DETAILED_DRAFTS])
        lines: defaultdict[str, list[LineChange]] = defaultdict(list)
        for draft_id, charge, component, start, end, *figures in self.ask(
            "draft_line_changes", names
        ):
            lines[draft_id].append(
                LineChange(charge, component, start, end, *map(Decimal, figures))
            )
        return tuple(
            DraftChange(
                draft_id, tenant, currency, Decimal(before), Decimal(after), changed, adjusts,
                tuple(lines[draft_id]),
            )
            for draft_id, tenant, currency, before, after, changed, adjusts in drafts
        )  # fmt: skip

    def _text(self, macro: str, window: Window | None = None) -> str:
        return compiled_text(self._database, "{{ " + macro + "() }}", window or self._window)


_AFTER_MODEL = """
-- The next model begins with the same settings, and makes temporary tables of the same names.
reset all;

do $$
declare
    made text;
begin
    for made in
        select relname
        from pg_class
        where relnamespace = pg_my_temp_schema() and relkind = 'r' and relname !~ '^(watched|former)_'
    loop
        execute format('drop table pg_temp.%I', made);
    end loop;
end
$$
"""
