"""Status and checks show what came in beside the events that count, and lead to file and line."""

import dagster as dg
import pytest
from rich.console import Console

from metering_pipeline import status
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.checks import finding_result
from metering_pipeline.reconciliation.findings import (
    ALWAYS,
    CONFLICTS,
    DUPLICATES,
    FINDINGS,
    REJECTED,
    Finding,
    Hours,
)
from metering_pipeline.reconciliation.proof import prove
from tests.postgres.billing_world import World, at


def printed(world: World) -> str:
    console = Console(width=80, record=True)
    status.print_status(console, world.connection)
    return console.export_text()


@pytest.fixture
def noticed(world: World) -> World:
    """January with one of each finding; what is news lies in the hours shown, unless it is older."""
    world.execute("update landing.hours set posted_at = landed_at, file_count = 1")
    world.execute(
        "update landing.hours set posted_at = null where landed_hour = '2026-01-03 04:00Z'"
    )
    world.execute("delete from landing.hours where landed_hour > '2026-01-14Z'")
    world.execute(
        "update landing.files set missing_since = '2026-01-13 05:00Z' where file_key = 'c.ndjson'"
    )
    columns = "tenant_id, event_type, occurred_at, correlation_id, fingerprint"
    place = "landed_hour, file_id, line_number"
    world.execute(
        f"""insert into ledger.withdrawn
        select 'a.ndjson', 'event', {columns}, payload_hash, quantity, properties, {place}, recorded_at
        from ledger.usage_events where correlation_id = 'birch-3'"""
    )
    world.execute(
        f"""insert into ledger.suspects
        select tenant_id, event_type, correlation_id, occurred_at, fingerprint, '2026-01-12 11:00Z',
            fingerprint, quantity, {place}
        from ledger.usage_events where correlation_id = 'birch-4'"""
    )
    world.execute(
        "insert into catalog.sources values ('gateway', '*', '{}', true, 1, '2026-01-13 22:00Z', null, '')"
    )
    world.execute(
        """insert into reconciliation.waivers (
            landed_hour, source, reason, detail, waived_by, waiver_reason, waived_at
        ) values ('2026-01-13 22:00Z', 'gateway', '', 'no manifest of gateway', 'ana', 'outage', now())"""
    )
    return world


def test_status_leads_from_each_figure_to_file_and_line(noticed: World) -> None:
    shown = printed(noticed)
    for finding in FINDINGS:
        assert finding.name in shown, finding.name
    assert "c.ndjson" in shown  # vanished, and the voids
    assert "not seen since 2026-01-13T05:00:00Z" in shown
    assert "landed_hour=2026-01-03T04" in shown
    assert "not_json" in shown
    assert "by ana (outage): no manifest of gateway" in shown
    assert "2 manifest_absent" in shown
    assert "2 absent, 1 waived" in " ".join(shown.replace("│", " ").split())
    assert "b.ndjson line 10" in shown  # rejected
    assert "acme api.request 2026-01-12T10:06:00Z acme-2" in shown  # the conflict
    assert "tokens" not in shown.split("The laws")[0], "a payload is shown"
    assert max(map(len, shown.splitlines())) <= 120


def test_status_names_the_buckets_that_differ_and_what_mends_them(whole_world: World) -> None:
    for day in ("2026-01-12 11:00Z", "1999-05-05 05:00Z"):
        whole_world.tamper(
            """
            insert into rollups.usage_hourly
            select tenant_id, 'smoke', %s::timestamptz, dimensions, 1, 1, null, 1, 1, 1, latest_at,
                latest_fingerprint, 7, 7
            from rollups.usage_hourly
            where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'
            """,
            day,
        )
    whole_world.tamper(
        """
        delete from rollups.usage_contributions
        where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 09:00Z'
        """
    )
    prove(
        whole_world.database,
        "L3",
        at("2026-01-12"),
        at("2026-01-15"),
        at("2026-03-01"),
        list[str]().append,
    )
    shown = printed(whole_world)
    assert "birch smoke 1999-05-05T05 {}" in shown
    assert (
        "contributions: none; hourly usage: count 1, sum 1, digest 7 (differ in event_count,"
        in shown
    )
    assert "metering rebuild --stage rollups --from 2026-01-12T09 --to 2026-01-12T11" in shown
    assert (
        "To mend 3 that nothing contributed to, if they stay: insert them into rollups.touched_buckets"
        in shown
    )


def test_status_is_silent_where_there_is_nothing(database: Database) -> None:
    with database.connect() as connection:
        console = Console(width=80, record=True)
        assert status.print_status(console, connection)
    assert "What came in" not in console.export_text()


def test_large_tables_are_estimated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owned = world.row("select count(*) from ledger.usage_events")[0]
    monkeypatch.setattr(status, "COUNTED_BYTES", 0)
    world.execute("insert into ledger.duplicates select * from ledger.duplicates where false")
    world.execute("analyze ledger.usage_events")
    assert f"about {owned} events once" in " ".join(printed(world).split())
    (partition,) = world.row(
        "select inhrelid::regclass::text from pg_inherits"
        " where inhparent = 'ledger.usage_events'::regclass limit 1"
    )
    world.execute("update pg_class set reltuples = -1 where oid = %s::regclass", partition)
    assert f"about {owned} events once" in " ".join(printed(world).split())


@pytest.mark.parametrize(
    ("finding", "hours", "expected"),
    [
        (REJECTED, ALWAYS, {"not_json": 1}),
        (REJECTED, Hours(at("2026-01-12T11:00"), at("2026-01-12T12:00")), {"not_json": 1}),
        (REJECTED, Hours(at("2026-01-12T10:00"), at("2026-01-12T11:00")), {}),
        (CONFLICTS, Hours(at("2026-01-12T11:00"), None), {None: 1}),
        (CONFLICTS, Hours(None, at("2026-01-12T11:00")), {}),
        (DUPLICATES, ALWAYS, {"event": 1, "void": 1}),
    ],
)
def test_findings_of_landing_hours(
    world: World, finding: Finding, hours: Hours, expected: dict[str | None, int]
) -> None:
    assert finding.counts(world.connection, hours) == expected
    for reason, count in expected.items():
        assert len(finding.samples(world.connection, hours, reason, 5)) == count


def test_a_check_shows_samples(world: World) -> None:
    samples = CONFLICTS.samples(world.connection, ALWAYS, None, 5)
    result = finding_result({None: 1}, samples, "Ask.")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    table = result.metadata["the newest"]
    assert isinstance(table, dg.TableMetadataValue)
    (record,) = table.records
    assert (record.data["file"], record.data["line"]) == ("b.ndjson", "1")
    assert finding_result({}, [], "Ask.").passed
