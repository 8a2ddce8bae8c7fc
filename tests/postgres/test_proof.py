"""The proof of everything: whatever row of the rollups is damaged, wherever, is found and named."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from metering_pipeline.partitions import Window
from metering_pipeline.reconciliation.buckets import Bucket, red_buckets, sampled_buckets
from metering_pipeline.reconciliation.laws import evaluate
from metering_pipeline.reconciliation.proof import (
    PROVED,
    SESSIONS,
    Tally,
    by_hour,
    evaluated,
    prove,
)
from tests.postgres.billing_world import World, at

FIGURES = """event_count, value_sum, value_moment, value_min, value_max, value_latest, latest_at, latest_fingerprint,
    event_digest, payload_digest"""
COPY = f"""
    insert into rollups.usage_hourly
    select tenant_id, %s, %s::timestamptz, dimensions, {FIGURES} from rollups.usage_hourly
    where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'
"""
COPY_OF_A_DAY = f"""
    insert into rollups.usage_daily
    select tenant_id, %s, (%s::timestamptz at time zone 'UTC')::date, dimensions, {FIGURES}
    from rollups.usage_hourly
    where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'
"""
COPY_OF_A_CONTRIBUTION = f"""
    insert into rollups.usage_contributions (
        landed_hour, tenant_id, metric, hour, dimensions, event_type, voided_count, {FIGURES}
    )
    select %s::timestamptz, tenant_id, %s, %s::timestamptz, dimensions, 'api.request', 0, {FIGURES}
    from rollups.usage_hourly
    where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'
