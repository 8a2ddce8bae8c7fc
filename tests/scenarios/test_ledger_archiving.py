"""Old days of the ledger go to Parquet and come back where they are needed; whatever happens then, nothing but the
place of their rows is another than in a pipeline that never archived."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from metering_pipeline import settings
from metering_pipeline.archive import archive_day
from metering_pipeline.cli import cli
from metering_pipeline.erase import erase
from metering_pipeline.errors import ArchivedError
from metering_pipeline.landing.archives import ArchiveError, Archives, Stage
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.laws import LAWS, evaluate, keep_days
from metering_pipeline.reconciliation.rebuild import rebuild_ledger
from metering_pipeline.settings import HOUR
from metering_pipeline.transform.archived import run_models
from metering_pipeline.transform.dbt import NodeResult, run_dbt
from metering_pipeline.transform.dry_run import dry_run
from metering_pipeline.transform.figures import ledger_figures
from metering_pipeline.transform.posting import PostingError
from metering_pipeline.transform.rebuild import rebuild_rollups
from tests.scenarios.conftest import Pipeline, Worlds
from tests.scenarios.test_archiving import files, in_thread, kill, waiting
from tests.scenarios.test_metrics import Metered, publish

START = datetime(2026, 1, 1, tzinfo=UTC)
LANDED = datetime(2026, 1, 31, 19, tzinfo=UTC)
NEXT = LANDED + 10 * HOUR
NEWEST = datetime(2026, 3, 10, 10, tzinfo=UTC)
LATER = datetime(2026, 3, 21, 12, tzinfo=UTC)
DAYS = [date(2026, 1, 31), date(2026, 2, 1)]
CALLS = Metered("calls", "count", START, None, START.date(), "Asia/Kathmandu", tenant="ktm")
SLOW = replace(CALLS, name="slow", aggregation="percentile", percentile="90", event_type="calls")
USERS = replace(CALLS, name="users", aggregation="unique_count", event_type="logins")
PAID = replace(CALLS, name="paid", aggregation="sum", event_type="payments")


def event(request: str, at: str, value: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "tenant_id": "ktm",
        "event_type": "calls",
        "occurred_at": at,
        "correlation_id": request,
        "properties": {"value": value, "user": "Ada"},
        **more,
    }


OLD = [event(f"a{place}", f"2026-01-31T18:{place:02}:30.5Z", place) for place in range(5, 60, 5)]
"""A period of Kathmandu ends at 18:15 UTC: this hour is cut."""
YOUNG = [event(f"b{place}", f"2026-02-01T03:{place:02}:00Z", place, quantity="1.500") for place in range(5)]  # fmt: skip
AGAIN = event("a5", "2026-02-01T03:30:00Z")
"""A retry that was stamped anew: a suspect."""
PAYMENTS = [event(f"p{place}", f"2026-02-01T04:{place:02}:00Z", place * 9, event_type="payments") for place in range(4)]  # fmt: skip
UNBILLED = [each | {"tenant_id": "unbilled"} for each in (*OLD, *PAYMENTS)]
LOGIN = event("login", "2026-02-01T03:10:00Z", 7, event_type="logins")


def published(pipeline: Pipeline, name: str) -> list[dict[str, str]]:
    """A table of the catalog as it was handed in."""
    return [
        {key: "" if value is None else value for key, value in row.items()}
        for (row,) in pipeline.rows(f"select to_jsonb(kept) from staging.{name} as kept")
    ]


def publish_all(pipeline: Pipeline) -> None:
    """A tenant that is billed, one that never is, and a charge that looks at each event."""
    unbilled = {"tenant_id": "unbilled", "name": "unbilled", "legal_entity": "us", "billable": "false"}  # fmt: skip
    publish(pipeline, [CALLS, SLOW, USERS, PAID])
    tables = {
        name: published(pipeline, name)
        for name in ("charges", "charge_tiers", "tenants", "subscriptions")
    }
    for row in (*tables["charges"], *tables["charge_tiers"]):
        if row["charge_id"] == "paid":
            row |= {"charge_model": "percentage"} if "charge_model" in row else {"unit_amount": "0", "rate_percent": "10"}  # fmt: skip
    (subscription,) = tables["subscriptions"]
    tables["subscriptions"].append(subscription | {"subscription_id": "sub-unbilled", "tenant_id": "unbilled"})  # fmt: skip
    tables["tenants"].append(unbilled)
    terms = {"charge_id": "paid", "version": "1", "amount_per_event": "0.5", "minimum_per_event": "2"}  # fmt: skip
    pipeline.publish_catalog(**tables, percentage_terms=[terms])


def live(pipeline: Pipeline) -> None:
    """Two days of usage, with copies of every kind, billed; and later usage."""
    publish_all(pipeline)
    pipeline.set_clock(LANDED + 3 * HOUR)
    pipeline.drop(
        LANDED, "a.ndjson", [*OLD, *UNBILLED[:11], OLD[0], OLD[1] | {"properties": {"value": 1}}]
    )
    pipeline.run(LANDED)
    pipeline.set_clock(NEXT + 3 * HOUR)
    pipeline.drop(
        NEXT,
        "b.ndjson",
        [*YOUNG, AGAIN, LOGIN, *PAYMENTS, *UNBILLED[11:], OLD[2], OLD[3] | {"void": True}],
    )
    pipeline.run(NEXT)
    run_dbt(pipeline.database, "run", ["suspects"])
    pipeline.set_clock(NEWEST + 3 * HOUR)
    pipeline.drop(NEWEST, "c.ndjson", [event("c", "2026-03-10T10:05:00Z")])
    pipeline.run(NEWEST)
    pipeline.issue(date(2026, 3, 11))
    pipeline.set_clock(LATER)
    pipeline.run(NEWEST)


@pytest.fixture
def closed(
    pipeline: Pipeline, worlds: Worlds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Pipeline:
    monkeypatch.setenv("METERING_ARCHIVE_AFTER_DAYS", "30")
    monkeypatch.setenv("METERING_ARCHIVE_URL", str(tmp_path / "archive"))
    worlds("closed", lambda: live(pipeline))
    pipeline.set_clock(LATER)
    return pipeline


def archives(pipeline: Pipeline) -> Archives:
    return Archives(pipeline.database, settings.load())


def archive(pipeline: Pipeline) -> None:
    for stage in Stage:
        for day in DAYS:
            archive_day(pipeline.database, archives(pipeline), stage, day, LATER)


def archived(pipeline: Pipeline) -> list[tuple[str, date]]:
    return [(each.stage, each.day) for each in archives(pipeline).in_force()]


CLOCKS = ("recorded_at", "landed_at", "posted_at")
COMPARED = {
    "landing": ("usage_events", "rejected_events"),
    "ledger": ("usage_events", "duplicates", "conflicts", "voids", "withdrawn", "suspects", "pending"),
    "rollups": (
        "usage_contributions", "unique_value_contributions", "unreadable_values", "unmetered_events",
        "arrival_delays", "touched_buckets", "touched_days", "usage_hourly", "unique_values_hourly", "usage_daily",
    ),
    "rating": (
        "touched", "touched_slices", "edge_usage", "period_usage_daily", "carried_usage", "unrated_usage",
        "rated_lines", "tier_slices",
    ),
    "invoices": ("draft_invoices", "draft_invoice_lines", "issued_invoice_lines"),
}  # fmt: skip


def everything(pipeline: Pipeline) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, but for the clock's columns."""
    return {
        f"{schema}.{table}": pipeline.rows(
            f"select (to_jsonb(kept) - %s::text[])::text from {schema}.{table} as kept order by 1",
            list(CLOCKS),
        )
        for schema, tables in COMPARED.items()
        for table in tables
    }


