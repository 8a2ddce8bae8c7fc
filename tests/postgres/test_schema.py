"""The schema files are applied once and wholly, and what they promise holds in the database."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from threading import Event
from typing import LiteralString

import psycopg
import pytest
from psycopg import IsolationLevel, sql

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.invoices import issuing
from metering_pipeline.postgres import (
    PIPELINE_LOCKS,
    SCHEMA_FOLDER,
    Database,
    DatabaseError,
    apply_schema,
    open_database,
)
from metering_pipeline.reconciliation.laws import LAWS
from metering_pipeline.settings import PROJECT_ROOT, Settings
from tests.conftest import PIPELINE_LOGIN, url_of
from tests.postgres.billing_world import JANUARY, World, after, use

DAYS = [date(2026, 1, 31), date(2026, 2, 1)]
STAGES = ["landing", "ledger", "rollups", "rating", "invoices", "reconciliation"]


def rows(
    database: Database, query: LiteralString | sql.Composed, *parameters: object
) -> list[tuple[object, ...]]:
    with database.connect() as connection:
        return connection.execute(query, parameters or None).fetchall()


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """A copy of the schema folder for a test to change."""
    return Path(shutil.copytree(SCHEMA_FOLDER, tmp_path / "schema"))


def test_each_file_is_applied_once_and_recorded(database: Database, settings: Settings) -> None:
    record = "select file_name, applied_at from catalog.schema_files order by file_name"
    before = rows(database, record)
    assert [name for name, _ in before] == [file.name for file in sorted(SCHEMA_FOLDER.iterdir())]
    open_database(settings)
    assert apply_schema(database) == []
    assert rows(database, record) == before
    schemas = [name for (name,) in rows(database, "select nspname from pg_namespace")]
    assert set(STAGES) <= set(schemas)


def test_settings_are_written_where_they_differ(database: Database, settings: Settings) -> None:
    stored = "select name, value, xmin::text from catalog.settings order by name"
    before = rows(database, stored)
    open_database(settings)
    assert rows(database, stored) == before
    open_database(replace(settings, grace_hours=1))
    changed = set(rows(database, stored)) - set(before)
    assert [(name, value) for name, value, _ in changed] == [("grace_hours", "1")]


def test_what_holds_invoices_is_not_taken_away_in_silence(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = "select value from catalog.settings where name = 'approval'"
    open_database(replace(settings, approval="required"))
    with pytest.raises(DatabaseError, match="METERING_APPROVAL is required in this database, and"):
        open_database(settings)
    open_database(settings, reading=True)
    assert rows(database, stored) == [("required",)]
    monkeypatch.setenv("METERING_APPROVAL", "none")
    open_database(settings)
    assert rows(database, stored) == [("none",)]


def test_a_changed_file_is_refused(database: Database, schema: Path) -> None:
    file = schema / "003_ledger.sql"
    file.write_text(file.read_text() + "\n-- a later thought\n")
    with pytest.raises(DatabaseError, match=r"003_ledger\.sql has changed since it was applied"):
        apply_schema(database, schema)


def test_a_database_newer_than_the_files_is_refused(database: Database, schema: Path) -> None:
    sorted(schema.iterdir())[-1].unlink()
    with pytest.raises(
        DatabaseError, match=r"has no 013_watching\.sql\. Nothing was done\. Run the"
    ):
        apply_schema(database, schema)


def test_files_out_of_order_are_refused(database: Database, schema: Path) -> None:
    (schema / "0021_between.sql").write_text("select 1;")
    with pytest.raises(
        DatabaseError, match=r"where it has 002_landing.sql, .* has 0021_between.sql"
    ):
        apply_schema(database, schema)


def test_a_faulty_file_leaves_nothing_half(database: Database, schema: Path) -> None:
    (schema / "900_good.sql").write_text("create table catalog.good (number integer);")
    bad = schema / "901_bad.sql"
    bad.write_text("create table catalog.half (number integer); select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        apply_schema(database, schema)
    made = "select to_regclass('catalog.good') is not null, to_regclass('catalog.half') is not null"
    assert rows(database, made) == [(True, False)]
    bad.write_text("create table catalog.half (number integer);")
    assert apply_schema(database, schema) == ["901_bad.sql"]
    assert rows(database, made) == [(True, True)]


def test_a_kill_in_the_middle_leaves_nothing_half(database: Database, schema: Path) -> None:
    slow = schema / "900_slow.sql"
    slow.write_text("create table catalog.half (number integer); select pg_sleep(60);")
    script = (
        "import sys; from pathlib import Path; from metering_pipeline import postgres;"
        "postgres.apply_schema(postgres.Database(sys.argv[1], ''), Path(sys.argv[2]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, database.url, str(schema)], cwd=PROJECT_ROOT
    )
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    while rows(database, asleep) != [(1,)]:
        time.sleep(0.05)
    child.kill()
    child.wait()
    slow.write_text("select 1;")
    # Waits for the lock of the killed process's session, which the server soon ends.
    assert apply_schema(database, schema) == ["900_slow.sql"]
    assert rows(database, "select to_regclass('catalog.half')") == [(None,)]


def test_processes_that_apply_at_once_do_it_once(database: Database, schema: Path) -> None:
    for number in range(900, 904):
        (schema / f"{number}_more.sql").write_text(f"create table catalog.more_{number} ();")
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(lambda _: apply_schema(database, schema), range(4)))
    assert sorted(chain(*applied)) == [f"{number}_more.sql" for number in range(900, 904)]


def test_the_locked_transaction_commits_whole_or_not(database: Database) -> None:
    def insert_then(fail: bool) -> None:
        with database.locked() as connection:
            connection.execute("insert into catalog.settings values ('probe', 'x')")
            if fail:
                raise RuntimeError("after the insert")

    with pytest.raises(RuntimeError, match="after the insert"):
        insert_then(fail=True)
    assert rows(database, "select 1 from catalog.settings where name = 'probe'") == []
    insert_then(fail=False)
    assert rows(database, "select 1 from catalog.settings where name = 'probe'") == [(1,)]


def test_a_snapshot_behind_the_lock_shows_what_its_last_holder_did(database: Database) -> None:
    holding = Event()

    def hold() -> None:
        with database.locked() as connection:
            holding.set()
            waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
            while connection.execute(waiting).fetchone() is None:
                time.sleep(0.01)
            connection.execute("insert into catalog.settings values ('probe', 'x')")

    with ThreadPoolExecutor(1) as threads:
        holder = threads.submit(hold)
        holding.wait()
        with database.locked(IsolationLevel.REPEATABLE_READ) as connection:
            query = "select value from catalog.settings where name = 'probe'"
            assert connection.execute(query).fetchone() == ("x",)
            level = connection.execute("show transaction_isolation").fetchone()
            assert level == ("repeatable read",)
        holder.result()
    locks = "select count(*) from pg_locks where locktype = 'advisory' and objid::bigint = any(%s)"
    assert rows(database, locks, [*PIPELINE_LOCKS]) == [(0,)]


def ensure_partitions(database: Database, table: str, days: list[date]) -> int:
    with database.connect() as connection:
        row = connection.execute(
            "select catalog.ensure_day_partitions(%s, 'usage_events', %s)", (table, days)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_day_partitions_hold_their_utc_day(database: Database) -> None:
    assert ensure_partitions(database, "landing", DAYS) == 2
    assert ensure_partitions(database, "landing", [*DAYS, date(2026, 2, 2)]) == 1
    last_moment = datetime(2026, 2, 1, tzinfo=UTC) - timedelta(microseconds=1)
    with database.connect() as connection:
        for hour in (last_moment, last_moment + timedelta(microseconds=1)):
            connection.execute(
                "insert into landing.usage_events values"
                " (%s, 1, 1, 'acme', 'request', %s, 'r1', 1, '{}', false)",
                (hour, hour),
            )
    assert rows(
        database, "select tableoid::regclass::text from landing.usage_events order by landed_hour"
    ) == [("landing.usage_events_20260131",), ("landing.usage_events_20260201",)]


def test_partitions_made_at_once_are_made_once(database: Database) -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: ensure_partitions(database, "ledger", DAYS), range(4)))
    assert sorted(made) == [0, 0, 0, 2]
    unique = "select count(*) from pg_indexes where tablename like 'usage_events_2026%' and indexdef like 'CREATE UNIQUE%'"
    assert rows(database, unique) == [(2,)]


def test_no_index_is_one_of_block_ranges(database: Database) -> None:
    """PostgreSQL 18 loses rows by such an index: an insert that began before another transaction summarized a range
    beyond the index's known pages of pointers does not know of that range, and leaves its summary as it is."""
    by_ranges = """
        select pg_index.indexrelid::regclass::text
        from pg_index
        inner join pg_class on pg_index.indexrelid = pg_class.oid
        inner join pg_am on pg_class.relam = pg_am.oid
        where pg_am.amname = 'brin'
    """
    assert rows(database, by_ranges) == []