"""
HOUR = "where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'"
DAY = "where tenant_id = 'birch' and metric = 'tokens' and day = '2026-01-12'"
IN_HOURLY = ("contributions", "hourly usage")
IN_DAILY = ("hourly usage", "daily usage")
IN_CONTRIBUTIONS = ("ledger", "contributions")
NOON = at("2026-01-12 12:00")
HOUR_LONG = timedelta(hours=1)
THE_HOUR = ("tokens", "2026-01-12T11", *IN_HOURLY)
THE_DAY = ("tokens", "2026-01-12", *IN_DAILY)

DAMAGES: dict[str, tuple[list[tuple[str, tuple[str, ...]]], set[tuple[str, ...]]]] = {
    "an extra bucket long before the first hour": (
        [(COPY, ("tokens", "1999-05-05 05:00Z"))],
        {("tokens", "1999-05-05T05", *IN_HOURLY), ("tokens", "1999-05-05", *IN_DAILY)},
    ),
    "an extra bucket of a later year": (
        [(COPY, ("tokens", "2031-05-05 05:00Z"))],
        {("tokens", "2031-05-05T05", *IN_HOURLY), ("tokens", "2031-05-05", *IN_DAILY)},
    ),
    "an extra day": (
        [(COPY_OF_A_DAY, ("tokens", "1999-05-05 05:00Z"))],
        {("tokens", "1999-05-05", *IN_DAILY)},
    ),
    "an extra bucket in every rollup, from a landing hour that never was": (
        [
            (COPY, ("tokens", "2026-01-20 05:00Z")),
            (COPY_OF_A_DAY, ("tokens", "2026-01-20 05:00Z")),
            (COPY_OF_A_CONTRIBUTION, ("2019-01-01 00:00Z", "tokens", "2026-01-20 05:00Z")),
        ],
        {("tokens", "2026-01-20T05", *IN_CONTRIBUTIONS)},
    ),
    "a bucket of a metric that does not exist": (
        [(COPY, ("smoke", "2026-01-12 11:00Z"))],
        {("smoke", "2026-01-12T11", *IN_HOURLY), ("smoke", "2026-01-12", *IN_DAILY)},
    ),
    "a metric that does not exist in every rollup": (
        [
            (COPY, ("smoke", "2026-01-12 11:00Z")),
            (COPY_OF_A_DAY, ("smoke", "2026-01-12 11:00Z")),
            (COPY_OF_A_CONTRIBUTION, ("2026-01-12 11:00Z", "smoke", "2026-01-12 11:00Z")),
        ],
        {("smoke", "2026-01-12T11", *IN_CONTRIBUTIONS)},
    ),
    "a contribution deleted": (
        [(f"delete from rollups.usage_contributions {HOUR}", ())],
        {("tokens", "2026-01-12T11", *IN_CONTRIBUTIONS), THE_HOUR},
    ),
    "a single value of a metric that keeps none": (
        [
            (
                "insert into rollups.unique_values_hourly select tenant_id, metric, hour, dimensions, 'a', 1, hour,"
                f" md5('')::uuid, false from rollups.usage_hourly {HOUR}",
                (),
            )
        ],
        {THE_HOUR},
    ),
    "a bucket deleted": (
        [(f"delete from rollups.usage_hourly {HOUR}", ())],
        {THE_HOUR, THE_DAY},
    ),
    "a bucket of no event": (
        [
            (COPY, ("tokens", "2026-01-20 05:00Z")),
            ("update rollups.usage_hourly set event_count = 0, value_sum = 0, event_digest = 0,"
             " payload_digest = 0, value_min = null, value_max = null, value_latest = null, latest_at = null,"
             " latest_fingerprint = null where hour = '2026-01-20 05:00Z'", ()),
        ],
        {("tokens", "2026-01-20T05", *IN_HOURLY), ("tokens", "2026-01-20", *IN_DAILY)},
    ),
    **{
        f"{column} of a bucket changed": (
            [(f"update rollups.usage_hourly set {column} = {value} {HOUR}", ())],
            {THE_HOUR, THE_DAY},
        )
        for column, value in {
            "event_count": "event_count + 1",
            "value_sum": "value_sum + 1e-18",
            "value_moment": "1",
            "value_min": "0",
            "value_max": "value_max + 1",
            "value_latest": "7",
            "latest_at": "latest_at - interval '1 microsecond'",
            "latest_fingerprint": "md5('other')::uuid",
            "event_digest": "event_digest + 1",
            "payload_digest": "payload_digest - 1",
        }.items()
    },
    **{
        f"{column} of a day changed": (
            [(f"update rollups.usage_daily set {column} = {value} {DAY}", ())],
            {THE_DAY},
        )
        for column, value in {
            "event_count": "event_count + 1",
            "value_sum": "value_sum + 1e-18",
            "value_min": "0",
            "value_max": "value_max + 1",
            "value_latest": "7",
            "latest_at": "latest_at - interval '1 microsecond'",
            "latest_fingerprint": "md5('other')::uuid",
            "event_digest": "event_digest + 1",
            "payload_digest": "payload_digest - 1",
        }.items()
    },
}  # fmt: skip


def prove_all(world: World, law: str, progress: list[str] | None = None) -> Tally:
    """Prove a law of everything; the first landing hour is two days before any that holds a file."""
    said = [] if progress is None else progress
    return prove(
        world.database, law, at("2026-01-10"), at("2026-01-15"), at("2026-03-01"), said.append
    )


def buckets(tally: Tally) -> list[Bucket]:
    return [bucket for each in tally.failing for bucket in sampled_buckets(each)]


def named(tally: Tally) -> set[tuple[str, ...]]:
    """The buckets named, all of them birch's."""
    found = buckets(tally)
    assert {bucket.tenant_id for bucket in found} <= {"birch"}
    return {bucket.key[1:3] + bucket.key[4:] for bucket in found}


def test_what_nobody_touched_is_proved_whole(whole_world: World) -> None:
    said: list[str] = []
    tallies = {law: prove_all(whole_world, law, said) for law in PROVED}
    assert {law: (each.red_windows, each.failing) for law, each in tallies.items()} == {
        law: (0, []) for law in PROVED
    }
    assert (tallies["L1"].windows, tallies["L3"].windows) == (3, 5)  # landing hours; days of usage
    assert said[:2] == [
        "L1, day of landing 1 of 5: 2026-01-10 holds",
        "L1, day of landing 2 of 5: 2026-01-11 holds",
    ]
    assert said[-1] == "L3, day of usage 2 of 2: 2026-01-13 holds"
    (figures,) = whole_world.row(
        "select figures from reconciliation.current_law_results where law = 'L3'"
        " and window_start = '2026-01-12Z' and window_end = '2026-01-13Z'"
    )
    assert figures["contributed_count"] == figures["hourly_count"] == figures["daily_count"] > 0
    assert figures["contributed_digest"] == figures["hourly_digest"] == figures["daily_digest"]


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_and_named(whole_world: World, name: str) -> None:
    statements, expected = DAMAGES[name]
    for statement, parameters in statements:
        whole_world.tamper(statement, *parameters)
    tally = prove_all(whole_world, "L3")
    assert named(tally) == expected
    assert tally.red_windows > 0


