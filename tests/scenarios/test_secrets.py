"""What no log may hold: payloads and passwords. PostgreSQL's errors quote the rows that they are about."""

from datetime import UTC, datetime
from pathlib import Path

import adbc_driver_manager
import psycopg
import pytest
from psycopg import sql

from metering_pipeline.errors import without_rows
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
        "properties": {"model": "small", "input_tokens": 900_000, "note": HUSH},
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
def home(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, which is scanned; Dagster's storage is a real one."""
    folder = tmp_path / "home"
    monkeypatch.setenv("METERING_HOME", str(folder))
    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", pipeline.database.dagster_url)
    pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))
    return folder


GUARDS = {
    "landing": "alter table landing.usage_events add check (properties = '{}')",
    "ledger": "alter table ledger.usage_events add check (properties = '{}')",
    "issuing": "alter table invoices.issued_invoice_lines add check (tenant_id <> 'acme')",
}
"""What makes a stage fail with an error of PostgreSQL that quotes a row: ADBC's, dbt's, psycopg's."""


def test_neither_a_run_nor_a_failure_logs_a_payload_or_a_password(
    pipeline: Pipeline, home: Path
) -> None:
    def fails(stage: str, *command: str) -> None:
        pipeline.execute(GUARDS[stage])
        failed = metering(*command)
        assert failed.returncode == 1, failed.stdout + failed.stderr
        said = failed.stdout + failed.stderr
        assert "violates check constraint" in said
        assert "Traceback" not in said
        assert HUSH not in said
        assert "Failing row" not in said
        table = GUARDS[stage].split()[2]
        [(name,)] = pipeline.rows(
            "select conname from pg_constraint where conrelid = %s::regclass and contype = 'c'"
            " and conname like '%%check%%'",
            table,
        )
        pipeline.execute(f"alter table {table} drop constraint {name}")

    drop(pipeline)
    run = ("run", "--hour", "2026-01-31T13")
    fails("landing", *run)
    fails("ledger", *run)
    ran = metering(*run)
    assert ran.returncode == 0, ran.stderr
    fails("issuing", "issue", "--date", "2026-02-05")
    issued = metering("issue", "--date", "2026-02-05")
    assert issued.returncode == 0, issued.stderr

    passwords = [url_of(PIPELINE_LOGIN, pipeline.database.url).split("@")[0].split("//")[1]]
    passwords += [pipeline.database.url.split("@")[0].rsplit(":", 1)[1]]
    assert leaks(pipeline.database, home, HUSH, "Failing row", *passwords) == []
    # what was scanned is where such things would be
    assert {"event_logs", "runs"} <= set(
        leaks(pipeline.database, home, "violates check constraint|hourly")
    )
    [(raw,)] = pipeline.rows("select raw_line from landing.rejected_events")
    assert HUSH in bytes(raw).decode(), "a rejected record is kept as it came, in its table"


def test_dbt_in_a_process_of_its_own_leaves_no_row_behind(
    pipeline: Pipeline, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metering_pipeline.execution import RunFailed

    monkeypatch.setenv("METERING_DBT_MODE", "cli")
    drop(pipeline)
    pipeline.execute(GUARDS["ledger"])
    with pytest.raises(RunFailed, match="violates check constraint") as failure:
        pipeline.run(LANDED)
    assert HUSH not in str(failure.value)
    assert [path for path in leaks(pipeline.database, home, HUSH) if path.startswith("dbt")] == []


def test_the_errors_themselves_quote_no_row(pipeline: Pipeline, home: Path, tmp_path: Path) -> None:
    drop(pipeline)
    with (
        pytest.raises(psycopg.errors.NotNullViolation) as refused,
        pipeline.database.connect() as connection,
    ):
        connection.execute("insert into landing.hours (sealed) values (%s)", (True,))
    assert "Failing row" not in str(refused.value)
    with (
        pytest.raises(psycopg.errors.BadCopyFileFormat) as refused_copy,
        pipeline.database.connect() as connection,
        connection.cursor() as cursor,
        cursor.copy("copy landing.hours from stdin") as stream,
    ):
        stream.write_row((HUSH,))
    assert HUSH not in str(refused_copy.value)
    pipeline.execute(GUARDS["landing"])
    settings = Settings(landing_url=str(pipeline.root), database_url=pipeline.database.url)
    with pytest.raises(adbc_driver_manager.Error) as refused_landing:
        land_hour(pipeline.database.url, settings, LANDED, datetime(2026, 2, 6, tzinfo=UTC))
    assert "violates check constraint" in str(refused_landing.value)
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
        ("The DETAIL: of it", "The DETAIL: of it"),
    ],
)  # fmt: skip
def test_of_a_message_the_rows_are_taken_out(message: str, shown: str) -> None:
    assert without_rows(message) == shown
