"""Tampering with any stage is caught by the law that guards it, and blames the tenant concerned."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from metering_pipeline.reconciliation.laws import LAWS, evaluate, law_state
from tests.postgres.billing_world import World, at, use

TAMPERING = {
    "a ledger row deleted": (
        "delete from ledger.usage_events where correlation_id = %s",
        ("birch-3",),
        {("L2", "birch"), ("L3", "birch")},
    ),
    "a ledger row doubled under another fingerprint": (
        """
        insert into ledger.usage_events
        select tenant_id, event_type, occurred_at, correlation_id, md5(correlation_id)::uuid,
            payload_hash, quantity, properties, landed_hour, file_id, line_number, recorded_at
        from ledger.usage_events where correlation_id = %s
        """,
        ("birch-3",),
        {("L2", "birch"), ("L3", "birch")},
    ),
    "a ledger row's quantity changed": (
        "update ledger.usage_events set quantity = 7 where correlation_id = %s",
        ("cobalt-1",),
        {("L3", "cobalt")},
    ),
    "a ledger row's properties changed": (
        """update ledger.usage_events set properties = '{"model":"small","tokens":"1"}'
        where correlation_id = %s""",
        ("cobalt-1",),
        {("L3", "cobalt")},
    ),
    "a ledger row given to another tenant": (
        "update ledger.usage_events set tenant_id = 'birch' where correlation_id = %s",
        ("acme-1",),
        {("L2", "acme"), ("L2", "birch"), ("L3", "acme"), ("L3", "birch")},
    ),
    "a duplicate without its owner's payload": (
        """update ledger.duplicates set payload_hash = md5('')::uuid
        where kind = 'event' and correlation_id = %s""",
        ("acme-1",),
        {("L3", "acme")},
    ),
    "a void removed": (
        "delete from ledger.voids where correlation_id = %s",
        ("acme-3",),
        {("L2", "acme"), ("L3", "acme")},
    ),
    "a landing row removed": (
        "delete from landing.usage_events where correlation_id = %s",
        ("birch-4",),
        {("L1", "birch"), ("L2", "birch"), ("L3", "birch")},
    ),
    "a contribution edited": (
        """update rollups.usage_contributions set value_sum = value_sum + 1
        where tenant_id = %s and metric = 'tokens' and landed_hour = '2026-01-12 11:00Z'
            and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch")},
    ),
    "a rollup row edited": (
        """update rollups.usage_hourly set event_count = event_count + 1
        where tenant_id = %s and metric = 'requests' and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch"), ("L4", "birch")},
    ),
    "a rollup row without contributions": (
        """insert into rollups.usage_hourly select tenant_id, metric, '2026-01-13 05:00Z', dimensions,
            1, 1, null, 1, 1, 1, latest_at, latest_fingerprint, 1, 1
        from rollups.usage_hourly
        where tenant_id = %s and metric = 'requests' and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch"), ("L4", "birch")},
    ),
    "a rollup row's latest value edited": (
        """update rollups.usage_hourly set value_latest = value_latest + 1
        where tenant_id = %s and metric = 'tokens' and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch")},
    ),
    "the instant of a rollup row's latest value edited": (
        """update rollups.usage_hourly set latest_at = latest_at + interval '1 minute'
        where tenant_id = %s and metric = 'tokens' and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch")},
    ),
    "the event of a rollup row's latest value edited": (
        """update rollups.usage_hourly set latest_fingerprint = md5('other')::uuid
        where tenant_id = %s and metric = 'tokens' and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch")},
    ),
    "a rollup row's greatest value edited": (
        """update rollups.usage_hourly set value_max = value_max + 1
        where tenant_id = %s and metric = 'tokens' and hour = '2026-01-12 11:00Z'""",
        ("birch",),
        {("L3", "birch")},
    ),
    "a slice's amount changed": (
        "update rating.tier_slices set amount = amount + 0.01 where subscription_id = %s"
        " and charge_id = 'basic-requests' and tier = 2",
        ("sub-acme",),
        {("L4", "acme")},
    ),
    "a line rounded away": (
        "update rating.rated_lines set amount = amount + 0.01 where subscription_id = %s"
        " and charge_id = 'basic-tokens' and slice_start = '2026-01-01Z'",
        ("sub-birch",),
        {("L4", "birch")},
    ),
    "a day of a slice's usage lost": (
        "delete from rating.period_usage_daily where subscription_id = %s"
        " and charge_id = 'basic-tokens' and day = '2026-01-13'",
        ("sub-birch",),
        {("L4", "birch")},
    ),
    "usage that cannot be rated lost": (
        "update rating.period_usage_daily set event_digest = event_digest - 1"
        " where subscription_id = %s and charge_id = 'eur-tokens'",
        ("sub-cobalt",),
        {("L4", "cobalt")},
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_caught_and_blames_only_the_tenant(world: World, name: str) -> None:
    statement, parameters, expected = TAMPERING[name]
    world.tamper(statement, *parameters)
    failed = world.check()
    assert failed == expected | {(law, None) for law, _ in expected}


def test_two_errors_that_cancel_out_in_count_and_sum_are_caught(world: World) -> None:
    world.tamper("update ledger.usage_events set quantity = 1.25 where correlation_id = 'birch-3'")
    world.tamper("update ledger.usage_events set quantity = 0.75 where correlation_id = 'birch-4'")
    assert world.check("L2") == set()
    assert ("L3", "birch") in world.check("L3")
    figures = _figures(world, "L3", "birch")["landing_to_ledger"]
    assert Decimal(figures["landed_quantity"]) == Decimal(figures["posted_quantity"])
    assert figures["content_equal"] is False


def test_one_event_lost_and_another_invented_are_caught(world: World) -> None:
    world.tamper(
        """
        update ledger.usage_events set correlation_id = 'birch-99', fingerprint = md5('99')::uuid
        where correlation_id = 'birch-3'
        """
    )
    assert world.check("L2") == set()
    assert world.check("L3") >= {("L3", "birch")}


def test_buckets_that_cancel_out_are_caught(world: World) -> None:
    for sign, hour in ((1, "2026-01-12 09:00Z"), (-1, "2026-01-12 11:00Z")):
        world.tamper(
            """
            update rollups.usage_hourly
            set event_count = event_count + %s, event_digest = event_digest + %s
            where tenant_id = 'birch' and metric = 'tokens' and hour = %s
            """,
            sign, sign, hour,
        )  # fmt: skip
    assert world.check() == {("L3", None), ("L3", "birch")}


def test_a_sum_changed_before_a_queued_slice_is_rated_is_caught(world: World) -> None:
    """The line says nothing while its slice waits, and count and digests are those of the rollups."""
    world.tamper(
        """
        update rating.period_usage_daily set value_sum = value_sum * 1000
        where subscription_id = 'sub-birch' and charge_id = 'basic-tokens' and day = '2026-01-13'
        """
    )
    world.execute(
        """
        insert into rating.touched_slices (subscription_id, charge_id, component, slice_start)
        values ('sub-birch', 'basic-tokens', 'usage', '2026-01-01Z')
        """
    )
    assert world.check() == {("L4", None), ("L4", "birch")}
    (usage,) = _figures(world, "L4", "birch")["usage"]
    assert usage["metric"] == "tokens"
    assert Decimal(usage["assigned_sum"]) - Decimal(usage["rolled_up_sum"]) == 99900


@pytest.mark.parametrize(
    "change",
    ["latest_at = latest_at + interval '1 minute'", "latest_fingerprint = md5('other')::uuid"],
)
def test_a_latest_event_changed_in_contribution_and_rollup_alike_is_caught(
    world: World, change: str
) -> None:
    """Where the latest value is billed, which event it is of decides between landing hours."""
    world.execute("update catalog.metrics set aggregation = 'latest' where metric = 'tokens'")
    assert world.check("L3") == set()
    for table in ("usage_contributions", "usage_hourly"):
        world.tamper(
            f"update rollups.{table} set {change}"
            " where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'"
        )
    assert world.check("L3") == {("L3", None), ("L3", "birch")}


def test_a_value_counts_only_as_a_plain_decimal(whole_world: World) -> None:
    """Both readings of a value agree on what is none, and on the longest that is one."""
    longest = "-" + "9" * 20 + "." + "9" * 18
    texts = ["1e3", "NaN", "+5", " 5", "5.", ".5", "0x1F", "9" * 21, "1." + "0" * 19, longest]
    whole_world.land("2026-01-14T00:00", "d.ndjson", [
        use("birch", "2026-01-13T22:10", 100 + number, properties=f'{{"tokens":"{text}"}}')
        for number, text in enumerate(texts)
    ])  # fmt: skip
    whole_world.run("2026-01-14", "2026-01-15")
    assert whole_world.check() == set()
    sums = whole_world.rows(
        "select event_count, value_sum from rollups.usage_hourly"
        " where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-13 22:00Z'"
    )
    assert sums == [(1, Decimal(longest))]


def test_a_file_whose_loss_nothing_explains_names_no_tenant(world: World) -> None:
    world.tamper("delete from landing.rejected_events")
    assert world.check() == {("L1", None)}
    (result,) = [each for each in world.results("L1") if not each.passed]
    assert result.figures["files_without_known_tenants"] == 1
    assert result.figures["samples"][0]["file_key"] == "b.ndjson"


def test_a_hash_that_sql_computes_otherwise_would_be_caught(world: World) -> None:
    """The stored fingerprint and payload hash are compared with ones computed anew from landing."""
    world.tamper(
        "update ledger.usage_events set payload_hash = md5('other')::uuid where correlation_id = 'birch-3'"
    )
    assert ("L3", "birch") in world.check("L3")


def test_pending_and_touched_keys_are_debts_and_no_faults(world: World) -> None:
    """What a queue names is owed: until it is consumed, the stages may differ there, and only there."""
    world.land("2026-01-15T00:00", "d.ndjson", [])
    world.tamper(
        """
        delete from rollups.usage_contributions where tenant_id = 'birch' and metric = 'tokens'
            and landed_hour = '2026-01-14 00:00Z'
        """
    )
    assert world.check("L3") == {("L3", None), ("L3", "birch")}
    world.execute(
        """
        insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour)
        values ('2026-01-14 00:00Z', 'birch', 'api.request', '2026-01-13 23:00Z')
        """
    )
    assert world.check("L3") == {("L3", None), ("L3", "birch")}
    world.execute(
        """
        insert into rollups.touched_buckets
        values ('birch', 'tokens', '2026-01-13 23:00Z', '{}')
        """
    )
    assert world.check("L3") == set()


def test_a_superseded_version_is_withdrawn(whole_world: World) -> None:
    """A new version of a file without one of its events: the laws fail until it is posted."""
    old = whole_world.row("select file_id from landing.files where file_key = 'c.ndjson'")[0]
    whole_world.execute("update landing.files set superseded_by = file_id where file_id = %s", old)
    new = whole_world.land("2026-01-14T00:00", "c.ndjson", [])
    whole_world.execute("update landing.files set superseded_by = %s where file_id = %s", new, old)
    assert whole_world.check("L1") == set()
    assert {tenant for _, tenant in whole_world.check("L2")} == {None, "acme", "birch"}
    whole_world.run("2026-01-14", "2026-01-15")
    assert whole_world.check() == set()


def test_a_red_window_turns_green_by_an_evaluation_only(world: World) -> None:
    world.tamper("update ledger.usage_events set quantity = 2 where correlation_id = 'birch-3'")
    world.check()
    world.tamper("update ledger.usage_events set quantity = 1 where correlation_id = 'birch-3'")
    states = {each.law: each for each in law_state(world.connection)}
    assert list(states) == list(LAWS)
    assert (states["L3"].windows, states["L3"].red_windows) == (3, 1)
    assert states["L3"].red_tenants == ["birch"]
    assert states["L3"].sample_window_start == at("2026-01-12T11:00")
    assert states["L2"].red_windows == 0
    hour = at("2026-01-12T10:00")
    evaluate(world.connection, "L3", hour, hour + timedelta(hours=1), at("2026-03-01"))
    assert law_state(world.connection)[2].red_windows == 1
    evaluate(world.connection, "L3", hour, hour + timedelta(hours=2), at("2026-03-01"))
    assert law_state(world.connection)[2].red_windows == 0


def test_an_unknown_law_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="L1, L2, L3, L4, L5"):
        evaluate(world.connection, "L6", at("2026-01-01"), at("2026-02-01"), at("2026-02-01"))


def test_a_month_of_landing_hours_is_one_quick_statement(world: World) -> None:
    """744 hours with files; a statement an hour would take minutes."""
    start = at("2026-03-01")
    world.execute(
        """
        insert into landing.files (
            file_key, landed_hour, content_sha256, size_bytes, accepted_count, rejected_count,
            earliest_event_date, future_tolerance_minutes, landed_at, modified_at
        )
        select 'h' || n, %s + make_interval(hours => n), '', 0, 0, 0, '2020-01-01', 60, %s, %s
        from generate_series(0, 743) as n
        """,
        start, start, start,
    )  # fmt: skip
    world.execute("set local statement_timeout = '5s'")
    for law in ("L1", "L2", "L3"):
        results = evaluate(world.connection, law, start, start + timedelta(hours=744), start)
        assert len(results) == 744
        assert all(each.passed for each in results)


def _figures(world: World, law: str, tenant: str) -> dict[str, Any]:
    (figures,) = [each.figures for each in world.results(law) if each.tenant_id == tenant]
    return figures
