"""A dry run says what the run then does, and leaves no trace, whatever ends it."""

import _thread
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.dry_run import print_dry_run
from metering_pipeline.generate import Shares, generate
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import LEDGER_LOCK, Database, open_database
from metering_pipeline.settings import HOUR, PROJECT_ROOT
from metering_pipeline.transform.dbt import run_dbt
from metering_pipeline.transform.dry_run import DryRun, dry_run
from metering_pipeline.transform.posting import DETAILED_DRAFTS, Posting
from tests.scenarios.conftest import Pipeline

DAY = date(2026, 1, 10)
LANDING_HOURS = (22, 23)
PATIENCE = 240
SHARES = Shares(duplicates=0.1, late=0.3, conflicts=0.02, voids=0.05, bad_lines=0.02)

TABLES = """
select table_schema || '.' || table_name
from information_schema.tables
where
    table_schema not in ('pg_catalog', 'information_schema')
    and table_schema !~ '^pg_'
    and table_type = 'BASE TABLE'
"""
FIGURES = (
    "event_count, value_sum, value_min, value_max, value_latest, latest_at, latest_fingerprint,"
    " event_digest, payload_digest"
)


@pytest.fixture
def half_landed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Four landing hours across two days; one has been run, and one of its files now says less."""
    monkeypatch.setenv("METERING_FIRST_HOUR", f"{DAY}T00")
    monkeypatch.setenv("METERING_LOOKBACK_HOURS", "6")
    totals = generate(pipeline.root, DAY, 2, LANDING_HOURS, events=600, seed=3, shares=SHARES)
    pipeline.set_clock(totals.landing_hours[-1] + 2 * HOUR)
    second = totals.landing_hours[1]
    own = [use(second - number * HOUR, number) for number in range(5)]
    pipeline.drop(second, "own.ndjson", own)
    configured = settings.load()
    database = open_database(configured)
    land_hours(database.url, configured, second, second, configured.now())
    models = ["metering.ledger.usage_events", "usage_contributions", "usage_hourly", "usage_daily"]
    run_dbt(database, "run", models, Window(second, second + HOUR))
    pipeline.drop(second, "own.ndjson", own[:2])
    return pipeline


def use(occurred_at: datetime, number: int) -> dict[str, Any]:
    """Usage of a tenant that has no other: its buckets come and go with it."""
    return {
        "tenant_id": "sole",
        "event_type": "api.request",
        "occurred_at": occurred_at.isoformat(),
        "correlation_id": f"sole-{number}",
        "properties": {"model": "small", "input_tokens": number, "output_tokens": 1},
    }


def all_hours() -> Window:
    first = datetime.fromisoformat(f"{DAY}T22:00:00+00:00")
    return Window(first, first + 26 * HOUR)


def rehearsed(pipeline: Pipeline) -> DryRun:
    return dry_run(pipeline.database, settings.load(), all_hours())


def contents(pipeline: Pipeline) -> dict[str, Counter[str]]:
    """Every row of every table, as text; partitions are tables too."""
    return {
        table: Counter(row for (row,) in pipeline.rows(f"select t::text from {table} as t"))
        for (table,) in sorted(pipeline.rows(TABLES))
    }


def buckets(pipeline: Pipeline, table: str = "usage_hourly") -> dict[Any, Any]:
    """The rows of a rollup by their key: tenant, metric, and what is left of it."""
    prefix = {"usage_hourly": "hour", "usage_daily": "day"}.get(table, "(hour, landed_hour)::text")
    return {
        row[:4]: row[4:]
        for row in pipeline.rows(
            f"select tenant_id, metric, {prefix}, dimensions::text, {FIGURES} from rollups.{table}"
        )
    }


def kinds(before: dict[Any, Any], after: dict[Any, Any]) -> tuple[int, int, int]:
    """Rows that are new, changed, vanished."""
    both = before.keys() & after.keys()
    return (
        len(after.keys() - before.keys()),
        sum(before[key] != after[key] for key in both),
        len(before.keys() - after.keys()),
    )


def quantity(rows: dict[Any, Any], keys: set[Any]) -> tuple[int, Decimal]:
    found = [rows[key] for key in keys if key in rows]
    return sum(row[0] for row in found), sum((row[1] for row in found), Decimal(0))


def sizes(pipeline: Pipeline) -> Counter[str]:
    tables = ("usage_events", "duplicates", "conflicts", "voids", "withdrawn")
    return Counter({t: pipeline.rows(f"select count(*) from ledger.{t}")[0][0] for t in tables})


def draft_lines(pipeline: Pipeline) -> dict[Any, tuple[Decimal, Decimal]]:
    """Quantity and amount of each line of the drafts."""
    return {
        tuple(key): (quantity, amount)
        for *key, quantity, amount in pipeline.rows(
            "select draft_id, charge_id, component, slice_start, slice_end, quantity, amount"
            " from invoices.draft_invoice_lines"
        )
    }


def test_the_run_does_what_the_dry_run_said(half_landed: Pipeline) -> None:
    pipeline = half_landed
    rollups = ("usage_contributions", "usage_hourly", "usage_daily")
    everything = contents(pipeline)
    drafted = draft_lines(pipeline)
    posted, rolled = sizes(pipeline), {table: buckets(pipeline, table) for table in rollups}
    said = rehearsed(pipeline)
    assert contents(pipeline) == everything

    window = all_hours()
    pipeline.run(window.start, window.end - HOUR)
    [(files,)] = pipeline.rows("select count(*) from landing.files")
    assert files == len(everything["landing.files"]) + sum(
        hour.files_landed for hour in said.landed
    )
    posted_after = sizes(pipeline)
    assert {each.table: each.added - each.removed for each in said.posted} == {
        table: posted_after[table] - posted[table] for table in posted
    }
    # a corrected file withdraws, and copies of its events move up
    assert all(each.added for each in said.posted)
    assert any(each.removed for each in said.posted)

    rolled_after = {table: buckets(pipeline, table) for table in rollups}
    assert {
        each.table: (each.new, each.changed, each.vanished) for each in said.rollups.tables
    } == {table: kinds(rolled[table], rolled_after[table]) for table in rollups}
    before, after = rolled["usage_hourly"], rolled_after["usage_hourly"]
    differing = {key for key in before | after if before.get(key) != after.get(key)}
    expected = {}
    for of in {key[:2] for key in differing}:
        keys = {key for key in differing if key[:2] == of}
        sides = [{key: rows[key] for key in keys if key in rows} for rows in (before, after)]
        expected[of] = (kinds(*sides), *(quantity(rows, keys) for rows in sides))
    assert {
        (each.tenant_id, each.metric): (
            (each.new, each.changed, each.vanished),
            (each.events_before, each.quantity_before),
            (each.events_after, each.quantity_after),
        )
        for each in said.rollups.buckets
    } == expected
    assert min(sum(each[0][kind] for each in expected.values()) for kind in range(3)) > 0
    late = pipeline.rows("select count(*) from rollups.late_arrivals")
    assert late == [(said.late_keys,)]
    assert said.late_keys > 0

    drafted_after = draft_lines(pipeline)
    nothing = (Decimal(0), Decimal(0))
    sides = {
        key: drafted.get(key, nothing) + drafted_after.get(key, nothing)
        for key in drafted.keys() | drafted_after.keys()
    }
    changed = {key: figures for key, figures in sides.items() if figures[1] != figures[3]}
    by_draft = Counter(key[0] for key in changed)
    assert {each.draft_id: each.lines_changed for each in said.drafts} == by_draft
    assert {each.draft_id: each.total_after - each.total_before for each in said.drafts} == {
        draft: sum(
            after - before for key, (_, before, _, after) in changed.items() if key[0] == draft
        )
        for draft in by_draft
    }
    detailed = {each.draft_id: each.lines for each in said.drafts if each.lines}
    assert len(detailed) == min(len(by_draft), DETAILED_DRAFTS)
    assert {
        (draft, line.charge_id, line.component, line.slice_start, line.slice_end): (
            *(line.quantity_before, line.amount_before),
            *(line.quantity_after, line.amount_after),
        )
        for draft, lines in detailed.items()
        for line in lines
    } == {key: figures for key, figures in changed.items() if key[0] in detailed}

    again = rehearsed(pipeline)
    assert again.rollups.differing == 0
    assert again.drafts == ()
    assert {(each.added, each.removed) for each in again.posted} == {(0, 0)}
    printed = StringIO()
    for outcome in (said, again):
        print_dry_run(Console(file=printed, width=80), outcome)
    assert printed.getvalue().count("Hourly buckets that would change") == 1
    assert printed.getvalue().count("Drafts that would change") == 1
    assert printed.getvalue().count("Nothing was changed.") == 2


@contextmanager
def command(window: Window) -> Iterator[subprocess.Popen[str]]:
    first, last = (f"{hour:%Y-%m-%dT%H}" for hour in (window.start, window.end - HOUR))
    main = "from metering_pipeline.cli import main; main()"
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            main,
            "run",
            "--dry-run",
            "--from",
            first,
            "--to",
            last,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT_ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(pipeline: Pipeline, process: subprocess.Popen[str]) -> str:
    """What it said until it ended. Else fails, with where each of its threads stands and what PostgreSQL does."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        sessions = pipeline.rows(
            "select pid, state, wait_event_type, wait_event, pg_blocking_pids(pid), left(query, 100)"
            " from pg_stat_activity where backend_type = 'client backend'"
        )
        process.send_signal(signal.SIGABRT)
        threads, _ = process.communicate(timeout=PATIENCE)
        raise AssertionError("\n".join([threads, *map(str, sessions)])) from None