EVENTS = (
    "select *, events::text from ledger.usage_events as events order by occurred_at, fingerprint"
)


def test_days_go_and_come_back_row_for_row(closed: Pipeline) -> None:
    closed.execute("update ledger.usage_events set quantity = 1.000 where correlation_id = 'a10'")
    closed.execute("update landing.usage_events set quantity = 1.000 where correlation_id = 'a10'")
    before, kept = closed.rows(EVENTS), everything(closed)
    archive(closed)
    both = [(stage, day) for day in DAYS for stage in Stage]
    assert archived(closed) == both
    assert [request for (_, _, _, request, *_) in closed.rows(EVENTS)] == ["c"]
    root = Path(settings.load().archive_root) / "ledger" / "usage_events"
    assert sorted(pq.read_table(each).num_rows for each in root.iterdir()) == [15, 22]
    archives(closed).attach([DAYS[1]], LATER, Stage.LANDING)
    assert archived(closed) == both[:1], "what landed on it occurred on both days"
    archives(closed).attach([DAYS[0]], LATER)
    assert (closed.rows(EVENTS), everything(closed)) == (before, kept)
    assert [path for path in Path(settings.load().archive_root).rglob("*") if path.is_file()] == []
    privileges = "select has_table_privilege(%s, 'ledger.usage_events_20260131', 'insert')"
    for role in ("metering_landing", "metering_transform", "metering_erase"):
        assert closed.rows(privileges, role) == [(False,)], role