def test_only_partitioned_tables_get_partitions(database: Database) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="is not partitioned by day"):
        ensure_partitions(database, "rollups", DAYS)


def test_an_older_database_is_brought_up_with_its_data(
    server: EmbeddedServer, world_template: str, schema: Path, tmp_path: Path
) -> None:
    """January's data in a database of the files up to 008: after the upgrade its laws hold and it goes on."""
    address = server.start()
    for newer in sorted(schema.iterdir())[8:]:
        newer.unlink()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute("create database metering")
    old = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    assert len(apply_schema(old, schema)) == 8
    copy_data(server, world_template, tmp_path / "data.sql")
    before = rows(old, "select * from ledger.usage_events order by occurred_at, fingerprint")
    assert len(before) == 14

    open_database(Settings(database_url=old.url))
    open_database(Settings(database_url=url_of(PIPELINE_LOGIN, old.url)))
    assert before == rows(
        old, "select * from ledger.usage_events order by occurred_at, fingerprint"
    )
    with old.connect(autocommit=True) as connection:
        world = World(old, connection)
        world.land("2026-02-05T03", "after.ndjson", [use("acme", "2026-02-05T02:30", 1)])
        world.run("2026-02-05T03", "2026-02-05T04")
        assert issuing.issue(old, JANUARY, after(JANUARY)).issued
        assert world.check() == set()
        assert {each.law for each in world.results()} == set(LAWS)


