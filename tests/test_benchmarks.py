"""The benchmarks run from end to end; how fast anything is, is not for a test to say."""

import os
import subprocess
import sys

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
    "ledger, the same hour again",
    "single table, file to ledger",
]


def test_a_small_benchmark_measures_every_step() -> None:
    options = [
        "--events-per-day",
        "24000",
        "--day",
        "2",
        "--single-table-rows",
        "1000",
        "--repeat",
        "1",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("METERING_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = [line.split("│")[2].strip() for line in done.stdout.splitlines() if "│ 0.0" in line]
    assert [step for step in STEPS if step not in measured] == []


def test_what_does_not_fit_on_the_disk_is_not_begun() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--events-per-day", "10000000000"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Choose an earlier --day" in done.stderr