def test_both_sides_of_a_bucket_are_shown(whole_world: World) -> None:
    whole_world.tamper(f"update rollups.usage_daily set event_digest = event_digest + 1 {DAY}")
    (bucket,) = buckets(prove_all(whole_world, "L3"))
    hourly, daily = bucket.sides
    assert (hourly.event_count, hourly.value_sum) == (daily.event_count, daily.value_sum)
    assert int(str(daily.event_digest)) == int(str(hourly.event_digest)) + 1
    assert bucket.differs_in == ("event_digest",)


def test_damage_of_two_days_is_named_and_counted(whole_world: World) -> None:
    """A red day does not stop the others, and samples are few where the damage is wide."""
    for hour in range(4):
        whole_world.tamper(COPY, "tokens", f"1999-05-05 {hour:02}:00Z")
    whole_world.tamper(f"update rollups.usage_daily set value_sum = value_sum + 1 {DAY}")
    said: list[str] = []
    tally = prove_all(whole_world, "L3", said)
    assert named(tally) == {
        *(("tokens", f"1999-05-05T{hour:02}", *IN_HOURLY) for hour in range(3)),
        ("tokens", "1999-05-05", *IN_DAILY),
        THE_DAY,
    }
    assert (tally.red_windows, tally.buckets) == (2, 6)
    assert [line for line in said if "FAIL" in line] == [
        "L3, day of usage 1 of 3: 1999-05-05 1 windows FAIL",
        "L3, day of usage 2 of 3: 2026-01-12 1 windows FAIL",
    ]
    assert said[-1].endswith("2026-01-13 holds")


def test_what_the_queues_name_is_a_debt(whole_world: World) -> None:
    whole_world.tamper(f"update rollups.usage_hourly set event_count = event_count + 1 {HOUR}")
    whole_world.execute(
        "insert into rollups.touched_buckets values ('birch', 'tokens', '2026-01-12 11:00Z', '{}')"
    )
    assert named(prove_all(whole_world, "L3")) == {THE_DAY}
    whole_world.execute("insert into rollups.touched_days values ('birch', 'tokens', '2026-01-12')")
    assert prove_all(whole_world, "L3").red_windows == 0


def test_landed_and_posted_hours_are_proved_since_the_first(whole_world: World) -> None:
    """L1 and L2 too, and rows of a landing hour before the first."""
    whole_world.tamper("delete from landing.rejected_events")
    whole_world.tamper(
        "update ledger.usage_events set landed_hour = '2019-01-01Z' where correlation_id = 'birch-3'"
    )
    tallies = {law: prove_all(whole_world, law) for law in ("L1", "L2")}
    assert [each.window_start for each in tallies["L1"].failing] == [at("2026-01-12T11:00")]
    assert [each.window_start for each in tallies["L2"].failing] == [
        at("2019-01-01"),
        at("2026-01-12T11:00"),
    ]


def test_what_is_queued_again_is_merged_again(whole_world: World) -> None:
    """As the status says of buckets that nothing contributed to; then even the day in 1999 is green."""
    whole_world.tamper(COPY, "tokens", "1999-05-05 05:00Z")
    whole_world.tamper(COPY_OF_A_DAY, "tokens", "1999-06-06 05:00Z")
    prove_all(whole_world, "L3")
    red = red_buckets(whole_world.connection)
    assert (red.count, red.unlanded, red.landed_from) == (3, 2, None)
    whole_world.execute(
        "insert into rollups.touched_buckets values ('birch', 'tokens', '1999-05-05 05:00Z', '{}')"
    )
    whole_world.execute("insert into rollups.touched_days values ('birch', 'tokens', '1999-06-06')")
    whole_world.run("2026-01-14", "2026-01-15")
    assert prove_all(whole_world, "L3").red_windows == 0
    assert red_buckets(whole_world.connection).count == 0


