"""The benchmarks run from end to end; how fast anything is, is not for a test to say."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.baselines import window_rebuild
from benchmarks.measure import Reading
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.postgres import Database
from metering_pipeline.settings import PROJECT_ROOT

STEPS = [
    "landing, ndjson",
    "landing, ndjson.gz",
    "landing, parquet",
    "landing, csv",
    "floor: parse, COPY, hash, write",
    "ledger",
    "file to ledger",
    "contributions and hourly",
    "file to rollup",
    "daily",
    "ledger, the same hour again",
    "100 late events: contributions and hourly",
    "100 late events: file to rollup",
    "rebuild of the lookback window",
    "single table, file to ledger",
]
READINGS = [
    ("tenant-month by day", "usage_daily"),
    ("tenant-month by day", "usage_realtime"),
    ("tenant-month by day", "ledger, a scan"),
    ("tenant-day by hour", "usage_hourly"),
    ("tenant-day by hour", "usage_realtime"),
    ("tenant-day by hour", "ledger, a scan"),
]


def benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("METERING_")}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def rows(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """The cells of all tables' rows."""
    assert done.returncode == 0, done.stderr
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in done.stdout.splitlines()
        if line.startswith("│")
    ]


def test_a_small_benchmark_measures_every_step() -> None:
    options = "--events-per-day 24000 --day 1 --single-table-rows 1000 --repeat 1 --late 100"
    measured = rows(benchmark(*options.split()))
    steps = [row[1] for row in measured if len(row) == 7]
    assert [step for step in STEPS if step not in steps] == []
    assert [tuple(row[1:3]) for row in measured if len(row) == 8] == READINGS
    (ratio,) = (row for row in measured if len(row) == 5)
    assert ratio[1:3] == [
        "rebuild of the lookback window",
        "100 late events: contributions and hourly",
    ]


def test_hours_in_a_row_stand_beside_the_single_table() -> None:
    options = "--events-per-day 24000 --day 1 --single-table-rows 1000 --in-a-row 2"
    *steps, ratio = rows(benchmark(*options.split()))
    step = "2 hours in a row, file to ledger"
    assert [(name, events) for _, name, events, *_ in steps] == [
        (step, "2,040"),
        (f"single table, {step}", "2,040"),
    ]
    assert ratio[1:3] == [f"single table, {step}", step]
    assert min(float(wall) for _, _, _, wall, *_ in steps) > 0


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ([], "all 2"),
        (["--runs", "1"], "all 1"),
        (["--runs", "2", "--at-once", "2"], "all 2, 2 at a time"),
    ],
)
def test_hours_run_through_dagster(options: list[str], runs: str) -> None:
    done = benchmark("--events-per-day", "2400", "--through-dagster", "2", *options)
    measured = rows(done)
    assert [row[0] for row in measured][:2] == ["first", "last"]
    assert measured[-1][:2] == [runs, "204"]
    wall, *steps = (float(measured[-1][place]) for place in (2, 5, 6, 7, 8, 9))
    if "--at-once" in options:
        assert sum(steps) > wall
    else:
        assert sum(steps) == pytest.approx(wall, abs=0.05)
    assert min(steps) > 0
    disk = re.findall(r"^(\w+): (\d+) bytes on disk an event", done.stdout, re.MULTILINE)
    assert [stage for stage, size in disk if int(size) > 50] == ["landing", "ledger", "rollups"]


def test_what_does_not_fit_on_the_disk_is_not_begun() -> None:
    done = benchmark("--events-per-day", "10000000000")
    assert done.returncode == 2
    assert "Choose an earlier --day" in done.stderr


@pytest.mark.parametrize(("share", "milliseconds"), [(0.5, 50), (0.99, 99), (1, 100), (0, 1)])
def test_a_quantile_is_the_time_within_which_the_share_came(
    share: float, milliseconds: float
) -> None:
    reading = Reading("size", "question", "source", [*range(100, 0, -1)], 0)
    assert reading.quantile(share) == milliseconds


HOUR = datetime(2026, 1, 1, 5, tzinfo=UTC)

# An hour with two events, and its bucket as the rollup has it.
USAGE = """
insert into catalog.metrics (metric, event_type, aggregation, value_property, dimensions, unit, filter, description)
values ('tokens', 'answer', 'sum', 'tokens', '{model}', 'tokens', '{}', 'Tokens.');
select catalog.ensure_day_partitions('ledger', 'usage_events', array['2026-01-01'::date]);
insert into ledger.usage_events
select
    'acme', 'answer', '2026-01-01T05:00Z'::timestamptz + number * interval '1 minute', 'request',
    md5(number::text)::uuid, md5('a')::uuid, 1, jsonb_build_object('model', 'small', 'tokens', number),
    '2026-01-01T06:00Z', 0, number, now()
from generate_series(1, 2) as number;
insert into rollups.usage_hourly (
    tenant_id, metric, hour, dimensions, event_count, value_sum, value_min, value_max, event_digest, payload_digest
)
values ('acme', 'tokens', '2026-01-01T05:00Z', '{"model": "small"}', 2, 3, 1, 2, 5, 5)
"""


def test_the_window_rebuild_finds_the_hourly_usage_and_changes_nothing(
    database: Database, server: EmbeddedServer
) -> None:
    process = server.process()
    assert process is not None
    with database.connect(autocommit=True) as connection:
        connection.execute(USAGE)
        span = (HOUR, HOUR + timedelta(hours=1))
        events, cost = window_rebuild(connection, process, *span)
        assert events == 2
        assert cost.wall > 0
        digests = connection.execute("select event_digest from rollups.usage_hourly").fetchall()
        assert digests == [(5,)]
        connection.execute("update rollups.usage_hourly set value_max = 3")
        with pytest.raises(RuntimeError, match="differs"):
            window_rebuild(connection, process, *span)