# The same as if it had never been archived


def late_records(pipeline: Pipeline) -> None:
    """A copy, a new event in a cut hour, a conflict and a void, all long after the lookback."""
    late = [OLD[4], event("late", "2026-01-31T18:20:00Z", 70), OLD[5] | {"properties": {"value": 9}}, OLD[6] | {"void": True}]  # fmt: skip
    pipeline.drop(LATER - 2 * HOUR, "late.ndjson", late)
    pipeline.run(LATER - 2 * HOUR)
    pipeline.run_job("late_arrivals")
    pipeline.run(LATER - 2 * HOUR)


def old_file(pipeline: Pipeline) -> None:
    """A file of an archived day comes anew: one event is gone, another one says something else."""
    pipeline.drop(LANDED, "a.ndjson", [*OLD[:4], *OLD[5:], event("more", "2026-01-31T18:14:00Z", 80)])  # fmt: skip
    pipeline.run(LANDED)


def new_metric(pipeline: Pipeline) -> None:
    """A metric that nobody thought of reads an event type's whole history."""
    rows = published(pipeline, "metrics")
    (calls,) = (row for row in rows if row["metric"] == "calls")
    rows.append(calls | {"metric": "peak", "aggregation": "max", "value_property": "value"})
    pipeline.publish_catalog(metrics=rows)
    pipeline.run(NEWEST)


def corrected_price(pipeline: Pipeline) -> None:
    """The price of a percentile is corrected in a period that cuts hours of archived days."""
    tables = {name: published(pipeline, name) for name in ("charges", "charge_tiers")}
    for rows in tables.values():
        (former,) = (row for row in rows if row["charge_id"] == "slow")
        rows.append(former | {"version": "2"} | ({"effective_from": "2026-03-20"} if "effective_from" in former else {}) | ({"unit_amount": "3"} if "unit_amount" in former else {}))  # fmt: skip
    correction = {
        "correction_id": "c1", "subscription_id": "sub-ktm", "charge_id": "slow",
        "period_start": "2026-01-31T18:15:00Z", "version": "2", "recorded_by": "finance", "reason": "A slip.",
        "recorded_at": "2026-03-20T00:00:00Z",
    }  # fmt: skip
    pipeline.publish_catalog(**tables, corrections=[correction])
    pipeline.run(NEWEST)


