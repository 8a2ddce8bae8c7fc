"""What a run did, in figures that the Dagster UI shows beside the asset, and as plots over time."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString

import dagster as dg
from psycopg.rows import dict_row

from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.transform.archived import half_archived

Figures = Mapping[str, Any]
"""Metadata by its label."""

ByHour = Mapping[datetime, Figures]
"""The figures of each landing hour: a run over many shows each hour's own."""

COPIES = """
    select
        landed_hour,
        sum(owned)::bigint as "events owned",
        sum(duplicates)::bigint as duplicates,
        sum(conflicts)::bigint as conflicts,
        sum(voids)::bigint as voids
    from (
        select landed_hour, 1 as owned, 0 as duplicates, 0 as conflicts, 0 as voids from ledger.usage_events
        union all
        select landed_hour, 0, 1, 0, 0 from ledger.duplicates
        union all
        select landed_hour, 0, 0, 1, 0 from ledger.conflicts
        union all
        select landed_hour, 0, 0, 0, 1 from ledger.voids
    ) as copies
    where landed_hour >= %(start)s and landed_hour < %(end)s
    group by landed_hour
"""

CONTRIBUTIONS = """
    select
        landed_hour,
        count(*) as contributions,
        sum(event_count)::bigint as "metered events",
        coalesce(sum(event_count) filter (where landed_hour - hour > interval '2 hours'), 0)::bigint
            as "metered events later than two hours"
    from rollups.usage_contributions
    where landed_hour >= %(start)s and landed_hour < %(end)s
    group by landed_hour
"""

CATALOG = """
    select
        catalog_version as version,
        (select count(*) from catalog.tenants) as tenants,
        (select count(*) from catalog.current_subscriptions) as subscriptions,
        (select count(*) from catalog.plans) as plans,
        (select count(*) from catalog.charges) as "versions of charges",
        (select count(*) from catalog.metrics) as metrics
    from catalog.versions
    order by catalog_version desc
    limit 1
"""

DRAFTS = """
    select
        currency,
        count(distinct draft_id) as drafts,
        count(*) as lines,
        sum(amount) as total,
        count(*) filter (where kind = 'adjustment') as adjustments,
        coalesce(sum(amount) filter (where kind = 'adjustment'), 0) as "total of these",
        min(bill_at) as "first is due"
    from invoices.draft_invoice_lines
    group by currency
    order by currency
"""
"""Of drafts only: what counted all rated lines would cost more with every month."""


def ledger_figures(database: Database, window: Window, started: datetime) -> tuple[Figures, ByHour]:
    """Of the run, and of each landing hour: copies posted by class; how fast. Started is when the posting began.

    Not of hours of which events are archived.
    """
    seconds = (datetime.now(UTC) - started).total_seconds()
    archived = half_archived(database)
    hours = {
        hour: figures
        for hour, figures in _by_hour(database, COPIES, window).items()
        if hour.astimezone(UTC).date() not in archived
    }
    copies = sum(sum(figures.values()) for figures in hours.values())
    (pending,) = _rows(database, "select count(*) as keys from ledger.pending")
    return {
        "this run": f"{window}: {copies:,} copies, {copies / max(seconds, 0.001):,.0f} a second",
        "keys pending for the rollups": pending["keys"],
    }, hours


def rollup_figures(database: Database, window: Window) -> tuple[Mapping[str, Figures], ByHour]:
    """Of the run by asset, and of each landing hour: what it contributed, and how much of that was late."""
    (late,) = _rows(database, "select count(*) as keys from rollups.late_arrivals")
    return {
        "usage_contributions": {"this run": str(window)},
        "usage_hourly": {
            "this run": str(window),
            "late arrivals waiting for their own run": late["keys"],
        },
    }, _by_hour(database, CONTRIBUTIONS, window)


def catalog_figures(database: Database) -> Mapping[str, Figures]:
    """What is published, in numbers."""
    return {"catalog_versions": dict(*_rows(database, CATALOG))}


def draft_figures(database: Database) -> Mapping[str, Figures]:
    """What would be issued, by currency; each number as a text, since Dagster would round it."""
    records = [
        dg.TableRecord({name: str(cell) for name, cell in row.items()})
        for row in _rows(database, DRAFTS)
    ]
    shown = dg.MetadataValue.table(records) if records else "none"
    return {"draft_invoices": {"drafts by currency": shown}}


def _by_hour(database: Database, query: LiteralString, window: Window) -> ByHour:
    """By hour of the window; zeros where there is nothing, so that a plot has no gaps."""
    rows = _rows(database, query, {"start": window.start, "end": window.end})
    found = {row.pop("landed_hour"): row for row in rows}
    nothing = dict.fromkeys(next(iter(found.values()), {}), 0)
    return {hour: found.get(hour, nothing) for hour in window.starts()}


def _rows(
    database: Database, query: LiteralString, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    with database.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()