def copy_data(server: EmbeddedServer, source: str, path: Path) -> None:
    """The rows of one database into another of the older schema, by PostgreSQL's own tools."""
    address = server.start()
    with (
        psycopg.connect(address.url(source)) as reading,
        psycopg.connect(address.url("metering")) as to,
    ):
        for initial in ("rating.built_from", "invoices.draft_state", "invoices.issuing_switch"):
            to.execute(sql.SQL("delete from {}").format(sql.Identifier(*initial.split("."))))
        for stage in ("landing", "ledger"):
            days = reading.execute(
                "select array_agg(right(relid::text, 8)::date) from pg_partition_tree(%s) where isleaf",
                (f"{stage}.usage_events",),
            ).fetchone()
            to.execute(
                "select catalog.ensure_day_partitions(%s, 'usage_events', %s)",
                (stage, *(days or ())),
            )
    skipped = ("catalog.schema_files", "catalog.tenant_logins", "staging.*")
    with (
        psycopg.connect(address.url(source)) as reading,
        psycopg.connect(address.url("metering")) as to,
    ):
        tables = "select format('%I.%I', schemaname, tablename) from pg_tables"
        later = set(reading.execute(tables)) - set(to.execute(tables))
    left_out = [*skipped, *(name for (name,) in later)]
    options = [
        "--data-only", "--load-via-partition-root", *(f"--exclude-table={name}" for name in left_out)
    ]  # fmt: skip
    script = [f"--file={path}"]
    for program, *arguments in (
        ["pg_dump", *options, *script, address.url(source)],
        ["psql", "--quiet", "--set=ON_ERROR_STOP=1", *script, address.url("metering")],
    ):
        subprocess.run([server.programs / program, *arguments], check=True, capture_output=True)


