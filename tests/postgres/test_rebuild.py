"""The ledger built anew from landing names every row that was tampered with, and mends it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result

from metering_pipeline.cli import cli
from metering_pipeline.partitions import Window
from metering_pipeline.reconciliation.rebuild import Comparison, RebuildError, rebuild_ledger
from metering_pipeline.reconciliation.statements import statement
from metering_pipeline.transform.dbt import run_dbt
from metering_pipeline.transform.rebuild import rebuild_rollups
from tests.postgres.billing_world import World, at, use

NOW = datetime(2026, 2, 4, tzinfo=UTC)
OTHER = "landed_hour, file_id, line_number + 1000, recorded_at"
TAMPERING = {
    # table: one row deleted, one doubled as another line, one altered; by correlation id and columns
    "usage_events": (
        "delete from ledger.usage_events where correlation_id = 'acme-1'",
        f"""insert into ledger.usage_events select tenant_id, event_type, occurred_at, correlation_id,
            md5('x')::uuid, payload_hash, quantity, properties, {OTHER}
        from ledger.usage_events where correlation_id = 'birch-3'""",
        "update ledger.usage_events set quantity = 7, tenant_id = 'acme' where correlation_id = 'birch-4'",
    ),
    "duplicates": (
        "delete from ledger.duplicates where kind = 'void'",
        f"""insert into ledger.duplicates select kind, tenant_id, event_type, occurred_at, correlation_id,
            fingerprint, payload_hash, quantity, properties, {OTHER}
        from ledger.duplicates where correlation_id = 'acme-1'""",
        "update ledger.duplicates set properties = '{}' where correlation_id = 'acme-1' and line_number < 999",
    ),
    "conflicts": (
        "delete from ledger.conflicts where correlation_id = 'acme-2'",
        f"""insert into ledger.conflicts select tenant_id, event_type, occurred_at, correlation_id,
            fingerprint, payload_hash, quantity, properties, {OTHER}
        from ledger.conflicts where correlation_id = 'delta-1'""",
        """update ledger.conflicts set landed_hour = landed_hour + interval '1 hour'
        where correlation_id = 'delta-1' and line_number < 999""",
    ),
    "voids": (
        "delete from ledger.voids where correlation_id = 'acme-3'",
        f"""insert into ledger.voids select tenant_id, event_type, occurred_at, correlation_id,
            fingerprint, payload_hash, quantity, properties, {OTHER}
        from ledger.usage_events where correlation_id = 'acme-4'""",
        "update ledger.voids set landed_hour = '2026-01-14Z' where correlation_id = 'cobalt-4'",
    ),
    "withdrawn": (
        "delete from ledger.withdrawn where correlation_id = 'delta-3'",
        f"""insert into ledger.withdrawn select 'other.ndjson', kind, tenant_id, event_type, occurred_at,
            correlation_id, fingerprint, payload_hash, quantity, properties, {OTHER}
        from ledger.withdrawn where correlation_id = 'delta-4'""",
        """update ledger.withdrawn set line_number = 1
        where correlation_id = 'delta-4' and file_key = 'd.ndjson'""",
    ),
}  # fmt: skip


@pytest.fixture
def posted(whole_world: World) -> World:
    """January, with no landed hour that waits to be posted."""
    whole_world.execute("update landing.hours set posted_at = landed_at where posted_at is null")
    return whole_world


@pytest.fixture
def re_landed(posted: World) -> World:
    """And a file that has come a second time with less in it."""
    world = posted
    hour = "2026-01-15T10:00"
    first = world.land(hour, "d.ndjson", [
        use("delta", "2026-01-15T09:01", 1), use("delta", "2026-01-15T09:02", 2),
        use("delta", "2026-01-15T09:03", 3), use("delta", "2026-01-15T09:04", 4),
        use("delta", "2026-01-15T09:03", 3),
    ])  # fmt: skip
    world.execute("update landing.files set superseded_by = file_id where file_id = %s", first)
    second = world.land(hour, "d.ndjson", [
        use("delta", "2026-01-15T09:02", 2), use("delta", "2026-01-15T09:01", 1),
        use("delta", "2026-01-15T09:01", 1, quantity="2"),
    ])  # fmt: skip
    world.execute("update landing.files set superseded_by = %s where file_id = %s", second, first)
    follow(world, hour, "2026-01-15T11:00")
    return world


def follow(world: World, first: str, end: str) -> None:
    """Post landing hours, and roll up what the ledger has changed."""
    models = ["metering.ledger.usage_events", "usage_contributions", "usage_hourly", "usage_daily"]
    run_dbt(world.database, "run", models, Window(at(first), at(end)))


def rebuilt(world: World, **options: Any) -> Comparison:
    options = {"start": None, "end": None, "now": NOW, "samples": 50, **options}
    return rebuild_ledger(world.database, **options)


def differing(comparison: Comparison) -> set[tuple[str, str, str, tuple[str, ...]]]:
    return {
        (each.table, each.difference, each.correlation_id, tuple(each.differing_columns))
        for each in comparison.samples
    }


def contents(world: World, schema: str, *tables: str) -> dict[str, set[str]]:
    """The rows of tables, without the clock."""
    return {
        table: {
            row
            for (row,) in world.rows(
                f"select (to_jsonb(rows) - 'recorded_at')::text from {schema}.{table} as rows"
            )
        }
        for table in tables
    }


NOTHING_LANDED = ("2026-01-16T00:00", "2026-01-16T01:00")
LEDGER = ("usage_events", "duplicates", "conflicts", "voids", "withdrawn")
ROLLUPS = ("usage_contributions", "usage_hourly", "usage_daily")


def test_every_tampering_is_named_and_mended(re_landed: World) -> None:
    world = re_landed
    before = contents(world, "ledger", *LEDGER) | contents(world, "rollups", *ROLLUPS)
    clean = rebuilt(world)
    assert differing(clean) == set()
    assert {each.table: each.rebuilt for each in clean.tables} == {
        table: len(before[table]) for table in LEDGER
    }
    assert all(before[table] for table in LEDGER)

    for tampering in TAMPERING.values():
        for each in tampering:
            world.tamper(each)
    # the rollups follow the tampered ledger, as any run would make them
    world.execute(
        """insert into ledger.pending
        select distinct landed_hour, tenant_id, event_type, hour from rollups.usage_contributions"""
    )
    follow(world, *NOTHING_LANDED)
    assert contents(world, "rollups", "usage_hourly")["usage_hourly"] != before["usage_hourly"]

    expected = {
        ("usage_events", "missing", "acme-1", ()),
        ("usage_events", "extra", "birch-3", ()),
        ("usage_events", "modified", "birch-4", ("tenant_id", "quantity")),
        ("duplicates", "missing", "cobalt-4", ()),
        ("duplicates", "extra", "acme-1", ()),
        ("duplicates", "modified", "acme-1", ("properties",)),
        ("conflicts", "missing", "acme-2", ()),
        ("conflicts", "extra", "delta-1", ()),
        ("conflicts", "modified", "delta-1", ("landed_hour",)),
        ("voids", "missing", "acme-3", ()),
        ("voids", "extra", "acme-4", ()),
        ("voids", "modified", "cobalt-4", ("landed_hour",)),
        ("withdrawn", "missing", "delta-3", ()),
        ("withdrawn", "extra", "delta-4", ()),
        ("withdrawn", "modified", "delta-4", ("line_number",)),
    }
    tampered = contents(world, "ledger", *LEDGER)
    found = rebuilt(world)
    assert differing(found) == expected
    assert found.repair is None
    assert contents(world, "ledger", *LEDGER) == tampered

    mended = rebuilt(world, repair=True)
    assert differing(mended) == expected
    assert mended.repair is not None
    assert (mended.repair.deleted, mended.repair.inserted) == (10, 10)
    assert mended.repair.pending == world.row("select count(*) from ledger.pending")[0]
    assert differing(rebuilt(world)) == set()

    follow(world, *NOTHING_LANDED)
    assert contents(world, "ledger", *LEDGER) | contents(world, "rollups", *ROLLUPS) == before
    assert world.row("select to_regnamespace('ledger_rebuilt')") == (None,)


def test_a_range_takes_whole_days_and_what_is_posted(re_landed: World) -> None:
    """Landed on the 14th: usage of the 12th and the 13th. A copy that landed elsewhere is compared with it."""
    world = re_landed
    for table in ("usage_events", "withdrawn"):
        for each in TAMPERING[table]:
            world.tamper(each)
    the_12th = differing(rebuilt(world, start=at("2026-01-14T00:00"), end=at("2026-01-14T01:00")))
    assert {(table, correlation_id) for table, _, correlation_id, _ in the_12th} == {
        ("usage_events", "acme-1"), ("usage_events", "birch-3"), ("usage_events", "birch-4"),
    }  # fmt: skip
    the_15th = differing(rebuilt(world, start=at("2026-01-15T10:00"), end=at("2026-01-15T11:00")))
    assert {table for table, *_ in the_15th} == {"withdrawn"}
    nothing = rebuilt(world, start=at("2026-01-16T10:00"), end=at("2026-01-16T11:00"))
    assert (nothing.days, nothing.differing) == (0, 0)


def test_what_is_landed_but_not_posted_is_left_out(posted: World) -> None:
    world = posted
    hour = at("2026-01-12T09:00")
    world.land("2026-01-12T09:00", "early.ndjson", [
        use("acme", "2026-01-12T10:05", 1), use("acme", "2026-01-12T08:00", 6),
    ])  # fmt: skip
    world.execute("update landing.hours set posted_at = null where landed_hour = %s", hour)
    world.tamper("delete from ledger.usage_events where correlation_id = 'birch-3'")
    found = rebuilt(world)
    assert differing(found) == {("usage_events", "missing", "birch-3", ())}
    assert (found.waiting_hours, found.left_out) == (1, 2)
    world.execute("update landing.hours set posted_at = landed_at where landed_hour = %s", hour)
    assert {each[1:3] for each in differing(rebuilt(world))} == {
        ("modified", "acme-1"), ("missing", "acme-1"), ("missing", "acme-6"), ("missing", "birch-3"),
    }  # fmt: skip


def test_a_repair_that_would_collide_changes_nothing(posted: World) -> None:
    """The row in the way has both its hour and its time falsified: the range does not reach it."""
    world = posted
    world.tamper(
        """update ledger.duplicates set landed_hour = '2026-02-01Z', occurred_at = '2026-02-01Z'
        where correlation_id = 'acme-1'"""
    )
    before = contents(world, "ledger", *LEDGER, "pending")
    with pytest.raises(RebuildError, match="stands in the way"):
        rebuilt(world, start=at("2026-01-12T10:00"), end=at("2026-01-12T11:00"), repair=True)
    assert contents(world, "ledger", *LEDGER, "pending") == before
    assert rebuilt(world, repair=True).repair is not None
    assert rebuilt(world).differing == 0


def test_one_rebuild_at_a_time(posted: World) -> None:
    with posted.connection.transaction():
        posted.rows(statement("metering_pipeline.reconciliation", "rebuild_lock").decode())
        with pytest.raises(RebuildError, match="Another rebuild is running"):
            rebuilt(posted)


def test_the_command_says_what_differs(posted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_DATABASE_URL", posted.database.url)

    def command(*options: str) -> Result:
        return CliRunner().invoke(cli, ["rebuild", "--stage", "ledger", *options])

    assert command().exit_code == 0
    posted.tamper(
        "update ledger.usage_events set properties = '{}' where correlation_id = 'birch-4'"
    )
    found = command("--from", "2026-01-12T10", "--to", "2026-01-12T11")
    assert found.exit_code == 1
    assert "b.ndjson line 4 differs in properties" in found.output
    assert "birch api.request 2026-01-12T11:31:00Z birch-4" in found.output
    mended = command("--repair")
    assert mended.exit_code == 0
    assert "1 rows taken out, 1 put in; 1 keys written to ledger.pending" in " ".join(
        mended.output.split()
    )
    assert command("--from", "2026-01-12T10").exit_code == 2


ROLLED = (*ROLLUPS, "unreadable_values", "unmetered_events", "arrival_delays")
DAMAGES = [
    # of each table one row deleted, one altered, one invented
    """delete from rollups.usage_contributions where ctid = (
        select min(ctid) from rollups.usage_contributions where tenant_id = 'acme' and landed_hour < '2026-01-15Z'
    )""",
    """update rollups.usage_contributions set event_digest = event_digest + 1 where ctid = (
        select min(ctid) from rollups.usage_contributions where tenant_id = 'birch'
    )""",
    """insert into rollups.usage_contributions
    select landed_hour, 'nobody', metric, hour, dimensions, event_type, 1, 0, 7, null, 7, 7, 7, null, null, 0, 0
    from rollups.usage_contributions where tenant_id = 'cobalt' order by landed_hour limit 1""",
    """delete from rollups.usage_hourly where ctid = (
        select min(ctid) from rollups.usage_hourly where tenant_id = 'acme'
    )""",
    """update rollups.usage_hourly set value_latest = value_latest + 1 where ctid = (
        select min(ctid) from rollups.usage_hourly where tenant_id = 'cobalt'
    )""",
    """insert into rollups.usage_hourly
    select 'nobody', metric, hour, dimensions, 1, 7, null, 7, 7, 7, null, null, 0, 0
    from rollups.usage_hourly where tenant_id = 'delta' order by hour limit 1""",
    """delete from rollups.usage_daily where ctid = (
        select min(ctid) from rollups.usage_daily where tenant_id = 'acme'
    )""",
    """update rollups.usage_daily set value_sum = value_sum + 1 where ctid = (
        select min(ctid) from rollups.usage_daily where tenant_id = 'cobalt'
    )""",
    """insert into rollups.usage_daily
    select 'nobody', metric, day, dimensions, 1, 7, null, 7, 7, 7, null, null, 0, 0
    from rollups.usage_daily where tenant_id = 'delta' order by day limit 1""",
]


def test_damaged_rollups_are_found_and_mended(
    re_landed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_DATABASE_URL", re_landed.database.url)
    world = re_landed
    before = contents(world, "rollups", *ROLLED)
    assert all(before[table] for table in ROLLUPS)
    assert rollups_rebuilt(world, keep=True) == dict.fromkeys(ROLLUPS, (0, 0, 0))
    assert contents(world, "rollups", *ROLLED) == before

    for damage in DAMAGES:
        world.tamper(damage)
    damaged = contents(world, "rollups", *ROLLED)
    expected = {
        "usage_contributions": (1, 1, 1),
        "usage_hourly": (1, 1, 1),
        "usage_daily": (1, 1, 1),
    }
    assert rollups_rebuilt(world, keep=False) == expected
    assert contents(world, "rollups", *ROLLED) == damaged
    assert world.rows("select * from ledger.pending") == []
    elsewhere = rebuild_rollups(
        world.database, at("2026-01-16T10:00"), at("2026-01-16T11:00"), keep=True
    )
    assert elsewhere is not None
    assert elsewhere.changes.differing == 0

    found = CliRunner().invoke(cli, ["rebuild", "--stage", "rollups", "--dry-run"])
    assert (found.exit_code, "are not what the ledger says" in found.output) == (1, True)
    assert contents(world, "rollups", *ROLLED) == damaged
    mended = CliRunner().invoke(cli, ["rebuild", "--stage", "rollups"])
    assert (mended.exit_code, "Mended." in mended.output) == (0, True)
    assert contents(world, "rollups", *ROLLED) == before
    assert rollups_rebuilt(world, keep=False) == dict.fromkeys(ROLLUPS, (0, 0, 0))

    # a landing hour without any contribution left is not one that was never rolled up: nothing is added twice
    world.execute(
        """delete from rollups.usage_contributions where landed_hour = (
            select min(landed_hour) from rollups.usage_contributions
        )"""
    )
    rollups_rebuilt(world, keep=True)
    assert contents(world, "rollups", *ROLLED) == before


def test_what_the_rollups_owe_is_no_fault(re_landed: World) -> None:
    """A late arrival of the range is rolled up with it."""
    world = re_landed
    world.land("2026-01-20T10:00", "late.ndjson", [use("acme", "2026-01-12T10:06", 6)])
    run_dbt(
        world.database, "run", ["metering.ledger.usage_events"],
        Window(at("2026-01-20T10:00"), at("2026-01-20T11:00")),
    )  # fmt: skip
    before = contents(world, "rollups", *ROLLED)
    for keep in (False, True):
        rebuilt = rebuild_rollups(world.database, None, None, keep=keep)
        assert rebuilt is not None
        assert (rebuilt.owed, rebuilt.changes.differing) == (1, 0)
        assert (contents(world, "rollups", *ROLLED) == before) is not keep
    assert world.rows("select * from ledger.pending") == []


@pytest.mark.parametrize("options", [["rollups", "--repair"], ["ledger", "--dry-run"]])
def test_an_option_of_the_other_stage_is_refused(options: list[str]) -> None:
    refused = CliRunner().invoke(cli, ["rebuild", "--stage", *options])
    assert refused.exit_code == 2
    assert "changes nothing" in refused.output or "only shows it" in refused.output


def rollups_rebuilt(world: World, keep: bool) -> dict[str, tuple[int, int, int]]:
    """New, changed and vanished rows by table."""
    rebuilt = rebuild_rollups(world.database, None, None, keep=keep)
    assert rebuilt is not None
    return {each.table: (each.new, each.changed, each.vanished) for each in rebuilt.changes.tables}
