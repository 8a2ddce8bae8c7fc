"""What no log may hold: payloads and passwords. PostgreSQL's errors quote the rows that they are about."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import adbc_driver_manager
import psycopg
import pytest
from psycopg import sql

from metering_pipeline.errors import without_rows
from metering_pipeline.execution import RunFailed, dagster_instance, run_hours
from metering_pipeline.landing.store import land_hour
from metering_pipeline.postgres import Database
from metering_pipeline.settings import Settings
from tests.conftest import PIPELINE_LOGIN, url_of
from tests.scenarios.conftest import Pipeline
from tests.scenarios.test_command_line import metering

LANDED = datetime(2026, 1, 31, 13, tzinfo=UTC)
HUSH = "hushhush"
"""It stands in the correlation id, the properties and a bad line, and nowhere else."""


def drop(pipeline: Pipeline, name: str = "events.ndjson") -> None:
    event = {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-31T12:59:59.25Z",
        "correlation_id": f"{HUSH}-{name}",
        "properties": {"model": "small", "input_tokens": 900_000, "output_tokens": 4, "note": HUSH},
    }
    pipeline.drop(LANDED, name, [event, {**event, "quantity": HUSH}])


def leaks(database: Database, folder: Path, *words: str) -> list[str]:
    """The tables of Dagster's database, and the files below the folder, in which one of the words stands."""
    found = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words)
    ]
    with psycopg.connect(database.dagster_url) as connection:
        tables = connection.execute(
            "select tablename from pg_tables where schemaname = 'public'"
        ).fetchall()
        for (table,) in tables:
            asked = sql.SQL("select 1 from {} as kept where kept::text ~ %s limit 1").format(
                sql.Identifier(table)
            )
            if connection.execute(asked, ("|".join(words),)).fetchone():
                found.append(table)
    return found


@pytest.fixture
def home(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, which is scanned; Dagster's storage is a real one."""
    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", pipeline.database.dagster_url)
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
        monkeypatch.setenv(name, "")  # and as it was in the end: the instance sets it
    pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))
    return Path(os.environ["METERING_HOME"])


VIOLATED = "violates check constraint"
GUARDS = {
    "landing": "landing.usage_events add constraint never check (properties = '{}')",
    "ledger": "ledger.usage_events add constraint never check (properties = '{}')",
    "issuing": "invoices.issued_invoice_lines add constraint never check (tenant_id <> 'birch-labs')",
}
"""What makes a stage fail with an error of PostgreSQL that quotes a row: ADBC's, dbt's, psycopg's."""


@contextmanager
def guarded(pipeline: Pipeline, stage: str) -> Iterator[None]:
    pipeline.execute(f"alter table {GUARDS[stage]}")
    yield
    table = GUARDS[stage].split()[0]
    pipeline.execute(f"alter table {table} drop constraint never")


def test_neither_a_run_nor_a_failure_logs_a_payload_or_a_password(
    pipeline: Pipeline, home: Path
) -> None:
    drop(pipeline)
    with dagster_instance() as instance:
        for stage in ("landing", "ledger"):
            with guarded(pipeline, stage), pytest.raises(RunFailed, match=VIOLATED) as failure:
                run_hours(instance, LANDED, LANDED)
            assert HUSH not in str(failure.value)
        run_hours(instance, LANDED, LANDED)
    with guarded(pipeline, "issuing"):
        failed = metering("issue", "--date", "2026-02-05")
    said = failed.stdout + failed.stderr
    assert (failed.returncode, VIOLATED in said) == (1, True), said
    assert [word for word in ("Traceback", "Failing row", HUSH) if word in said] == []

    passwords = [url_of(PIPELINE_LOGIN, pipeline.database.url).split("@")[0].split("//")[1]]
    passwords += [pipeline.database.url.split("@")[0].rsplit(":", 1)[1]]
    assert leaks(pipeline.database, home, HUSH, "Failing row", *passwords) == []
    # what was scanned is where such things would be
    assert {"event_logs", "runs"} <= set(leaks(pipeline.database, home, VIOLATED, "hourly"))
    [(raw,)] = pipeline.rows("select raw_line from landing.rejected_events")
    assert HUSH in bytes(raw).decode(), "a rejected record is kept as it came, in its table"


def test_dbt_in_a_process_of_its_own_leaves_no_row_behind(
    pipeline: Pipeline, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_DBT_MODE", "cli")
    drop(pipeline)
    with guarded(pipeline, "ledger"), pytest.raises(RunFailed, match=VIOLATED) as failure:
        pipeline.run(LANDED)
    assert HUSH not in str(failure.value)
    assert [path for path in leaks(pipeline.database, home, HUSH) if path.startswith("dbt")] == []


def test_the_errors_themselves_quote_no_row(pipeline: Pipeline) -> None:
    drop(pipeline)
    with (
        pytest.raises(psycopg.errors.NotNullViolation) as refused,
        pipeline.database.connect() as connection,
    ):
        connection.execute("insert into landing.hours (sealed) values (%s)", (True,))
    assert "Failing row" not in str(refused.value)
    with (
        pytest.raises(psycopg.errors.InvalidDatetimeFormat) as refused_copy,
        pipeline.database.connect() as connection,
        connection.cursor() as cursor,
        cursor.copy("copy landing.hours from stdin") as stream,
    ):
        stream.write_row((HUSH,))
    assert HUSH not in str(refused_copy.value)
    settings = Settings(landing_url=str(pipeline.root), database_url=pipeline.database.url)
    with (
        guarded(pipeline, "landing"),
        pytest.raises(adbc_driver_manager.Error, match=VIOLATED) as refused_landing,
    ):
        land_hour(pipeline.database.url, settings, LANDED, datetime(2026, 2, 6, tzinfo=UTC))
    assert HUSH not in str(refused_landing.value)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('bad row\nDETAIL:  Failing row contains (a\nDETAIL: b).\nHINT:  do', "bad row\nHINT:  do"),
        ("bad row\nCONTEXT:  COPY t, line 1: \"a\"\n", "bad row"),
        (
            "Database Error in model m\n  bad row\n  DETAIL:  Failing row contains (a).\n  compiled code at m.sql",
            "Database Error in model m\n  bad row\n  compiled code at m.sql",
        ),
        ('invalid input syntax for type json: "{a"', "invalid input syntax for type json"),
        ('date/time field value out of range: "9"', "date/time field value out of range"),
        ("The DETAIL: of it", "The DETAIL: of it"),
    ],
)  # fmt: skip
def test_of_a_message_the_rows_are_taken_out(message: str, shown: str) -> None:
    assert without_rows(message) == shown
