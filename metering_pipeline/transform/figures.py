"""What a run did, in figures that the Dagster UI shows beside the asset."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database


def ledger_figures(database: Database, window: Window, started: datetime) -> Mapping[str, Any]:
    """Copies posted by class, and how fast; started is when the posting began."""
    with database.connect() as connection:
        row = connection.execute(
            """
            with figures as (
                select
                    (select count(*) from ledger.usage_events
                     where landed_hour >= %(start)s and landed_hour < %(end)s) as owned,
                    (select count(*) from ledger.duplicates
                     where landed_hour >= %(start)s and landed_hour < %(end)s) as duplicates,
                    (select count(*) from ledger.conflicts
                     where landed_hour >= %(start)s and landed_hour < %(end)s) as conflicts,
                    (select count(*) from ledger.voids
                     where landed_hour >= %(start)s and landed_hour < %(end)s) as voids,
                    (select count(*) from ledger.pending) as pending
            )
            select owned, duplicates, conflicts, voids, pending from figures
            """,
            {"start": window.start, "end": window.end},
        ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    owned, duplicates, conflicts, voids, pending = row
    seconds = (datetime.now(UTC) - started).total_seconds()
    return {
        "landing hours": str(window),
        "events owned": owned,
        "duplicates": duplicates,
        "conflicts": conflicts,
        "voids": voids,
        "keys pending for the rollups": pending,
        "copies per second": round((owned + duplicates + conflicts + voids) / max(seconds, 0.001)),
    }


def rollup_figures(database: Database, window: Window) -> Mapping[str, Mapping[str, Any]]:
    """Contributions of the window's landing hours, late usage in them, and what is still owed."""
    with database.connect() as connection:
        contributed = connection.execute(
            """
            select
                count(*),
                count(distinct (tenant_id, metric, hour, dimensions)),
                coalesce(sum(event_count) filter (where landed_hour - hour > interval '2 hours'), 0)
            from rollups.usage_contributions
            where landed_hour >= %(start)s and landed_hour < %(end)s
            """,
            {"start": window.start, "end": window.end},
        ).fetchone()
        late = connection.execute("select count(*) from rollups.late_arrivals").fetchone()
    assert contributed is not None  # noqa: S101  (an aggregate always gives a row)
    assert late is not None  # noqa: S101
    return {
        "usage_contributions": {
            "landing hours": str(window),
            "contributions": contributed[0],
            "metered events later than two hours": int(contributed[2]),
        },
        "usage_hourly": {
            "buckets touched": contributed[1],
            "late arrivals waiting for their own run": late[0],
        },
    }
