"""What the pipeline is measured against, on the same files and the same server.

The floor does what nobody can leave out: parse the lines, copy them into an unlogged table without an
index, hash them twice, and write them once more. It checks nothing, and a second run doubles it.

The single table is the usual design of a metering ledger: the SHA-256 of the identifying fields, as text,
computed where the event is read, and a unique key on it over one table that holds everything. It knows no
conflicts, voids or files, and rounds nothing only because nothing here needs rounding.

The window rebuild is what keeps rollups right where nobody knows which buckets a late event touched: all
buckets of the lookback window are deleted, and the ledger's window is aggregated again.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path

import msgspec
import psutil
import psycopg
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from benchmarks.measure import Cost, cost_of


class _Line(msgspec.Struct, gc=False):
    tenant_id: str
    event_type: str
    occurred_at: datetime
    correlation_id: str
    quantity: msgspec.Raw
    properties: msgspec.Raw


_FLOOR_TABLES = """
drop table if exists floor_events, floor_hashed;
create unlogged table floor_events (
    tenant_id text, event_type text, occurred_at timestamptz, correlation_id text, quantity text, properties text
);
create unlogged table floor_hashed (
    tenant_id text, event_type text, occurred_at timestamptz, correlation_id text, quantity numeric,
    properties text, fingerprint bytea, payload_hash bytea
)
"""

_FLOOR_HASH = """
insert into floor_hashed
select
    tenant_id,
    event_type,
    occurred_at,
    correlation_id,
    quantity::numeric,
    properties,
    sha256(convert_to(concat_ws('|', tenant_id, event_type, extract(epoch from occurred_at), correlation_id), 'UTF8')),
    sha256(convert_to(concat_ws('|', quantity, properties), 'UTF8'))
from floor_events
"""


def prepare_floor(connection: psycopg.Connection) -> None:
    connection.execute(_FLOOR_TABLES)


def floor(url: str, path: Path) -> None:
    """Parse, copy, hash, write: one transaction."""
    lines = msgspec.json.Decoder(_Line).decode_lines(path.read_bytes())
    text = pa.string()
    table = pa.table(
        {
            "tenant_id": pa.array([line.tenant_id for line in lines], text),
            "event_type": pa.array([line.event_type for line in lines], text),
            "occurred_at": pa.array(
                [line.occurred_at for line in lines], pa.timestamp("us", "UTC")
            ),
            "correlation_id": pa.array([line.correlation_id for line in lines], text),
            "quantity": pa.array([bytes(line.quantity) for line in lines], pa.binary()).cast(text),
            "properties": pa.array([bytes(line.properties) for line in lines], pa.binary()).cast(
                text
            ),
        }
    )
    with dbapi.connect(url, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("floor_events", table, mode="append")
        cursor.execute(_FLOOR_HASH)
        connection.commit()


_SINGLE_TABLE = """
create table if not exists single_ledger (
    fingerprint text not null, tenant_id text not null, metric text not null, units numeric(18, 6) not null,
    occurred_at timestamptz not null, correlation_id text not null, properties jsonb
)
"""

_SINGLE_HISTORY = """
insert into single_ledger
select
    encode(sha256(int8send(event)), 'hex'),
    'tenant-' || lpad((event %% 1200)::text, 4, '0'),
    'api.request',
    event %% 100000,
    %(start)s::timestamptz + event * %(seconds_apart)s * interval '1 second',
    md5(event::text)::uuid::text,
    '{"model": "small", "region": "eu-west-1", "tokens": 1234}'