CHANGES = {
    late_records: "ledger.usage_events",
    old_file: "ledger.withdrawn",
    new_metric: "rollups.usage_contributions",
    corrected_price: "invoices.draft_invoice_lines",
}
"""What happens to archived days, and a table that shows that it did."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_happens_then_is_as_if_nothing_were_archived(
    closed: Pipeline, worlds: Worlds, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    monkeypatch.setattr("metering_pipeline.transform.dbt.run_dbt", as_a_run_does)
    untouched = everything(closed)
    archive(closed)
    change(closed)
    assert ("ledger", DAYS[0]) not in archived(closed), "it was needed, and came by itself"
    assert_well(closed)
    archives(closed).attach([day for _, day in archived(closed)], LATER)
    changed = everything(closed)
    assert changed[CHANGES[change]] != untouched[CHANGES[change]]
    shutil.rmtree(closed.root)
    worlds("closed", lambda: None)
    closed.set_clock(LATER)
    change(closed)
    expected = everything(closed)
    assert {table for table in expected if changed[table] != expected[table]} == set()


OWED = {
    "contributions": "insert into ledger.pending values ('2026-02-01T05:00Z', 'ktm', 'calls', '2026-02-01T03:00Z', true)",
    "hourly usage": "insert into rollups.touched_buckets values ('ktm', 'calls', '2026-01-31T18:00Z', '{}')",
    "parts of hours": "insert into rating.touched values ('ktm', 'calls', '2026-01-31')",
    "single values": "insert into rating.touched_slices values ('sub-unbilled', 'slow', 'usage', '2026-01-31T18:15Z')",
    "each event": "insert into rating.touched_slices values ('sub-unbilled', 'paid', 'usage', '2026-01-31T18:15Z')",
}  # fmt: skip
"""Work that a queue names, of archived days."""


@pytest.mark.parametrize("what", OWED)
def test_what_a_queue_names_of_archived_days_is_done_on_them(closed: Pipeline, what: str) -> None:
    kept = everything(closed)
    archive(closed)
    assert closed.execute(OWED[what]) == 1
    closed.run(NEWEST)
    assert len(archived(closed)) < 4
    archives(closed).attach([day for _, day in archived(closed)], LATER)
    assert {table for table, rows in everything(closed).items() if rows != kept[table]} == set()


def test_rollups_of_archived_days_cannot_be_rebuilt(
    closed: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(closed)
    monkeypatch.setattr("metering_pipeline.transform.rebuild.half_archived", lambda database: {})
    with pytest.raises(PostingError, match="metering archive attach --stage ledger 2026-01-31 2026-02-01"):  # fmt: skip
        rebuild_rollups(closed.database, LANDED, NEXT + HOUR, keep=True)


def as_a_run_does(database: Database, command: str, models: Sequence[str]) -> list[NodeResult]:
    return run_models(database, models, command=command)


def assert_well(pipeline: Pipeline) -> None:
    """Every law holds for all that is kept."""
    with pipeline.database.connect(autocommit=True) as connection:
        for law in LAWS:
            red = [
                each for each in evaluate(connection, law, START, LATER, LATER) if not each.passed
            ]
            assert red == []


# What is kept is proved


def test_what_is_kept_is_proved_and_the_rest_is_left_out(closed: Pipeline) -> None:
    kept = everything(closed)
    assert ledger_figures(closed.database, Window(NEXT, NEXT + HOUR), LATER)[1] != {}
    archive(closed)
    closed.run_job("nightly")
    assert_well(closed)
    assert closed.rows("select count(*) from reconciliation.current_law_results where not passed") == [(0,)]  # fmt: skip
    compared = rebuild_ledger(closed.database, None, None, LATER)
    assert (compared.days, compared.archived_days, compared.differing) == (1, 2, 0)
    assert rebuild_ledger(closed.database, LANDED, LANDED + HOUR, LATER).archived_days == 1
    rebuilt = rebuild_rollups(closed.database, None, None, keep=True)
    assert rebuilt is not None
    assert (rebuilt.archived_days, rebuilt.changes.differing) == (2, 0)
    closed.run_job("weekly")
    assert closed.rows("select distinct day from reconciliation.rebuilt_days") == [(NEWEST.date(),)]
    closed.run(LANDED)
    closed.run(NEXT)
    closed.run(NEWEST)
    assert len(archived(closed)) == 4, "nothing of it was needed"
    window = Window(NEXT, NEXT + HOUR)
    (owners,) = run_dbt(
        closed.database, "build --resource-type test", ["assert_every_copy_has_its_owner"], window
    )
    assert owners.status == "pass"
    assert ledger_figures(closed.database, window, LATER)[1] == {}
    status = CliRunner().invoke(cli, ["status"]).output
    for stage in Stage:
        assert f"Not proved again: 2 days of {stage}" in status
    gone = ("landing.usage_events", "ledger.usage_events")
    assert {table for table, rows in everything(closed).items() if rows != kept[table]} == {*gone}


# Nobody takes what is archived for nothing


READ = {
    "usage of cut hours": "select * from rollups.usage_between('ktm', 'calls', '2026-01-31T18:20Z', '2026-02-01T00:00Z')",
    "single values": "select * from rollups.unique_values_in_ledger('ktm', 'slow', '2026-01-31T18:20Z', '2026-01-31T18:21Z')",
    "events of a line": "select * from reconciliation.hour_events('ktm', 'calls', '2026-01-31T18:00Z', '2026-01-31T19:00Z', '{}', 5)",
    "an event": "select * from reconciliation.event_copies('ktm', 'a10', '2026-01-31T00:00Z', '2026-02-01T00:00Z')",
    "the ledger against hours": "select * from reconciliation.ledger_to_hourly('2026-01-31T18:00Z', '2026-01-31T19:00Z')",
    "a landing hour": "select * from reconciliation.rollup_differences('2026-01-31T19:00Z')",
    "what files changed": "select * from reconciliation.usage_changes('ktm', 'calls', '2026-01-31T18:00Z', '2026-01-31T19:00Z', '2026-01-31T00:00Z', '2026-01-31T00:00Z')",
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_who_reads_an_archived_day_is_told_to_attach_it(closed: Pipeline, what: str) -> None:
    closed.rows(READ[what])
    archive(closed)
    with pytest.raises(ArchivedError, match="metering archive attach --stage ledger 2026-01-31"):
        closed.rows(READ[what])
    archives(closed).attach([DAYS[0]], LATER, Stage.LEDGER)
    closed.rows(READ[what])


def test_what_needs_no_event_is_read_as_ever(closed: Pipeline) -> None:
    read = {
        "hours": "select * from rollups.usage_between('ktm', 'calls', '2026-01-31T18:00Z', '2026-02-01T05:00Z')",
        "realtime": "select * from rollups.usage_realtime order by metric, hour",
        "landing": "select * from reconciliation.landing_to_ledger where state <> 'identical'",
        "copies": "select * from reconciliation.copies_to_ledger where state <> 'identical'",
        "contributions": "select * from reconciliation.ledger_to_rollups where state <> 'identical'",
    }
    before = {what: closed.rows(query) for what, query in read.items()}
    archive(closed)
    assert {what: closed.rows(query) for what, query in read.items()} == before


@pytest.mark.parametrize("days", [DAYS[:1], DAYS[1:], DAYS], ids=["first", "second", "both"])
def test_a_suspect_of_an_archived_day_stays_listed(closed: Pipeline, days: list[date]) -> None:
    listed = "select * from ledger.suspects"
    before = closed.rows(listed)
    assert [request for _, _, request, *_ in before] == [AGAIN["correlation_id"]]
    for day in DAYS:
        archive_day(closed.database, archives(closed), Stage.LANDING, day, LATER)
    for day in days:
        archive_day(closed.database, archives(closed), Stage.LEDGER, day, LATER)
    run_dbt(closed.database, "run", ["suspects"])
    assert closed.rows(listed) == before
    closed.drop(NEWEST, "c.ndjson", [event("c", "2026-03-10T10:05:00Z"), OLD[0] | {"void": True}])
    closed.run(NEWEST)
    assert ("ledger", DAYS[0]) not in archived(closed)
    run_dbt(closed.database, "run", ["suspects"])
    assert closed.rows(listed) == []


def test_explain_says_which_day_to_attach(closed: Pipeline) -> None:
    archive(closed)
    asked = CliRunner().invoke(cli, ["explain", "US-000002", "1"])
    assert "metering archive attach --stage ledger" in str(asked.exception) + asked.output


# What must stay stays


STAYS = {
    "landed on 2026-01-31, which is not archived": "update catalog.archives set attached_at = now() where day = '2026-01-31'",
    "landed on 2026-02-01, which is not archived": "update catalog.archives set attached_at = now() where day = '2026-02-01'",
    "have landed and are not posted": """
        with waiting as (update landing.hours set posted_at = null where landed_hour = '2026-03-10T10:00Z')
        update landing.usage_events set occurred_at = '2026-01-31T01:00Z' where landed_hour = '2026-03-10T10:00Z'
    """,
    "the rollups owe": "insert into ledger.pending values ('2026-01-31T19:00Z', 'ktm', 'calls', '2026-03-10T10:00Z')",
    "owe usage of it": "insert into ledger.pending values ('2026-03-10T10:00Z', 'ktm', 'calls', '2026-01-31T19:00Z')",
    "to be rated": "insert into rating.touched values ('ktm', 'calls', '2026-01-31')",
    "is not over, with its grace": "update catalog.settings set value = '960' where name = 'grace_hours'",
    "a draft that is not issued": "update invoices.draft_invoice_lines set slice_start = '2026-01-31T18:15Z' where charge_id = 'calls'",
    "METERING_LOOKBACK_HOURS": "update landing.files set superseded_by = file_id where landed_hour = '2026-03-10T10:00Z'",
    "L4 in its month": """
        insert into reconciliation.law_results (
            evaluation_id, law, window_start, window_end, tenant_id, passed, figures, evaluated_at
        )
        select nextval('reconciliation.evaluation_ids'), law, window_start, window_end, null, false, figures, evaluated_at
        from reconciliation.current_law_results
        where law = 'L4' and window_start = '2026-01-01T00:00Z' and tenant_id is null
    """,
    "not older than METERING_ARCHIVE_AFTER_DAYS": "update catalog.settings set value = '60' where name = 'archive_after_days'",
}  # fmt: skip


@pytest.mark.parametrize("why", STAYS)
def test_a_day_that_is_needed_stays(closed: Pipeline, why: str) -> None:
    for day in DAYS:
        archive_day(closed.database, archives(closed), Stage.LANDING, day, LATER)
    before = closed.rows(EVENTS)
    assert archives(closed).why_ledger_stays(DAYS[0], LATER) is None
    assert closed.execute(STAYS[why]) == 1
    with pytest.raises(ArchiveError, match=f"Ledger of 2026-01-31 was not archived: .*{why}"):
        archive_day(closed.database, archives(closed), Stage.LEDGER, DAYS[0], LATER)
    assert closed.rows(EVENTS) == before
    assert [path for path in Path(settings.load().archive_root).rglob("2026-*") if path.parts[-3] == "ledger"] == []  # fmt: skip


def test_landing_does_not_come_back_without_its_ledger(closed: Pipeline) -> None:
    archive(closed)
    with closed.database.connect() as connection:
        connection.execute("select catalog.open_archived_day('landing', '2026-01-31')")
        with pytest.raises(ArchivedError, match="--stage ledger 2026-01-31"):
            connection.execute("select catalog.attach_archived_day('landing', '2026-01-31', now())")


def test_a_dry_run_asks_for_the_day(closed: Pipeline) -> None:
    archive(closed)
    closed.drop(LATER - 2 * HOUR, "late.ndjson", [OLD[4]])
    window = Window(LATER - 2 * HOUR, LATER - HOUR)
    with pytest.raises(PostingError, match="metering archive attach --stage ledger 2026-01-31"):
        dry_run(closed.database, settings.load(), window)


def test_erasing_reaches_the_ledgers_archives(closed: Pipeline) -> None:
    archive(closed)
    assert len(files(closed)) == 2 * len(DAYS)
    done = erase(closed.database, settings.load(), "ktm", ["a20"], "dpo", "asked")
    assert done.attached == DAYS, "further copies landed on the second day"
    assert done.figures["ledger.usage_events"] == 1
    assert archived(closed) == []
    assert files(closed) == [], "no file keeps what was erased"


# Cut off, and side by side


def ask(connection: psycopg.Connection) -> None:
    connection.execute("select ledger.require_span('2026-01-31T00:00Z', '2026-02-01T00:00Z')")


@pytest.mark.parametrize("keep", [ask, keep_days])
def test_who_asks_for_a_day_keeps_it_to_the_end(
    closed: Pipeline, keep: Callable[[psycopg.Connection], None]
) -> None:
    for day in DAYS:
        archive_day(closed.database, archives(closed), Stage.LANDING, day, LATER)
    with closed.database.connect() as reader:
        keep(reader)
        thread, failed = in_thread(
            lambda: archive_day(closed.database, archives(closed), Stage.LEDGER, DAYS[0], LATER)
        )
        waiting(closed, "catalog.archive_day")
        asked = "select count(*) from ledger.usage_events where occurred_at < '2026-02-01T00:00Z'"
        assert reader.execute(asked).fetchall() == [(22,)]
        reader.rollback()
        thread.join(30)
    assert failed == []
    assert ("ledger", DAYS[0]) in archived(closed)


def test_landing_that_comes_back_meanwhile_keeps_its_ledger(closed: Pipeline) -> None:
    for day in DAYS:
        archive_day(closed.database, archives(closed), Stage.LANDING, day, LATER)
    with closed.database.connect() as attaching:
        attaching.execute("select catalog.open_archived_day('landing', '2026-01-31')")
        thread, failed = in_thread(
            lambda: archive_day(closed.database, archives(closed), Stage.LEDGER, DAYS[0], LATER)
        )
        waiting(closed, "catalog.archive_day")
        attaching.execute(
            "update catalog.archives set attached_at = now() where day = '2026-01-31'"
        )
        attaching.commit()
        thread.join(30)
    assert "landed on 2026-01-31, which is not archived" in str(failed)


def test_a_killed_archiving_leaves_the_day_where_it_was(closed: Pipeline) -> None:
    for day in DAYS:
        archive_day(closed.database, archives(closed), Stage.LANDING, day, LATER)
    before = closed.rows(EVENTS)
    with closed.database.connect() as reader:
        reader.execute("select 1 from ledger.usage_events limit 1")
        thread, failed = in_thread(
            lambda: archive_day(closed.database, archives(closed), Stage.LEDGER, DAYS[0], LATER)
        )
        kill(closed, "catalog.archive_day")
        thread.join(30)
    assert len(failed) == 1
    assert closed.rows(EVENTS) == before
    archive_day(closed.database, archives(closed), Stage.LEDGER, DAYS[0], LATER)
    assert ("ledger", DAYS[0]) in archived(closed)


def test_a_killed_attaching_leaves_the_day_archived(closed: Pipeline) -> None:
    before = closed.rows(EVENTS)
    archive(closed)
    with closed.database.connect() as blocker:
        blocker.execute("lock table ledger.usage_events in share update exclusive mode")
        thread, failed = in_thread(lambda: archives(closed).attach([DAYS[0]], LATER, Stage.LEDGER))
        kill(closed, "catalog.attach_archived_day")
        thread.join(30)
    assert len(failed) == 1
    assert ("ledger", DAYS[0]) in archived(closed)
    half_done = "select to_regclass('ledger.usage_events_20260131') is not null"
    assert closed.rows(half_done) == [(False,)], "no rows lie where erasing would not look"
    for day in DAYS:
        archives(closed).attach([day], LATER, Stage.LEDGER)
    assert closed.rows(EVENTS) == before
