"""``python -m benchmarks``: how fast the stages are, each beside a baseline on the same rows.

Baselines: plain COPY of ready rows into an unlogged table; the naive ledger, one table with a unique
SHA-256 text and ON CONFLICT DO NOTHING; a scan of the ledger for what a rollup answers. A database of
its own is made in the embedded server and dropped again. Seconds are wall time.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

HOUR = timedelta(hours=1)
LINES = datetime(2026, 1, 1, 22, tzinfo=UTC)
COLUMNS = datetime(2026, 1, 1, 23, tzinfo=UTC)
READS = 200


@click.command()
@click.option("--events", default=400_000, show_default=True, help="Events in the measured hour.")
def main(events: int) -> None:
    """Measure landing, ledger, rollups and reading on one landing hour of sample events."""
    with tempfile.TemporaryDirectory(prefix="metering-bench-") as folder:
        Path(folder).chmod(0o755)
        os.environ["METERING_HOME"] = folder
        os.environ["METERING_CLOCK"] = "2026-01-03T00:00:00Z"
        from metering_pipeline import settings
        from metering_pipeline.postgres import embedded_server

        try:
            measure(Console(), events)
        finally:
            embedded_server(settings.load()).stop()


def measure(console: Console, events: int) -> None:
    """Run every measurement and print the table."""
    import dagster as dg

    from metering_pipeline import settings
    from metering_pipeline.definitions import defs
    from metering_pipeline.execution import QUIET
    from metering_pipeline.generate import generate
    from metering_pipeline.landing.store import land_hours
    from metering_pipeline.postgres import open_database

    configured = settings.load()
    database = open_database(configured)
    with dg.DagsterInstance.ephemeral() as instance:
        defs.resolve_job_def("catalog").execute_in_process(instance=instance, run_config=QUIET)
    root = Path(configured.landing_root)
    generate(root, date(2026, 1, 1), 1, landing_hours_per_day=(21,), events=events, seed=1)
    rows: list[tuple[str, int, float, str, float]] = []

    def land(hour: datetime) -> None:
        land_hours(database.url, configured, hour, hour, configured.now())

    with database.connect(autocommit=True) as connection:
        land(LINES - HOUR)
        write_both_formats(connection, root)
        connection.execute(
            "truncate landing.usage_events, landing.rejected_events, landing.files cascade"
        )
        ndjson = seconds(lambda: land(LINES))
        records = count(connection, "landing.usage_events")
        copied = seconds(lambda: copy_again(connection))
        parquet = seconds(lambda: land(COLUMNS))
        rows.append(("landing, NDJSON", records, ndjson, "plain COPY", copied))
        rows.append(("landing, Parquet", records, parquet, "plain COPY", copied))
        post("draft_invoices")  # dbt's imports and parsing are paid before anything is measured
        ledger = seconds(lambda: post("metering.ledger.usage_events"))
        naive = seconds(lambda: naive_ledger(connection))
        rows.append(("ledger, all of it", records, ledger, "naive ledger", naive))
        rollups = seconds(lambda: post("usage_contributions", "usage_hourly"))
        rows.append(("contributions and hours", records, rollups, "naive ledger", naive))
        post("usage_daily")
        connection.execute("vacuum analyze")
        for name, query, scan in READINGS:
            fast = median(connection, query, READS)
            slow = median(connection, scan, 3)
            rows.append((name, 1, fast, "scan of the ledger", slow))
    report(console, rows)


def write_both_formats(connection: psycopg.Connection, root: Path) -> None:
    """The landed events of the generated hour once as lines and once as Parquet, each in an hour of its own."""
    fetched = connection.execute(
        """
        select tenant_id, event_type, occurred_at, correlation_id, quantity, properties, void
        from landing.usage_events
        order by line_number
        """
    ).fetchall()
    names = (
        "tenant_id",
        "event_type",
        "occurred_at",
        "correlation_id",
        "quantity",
        "properties",
        "void",
    )
    with (folder_of(root, LINES) / "events.ndjson").open("w") as file:
        for row in fetched:
            file.write(line_of(dict(zip(names, row, strict=True))))
    types = [
        pa.string(), pa.string(), pa.timestamp("us", "UTC"), pa.string(), pa.decimal128(38, 18), pa.string(), pa.bool_(),
    ]  # fmt: skip
    arrays = [
        pa.array(values, kind)
        for values, kind in zip(zip(*fetched, strict=True), types, strict=True)
    ]
    table = pa.table(arrays, names=list(names))
    pq.write_table(table, folder_of(root, COLUMNS) / "events.parquet", compression="zstd")


def folder_of(root: Path, hour: datetime) -> Path:
    folder = root / f"landed_hour={hour:%Y-%m-%dT%H}"
    folder.mkdir(exist_ok=True)
    return folder


def line_of(event: dict[str, Any]) -> str:
    text = {
        **event,
        "occurred_at": event["occurred_at"].isoformat(),
        "quantity": str(event["quantity"]),
    }
    return json.dumps({**text, "properties": json.loads(event["properties"])}) + "\n"


def copy_again(connection: psycopg.Connection) -> None:
    """The baseline of landing: the same rows by plain text COPY into an unlogged table."""
    connection.execute("create unlogged table bench_copy (like landing.usage_events)")
    with (
        psycopg.connect(connection.info.dsn, password=connection.info.password) as reader,
        reader.cursor().copy("copy landing.usage_events_20260101 to stdout") as source,
        connection.cursor().copy("copy bench_copy from stdin") as target,
    ):
        for block in source:
            target.write(block)


def naive_ledger(connection: psycopg.Connection) -> None:
    """The baseline of the ledger: one table, unique on the SHA-256 as text; no conflicts, no provenance."""
    connection.execute(
        """
        create table bench_ledger (
            fingerprint text not null unique, tenant_id text, event_type text, occurred_at timestamptz,
            correlation_id text, quantity numeric, properties jsonb
        );
        insert into bench_ledger
        select
            encode(sha256(convert_to(concat_ws(
                '|', tenant_id, event_type, extract(epoch from occurred_at), correlation_id), 'UTF8')), 'hex'),
            tenant_id, event_type, occurred_at, correlation_id, quantity, properties::jsonb
        from landing.usage_events
        where landed_hour = '2026-01-01 22:00+00'
        on conflict do nothing
        """
    )


def post(*models: str) -> None:
    """Run dbt models for the measured hour."""
    from metering_pipeline import settings
    from metering_pipeline.partitions import Window
    from metering_pipeline.postgres import open_database
    from metering_pipeline.transform.dbt import run_dbt

    run_dbt(open_database(settings.load()), "run", models, Window(LINES, LINES + HOUR))


READINGS = [
    (
        "read: a tenant's month by day",
        "select day, sum(value_sum) from rollups.usage_daily where tenant_id = 'acme' and metric = 'requests'"
        " and day between '2026-01-01' and '2026-01-31' group by day",
        "select (occurred_at at time zone 'UTC')::date, count(*) from ledger.usage_events"
        " where tenant_id = 'acme' and event_type = 'api.request' group by 1",
    ),
    (
        "read: a tenant's day by hour",
        "select hour, metric, sum(value_sum) from rollups.usage_hourly where tenant_id = 'acme'"
        " and hour >= '2026-01-01 00:00+00' and hour < '2026-01-02 00:00+00' group by hour, metric",
        "select date_bin('1 hour', occurred_at, '2000-01-01 00:00+00'), count(*) from ledger.usage_events"
        " where tenant_id = 'acme' group by 1",
    ),
]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(connection: psycopg.Connection, query: str, times: int) -> float:
    return statistics.median(
        seconds(lambda: connection.execute(query.encode()).fetchall()) for _ in range(times)
    )


def count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608  (our own names)
    return int(row[0]) if row else 0


def report(console: Console, rows: list[tuple[str, int, float, str, float]]) -> None:
    """Print what was measured, with the machine."""
    table = Table(
        title=f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    for heading in ("what", "seconds", "events/s", "baseline", "its seconds", "ratio"):
        table.add_column(heading, justify="left" if heading in ("what", "baseline") else "right")
    for name, records, taken, baseline, reference in rows:
        rate = f"{records / taken:,.0f}" if records > 1 else ""
        table.add_row(
            name, f"{taken:.4f}", rate, baseline, f"{reference:.4f}", f"{taken / reference:.3f}"
        )
    console.print(table)


if __name__ == "__main__":
    main()