@pytest.fixture
def issued(database: Database) -> Database:
    """A database with one issued invoice of one line."""
    with database.connect() as connection:
        connection.execute("""
            insert into invoices.issued_invoices (
                invoice_number, series, series_number, document_kind, draft_id, tenant_id,
                subscription_id, legal_entity, currency, total, billing_date, bill_at, catalog_version, issued_at,
                content, content_sha256, previous_sha256, coupon_amount, tax_amount, credit_amount, amount_due,
                tenant_name, legal_entity_name, plan_name, time_zone, minor_digits
            ) values (
                'A-1', 'A', 1, 'invoice', 's1/2026-02-04', 'acme', 's1', 'house', 'USD', 1, '2026-02-04',
                '2026-02-04', 1, now(), '{}', '', '', 0, 0, 0, 1, 'Acme', 'House', 'Growth', 'UTC', 2
            )""")
        connection.execute("""
            insert into invoices.issued_invoice_lines (
                invoice_number, line_number, subscription_id, tenant_id, charge_id, charge_version,
                subscription_version, component, slice_start, slice_end, quantity, event_count,
                event_digest, payload_digest, rated_amount, amount, currency, kind, description, charge_model
            ) values (
                'A-1', 1, 's1', 'acme', 'c1', 1, 1, 'usage', '2026-01-01', '2026-02-01', 1, 1,
                0, 0, 1, 1, 'USD', 'regular', 'requests', 'per_unit'
            )""")
        connection.execute(
            "insert into invoices.issued_usage values ('A-1', 1, '2026-01-01', 1, 1, 0, 0)"
        )
        connection.execute(
            "insert into invoices.issued_tier_slices values ('A-1', 1, 1, 1, 1, 0, 0, '{}', 1)"
        )
        connection.execute(
            "insert into invoices.issued_invoice_taxes values ('A-1', 1, 'vat', 0, 1, 1)"
        )
        connection.execute("insert into invoices.coupon_entries values ('A-1', 1, 'c', 1, 'off')")
        connection.execute("""
            insert into invoices.credit_entries (
                credit_id, kind, tenant_id, currency, amount, priority, entered_at, entered_by, reason
            ) values ('CR-000001', 'grant', 'acme', 'USD', 1, 1, now(), 'ana', 'sold')""")
        connection.execute("""
            insert into invoices.approvals (
                draft_id, content_sha256, tenant_id, total, currency, approved_by, approval_reason, approved_at
            ) values ('s1/2026-02-04', '', 'acme', 1, 'USD', 'ana', 'read', now())""")
    return database


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("issued_invoices", "total"),
        ("issued_invoice_lines", "amount"),
        ("issued_usage", "value_sum"),
        ("issued_tier_slices", "amount"),
        ("issued_invoice_taxes", "tax_amount"),
        ("coupon_entries", "amount"),
        ("credit_entries", "amount"),
        ("approvals", "total"),
    ],
)
def test_what_was_issued_cannot_be_changed(issued: Database, table: str, column: str) -> None:
    names = {"table": sql.Identifier("invoices", table), "column": sql.Identifier(column)}
    changes = (
        sql.SQL("update {table} set {column} = 2"),
        sql.SQL("delete from {table}"),
        sql.SQL("truncate {table} cascade"),
    )
    for change in changes:
        with issued.connect() as connection, pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(change.format(**names))
    assert rows(issued, sql.SQL("select {column} from {table}").format(**names)) == [(1,)]