def wait_for(pipeline: Pipeline, query: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not pipeline.rows(query):
        assert time.monotonic() < deadline, query
        time.sleep(0.05)


def test_whatever_ends_it_nothing_is_left_and_readers_go_on(half_landed: Pipeline) -> None:
    """Stopped in the middle, with all its rows written: killed, interrupted, and at last left alone."""
    pipeline = half_landed
    everything = contents(pipeline)
    waits = (
        "select 1 from pg_locks where not granted and relation = 'rollups.touched_days'::regclass"
    )
    writes = "select 1 from pg_stat_activity where datname = 'metering' and xact_start is not null"
    beside = f"{writes} and pid <> pg_backend_pid()"
    for sent in (signal.SIGKILL, signal.SIGINT, None):
        with command(all_hours()) as process:
            with pipeline.database.connect() as other:
                other.execute("lock table rollups.touched_days in share mode")
                wait_for(pipeline, waits)
                assert contents(pipeline) == everything
                if sent is not None:
                    process.send_signal(sent)
                    said = ended(pipeline, process)
            if sent is None:
                said = ended(pipeline, process)
                assert "Nothing was changed." in said
            assert (process.returncode == 0) == (sent is None), said
            assert "Traceback" not in said
        wait_for(pipeline, f"select 1 where not exists ({beside})")
        assert contents(pipeline) == everything


class Stubborn:
    """A statement that ends by the third request to cancel it."""

    def __init__(self) -> None:
        self.requests = 0
        self._ended = threading.Event()

    def set_sql_query(self, script: str) -> None:
        pass

    def execute_update(self) -> None:
        self._ended.wait(30)

    def cancel(self) -> None:
        self.requests += 1
        if self.requests == 3:
            self._ended.set()


def test_an_interrupt_that_wakes_nobody_and_a_cancel_in_vain_end_it_still() -> None:
    """As where another thread takes the signal: the main thread, which waits, is not woken by it."""
    statement = Stubborn()
    connection: Any = SimpleNamespace(cursor=lambda: SimpleNamespace(adbc_statement=statement))
    posting = Posting(Database(url="", dagster_url=""), connection, all_hours())
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        posting.send("select 1")
    assert statement.requests == 3


def test_a_landing_and_a_dry_run_do_not_wait_for_each_other(half_landed: Pipeline) -> None:
    """Who lands one of its hours waits for the ledger's lock in the end: the other way round would hang."""
    pipeline = half_landed
    last = (all_hours().end - HOUR).isoformat()
    with ThreadPoolExecutor(1) as pool, pipeline.database.connect() as landing:
        landing.execute(
            "select pg_advisory_xact_lock(hashtextextended('landing of ' || %s::text, 0))", (last,)
        )
        rehearsal = pool.submit(rehearsed, pipeline)
        wait_for(pipeline, "select 1 from pg_locks where locktype = 'advisory' and not granted")
        free = landing.execute("select pg_try_advisory_xact_lock(%s)", (LEDGER_LOCK,)).fetchone()
        landing.rollback()
        assert rehearsal.result(timeout=PATIENCE).rollups.differing > 0
    assert free == (True,)