from generate_series(%(first)s::bigint, %(last)s::bigint) as event
"""

_SINGLE_INSERT = """
insert into single_ledger
select fingerprint, tenant_id, metric, units, occurred_at, correlation_id, properties
from single_batch
on conflict (fingerprint) do nothing
"""


def prepare_single_table(
    connection: psycopg.Connection, start: datetime, events: int, seconds_apart: float
) -> None:
    """The table with so many events of history, and its unique key."""
    connection.execute("drop table if exists single_ledger")
    connection.execute(_SINGLE_TABLE)
    connection.execute(
        _SINGLE_HISTORY,
        {"first": 0, "last": events - 1, "start": start, "seconds_apart": seconds_apart},
    )
    connection.execute("alter table single_ledger add unique (fingerprint)")


def single_table(connection: psycopg.Connection, path: Path) -> None:
    """Read, hash and insert a file, by COPY into a temporary table: far better than row by row."""
    with connection.transaction():
        connection.execute(
            "create temporary table single_batch (like single_ledger) on commit drop"
        )
        with path.open("rb") as file, connection.cursor() as cursor:
            with cursor.copy("copy single_batch from stdin") as copy:
                for line in file:
                    event = json.loads(line, parse_float=str)
                    identity = "|".join(
                        (
                            event["tenant_id"],
                            event["event_type"],
                            event["occurred_at"],
                            event["correlation_id"],
                        )
                    )
                    copy.write_row(
                        (
                            hashlib.sha256(identity.encode()).hexdigest(),
                            event["tenant_id"],
                            event["event_type"],
                            event["quantity"],
                            event["occurred_at"],
                            event["correlation_id"],
                            json.dumps(event["properties"]),
                        )
                    )
            cursor.execute(_SINGLE_INSERT)


# Count, sum, smallest and largest value: less than what the pipeline keeps of a bucket.
_WINDOW = {
    "create": """
        create table window_hourly (like rollups.usage_hourly including all);
        set local work_mem = '192MB'
    """,
    "copy": """
        insert into window_hourly
        select *
        from rollups.usage_hourly
        where hour >= %(start)s and hour < %(end)s
        order by hour, tenant_id, metric, dimensions
    """,
    "delete": "delete from window_hourly where hour >= %(start)s and hour < %(end)s",
    "aggregate": """
        insert into window_hourly (
            tenant_id, metric, hour, dimensions, event_count, value_sum, value_min, value_max,
            event_digest, payload_digest
        )
        select
            tenant_id,
            metric,
            hour,
            dimensions,
            count(*),
            sum(value),
            min(value),
            max(value),
            0,
            0
        from (
            select
                events.tenant_id,
                metrics.metric,
                date_bin('1 hour', events.occurred_at, '2000-01-01Z') as hour,
                case
                    when metrics.dimensions = '{}' then '{}'::jsonb
                    else jsonb_build_object(metrics.dimensions[1], events.properties ->> metrics.dimensions[1])
                end as dimensions,
                case
                    when metrics.aggregation = 'count' then 1
                    when metrics.value_property is null then events.quantity
                    else (events.properties -> metrics.value_property)::numeric
                end as value
            from ledger.usage_events as events
            inner join catalog.metrics on events.event_type = metrics.event_type
            where events.occurred_at >= %(start)s and events.occurred_at < %(end)s
        ) as measured
        group by tenant_id, metric, hour, dimensions
    """,
    "compare": """
        select
            coalesce(sum(rebuilt.event_count), 0),
            count(*) filter (
                where (rebuilt.event_count, rebuilt.value_sum, rebuilt.value_min, rebuilt.value_max)
                is distinct from (hours.event_count, hours.value_sum, hours.value_min, hours.value_max)
            )
        from window_hourly as rebuilt
        full join (
            select *
            from rollups.usage_hourly
            where hour >= %(start)s and hour < %(end)s
        ) as hours using (tenant_id, hour, metric, dimensions)
    """,
}


def window_rebuild(
    connection: psycopg.Connection, server: psutil.Process, start: datetime, end: datetime
) -> tuple[int, Cost]:
    """Rebuild the hourly usage from start up to end in a copy of it that is rolled back; events and cost.

    Raises RuntimeError if the result is not the hourly usage: then something else was measured.
    """
    window = {"start": start, "end": end}

    def rebuild() -> None:
        connection.execute(_WINDOW["delete"], window)
        connection.execute(_WINDOW["aggregate"], window)

    with connection.transaction(force_rollback=True):
        connection.execute(_WINDOW["create"])
        connection.execute(_WINDOW["copy"], window)
        connection.execute("analyze window_hourly")
        cost = cost_of(server, rebuild)
        row = connection.execute(_WINDOW["compare"], window).fetchone()
    if row is None or row[1]:
        raise RuntimeError(f"the rebuilt window differs from the hourly usage: {row}")
    return int(row[0]), cost