def test_the_landing_hours_to_rebuild_are_named(whole_world: World) -> None:
    whole_world.tamper(f"update rollups.usage_daily set value_sum = value_sum + 1 {DAY}")
    prove_all(whole_world, "L3")
    red = red_buckets(whole_world.connection)
    assert (red.landed_from, red.landed_to, red.unlanded) == (
        at("2026-01-12T10:00"),
        at("2026-01-12T11:00"),
        0,
    )


def test_evaluating_hours_leaves_days_alone(whole_world: World) -> None:
    """A red day of usage is no landing hour at its midnight."""
    whole_world.tamper(COPY, "tokens", "2026-01-20 05:00Z")
    prove_all(whole_world, "L3")
    before = states(whole_world)
    assert before[at("2026-01-20"), at("2026-01-21")] is False
    whole_world.check("L3")
    after = states(whole_world)
    assert before.items() <= after.items()
    assert (at("2026-01-20"), at("2026-01-20") + timedelta(hours=1)) not in after


def states(world: World) -> dict[tuple[Any, Any], bool]:
    return {
        (start, end): passed
        for start, end, passed in world.rows(
            "select window_start, window_end, passed from reconciliation.current_law_results"
            " where law = 'L3' and tenant_id is null"
        )
    }


SLEEPING = """
    select 1
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and wait_event = 'PgSleep'
"""


def test_spans_side_by_side_find_what_one_finds(whole_world: World) -> None:
    whole_world.connection.execute(f"delete from rollups.usage_contributions {HOUR}")
    whole_world.connection.commit()
    start, end, now = at("2026-01-10"), at("2026-01-15"), at("2026-03-01")
    cuts = [start, at("2026-01-11"), at("2026-01-12 11:00"), at("2026-01-12 12:00"), end]
    with whole_world.database.connect() as connection:
        found = {law: evaluate(connection, law, start, end, now) for law in PROVED}
    assert not all(each.passed for each in found["L3"])
    for law, at_once in found.items():
        parts = [*evaluated(whole_world.database, [*pairwise(cuts)], by_hour(law, now))]
        assert len(parts) == len(cuts) - 1
        assert [each for part in parts for each in part] == at_once


def test_what_fails_in_one_span_ends_those_beside_it(whole_world: World) -> None:
    """The span that sleeps would take a minute; those behind it are never begun."""
    began: list[datetime] = []
    cancelled: list[datetime] = []

    def fail_or_sleep(connection: psycopg.Connection, start: datetime, _: datetime) -> list[Any]:
        began.append(start)
        if start == NOON:
            while not connection.execute(SLEEPING).fetchone():
                pass
            raise ValueError("this span fails")
        try:
            connection.execute("select pg_sleep(60)")
        except psycopg.errors.QueryCanceled:
            cancelled.append(start)
            raise
        return []

    spans = [(NOON + hour * HOUR_LONG, NOON + (hour + 1) * HOUR_LONG) for hour in range(5)]
    with pytest.raises(ValueError, match="this span fails"):
        [*evaluated(whole_world.database, spans, fail_or_sleep)]
    assert {*cancelled} == {*began} - {NOON}
    assert 1 <= len(cancelled) <= SESSIONS


@pytest.mark.parametrize(("hours", "parts"), [(1, 1), (2, 2), (3, 2), (24, 2), (2, 5), (24, 7)])
def test_a_window_is_cut_into_parts_that_make_it_up(hours: int, parts: int) -> None:
    window = Window(NOON, NOON + hours * HOUR_LONG)
    cut = window.cut(parts)
    assert [hour for part in cut for hour in part.starts()] == [*window.starts()]
    assert len(cut) == min(hours, parts)
    sizes = [len([*part.starts()]) for part in cut]
    assert max(sizes) - min(sizes) <= 1
