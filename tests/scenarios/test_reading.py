"""Reading: any span of instants, local days of any zone, what had landed by then, all as the oracle says, whether
the usage is rolled up, half rolled up or still owed; and the queries of the documentation."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from metering_pipeline import postgres
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.partitions import Window
from metering_pipeline.settings import END_OF_TIME, HOUR, PROJECT_ROOT
from tests.scenarios import oracle
from tests.soak.posting import ROLLUPS, RecordedModels
from tests.soak.world import HOURS, MORE, World, expect
from tests.test_docs import blocks

READING = ["config.materialized:table_function", "path:models/rollups,config.materialized:view"]
MICROSECOND = timedelta(microseconds=1)
TENANT = "acme"
TYPES = ["api.request", "storage.snapshot"]
ZONES = {
    "UTC": [date(2026, 1, 7)],
    "Asia/Kolkata": [date(2026, 1, 7)],
    "Asia/Kathmandu": [date(2026, 1, 7)],
    "Europe/Berlin": [date(2025, 3, 30), date(2025, 10, 26)],
    "Australia/Lord_Howe": [date(2025, 4, 6), date(2025, 10, 5)],  # by half an hour
    "America/Havana": [date(2025, 3, 9), date(2025, 11, 2)],  # midnight left out, and twice
    "America/Santiago": [date(2025, 4, 5), date(2025, 9, 7)],  # at midnight, back and forth
}
"""By zone, days to look at, with the day before and the day after: those of changes of the clock."""


def midnights(zone: str) -> list[datetime]:
    """The days' first instants, found by walking through the minutes around them."""
    found = []
    for day in ZONES[zone]:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=2)
        minutes = [start + timedelta(minutes=15 * number) for number in range(4 * 24 * 5)]
        local = [minute.astimezone(ZoneInfo(zone)).date() for minute in minutes]
        found += [
            minute
            for minute, before, after in zip(minutes[1:], local, local[1:], strict=False)
            if before != after
        ]
    return found


def events(dice: random.Random) -> list[dict[str, Any]]:
    """Events on, just before and just after each midnight, and anywhere between; on each the tenant's own."""
    edges = [
        midnight + offset
        for zone in ZONES
        for midnight in midnights(zone)
        for offset in (-MICROSECOND, 0 * MICROSECOND, MICROSECOND)
    ]
    within = [
        edge + timedelta(microseconds=dice.randrange(24 * 3600 * 1_000_000))
        for edge in dice.sample(edges, 40)
    ]
    recent = [
        HOURS[0] + timedelta(microseconds=dice.randrange(2 * 3600 * 1_000_000)) for _ in range(40)
    ]
    return [
        {
            "tenant_id": TENANT if number % 3 == 1 else dice.choice([TENANT, "birch-labs"]),
            "event_type": "api.request" if number % 3 == 1 else dice.choice(TYPES),
            "occurred_at": instant.isoformat(),
            "correlation_id": f"{number}",
            "quantity": dice.choice([1, 2, "0.5"]),
            "properties": {
                "model": dice.choice(["small", "large"]),
                "input_tokens": dice.choice([3, 5, "7.25", "many"]),
                "output_tokens": dice.randrange(9),
                "user": dice.choice(["una", "duo"]),
                "operation": dice.choice(["add", "add", "remove", "?"]),
            },
        }
        for number, instant in enumerate([*edges, *within, *recent])
    ]


@pytest.fixture(scope="module")
def world(
    server: EmbeddedServer, catalog_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Events that landed in three hours, some voided by a later one; nothing is posted yet."""
    from metering_pipeline.transform.dbt import run_dbt

    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {catalog_template} strategy wal_log")
    database = postgres.Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    root: Path = tmp_path_factory.mktemp("reading") / "landing"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("METERING_DATABASE_URL", database.url)
        run_dbt(database, "run", READING)
        recorded = RecordedModels(database)
        with closing(recorded), closing(World(database, root, recorded)) as world:
            world.publish("more")
            dice = random.Random(11)
            sent = events(dice)
            for number, hour in enumerate(HOURS[1:]):
                world.write(hour, "a.ndjson", sent[number::3])
            for hour in HOURS[1:]:
                unwanted = dice.sample(sent[::3] + sent[2::3], len(sent) // 9)
                voids = [{**event, "void": True} for event in unwanted]
                world.write(hour, "voids.ndjson", voids)
            yield world


def posted(world: World) -> None:
    """All is in the ledger, all is owed."""
    world.land(HOURS[0], HOURS[-1])
    world.forget_ledger()
    world.post_ledger(HOURS[0], HOURS[-1])


def half_rolled_up(world: World) -> None:
    """What is within the lookback has its contributions, and no hour yet."""
    world.post(ROLLUPS[:1], Window(HOURS[0] - HOUR, END_OF_TIME))


def rolled_up(world: World) -> None:
    """What is within the lookback has its hours, the rest is a late arrival."""
    world.roll_up()


def released(world: World) -> None:
    """Nothing is owed."""
    world.release()
    world.roll_up()
    world.sum_days()
    world.check_rollups()


@pytest.fixture(
    scope="module",
    params=[posted, half_rolled_up, rolled_up, released],
    ids=lambda state: state.__name__,
)
def state(request: pytest.FixtureRequest, world: World) -> World:
    """The world, brought one step further each time."""
    step: Callable[[World], None] = request.param
    step(world)
    return world


def spans() -> list[tuple[datetime, datetime]]:
    """Spans of whole hours, with odd ends, within one hour, and empty ones."""
    dice = random.Random(3)
    found = [(HOURS[0], HOURS[2]), (HOURS[0], HOURS[0])]
    for _ in range(25):
        start = HOURS[0] + timedelta(microseconds=dice.randrange(2 * 3600 * 1_000_000))
        for length in (MICROSECOND, timedelta(minutes=20), 1.5 * HOUR):
            found.append((start, start + length))
    found += [
        (midnight - dice.choice([MICROSECOND, HOUR, 0 * HOUR]), midnight + HOUR)
        for zone in ZONES
        for midnight in midnights(zone)
    ]
    return [*found, (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, 0, 0, 1, tzinfo=UTC))]


FIGURES = (
    "dimensions, event_count, value_sum, value_moment, value_min, value_max, value_latest, latest_at,"
    " latest_fingerprint, event_digest, payload_digest"
)


def expect_figures(
    what: str,
    rows: list[tuple[Any, ...]],
    metric: str,
    expected: Mapping[tuple[str, str, str], tuple[Any, ...]],
) -> None:
    """The rows are the figures of the tenant and the metric, by dimensions."""
    own = {key[2]: figures for key, figures in expected.items() if key[:2] == (TENANT, metric)}
    found = Counter((json.dumps(row[0], sort_keys=True), *row[1:]) for row in rows)
    expect(what, found, Counter((dimensions, *figures) for dimensions, figures in own.items()))


def test_any_span_of_instants(state: World) -> None:
    ledger = oracle.post(state.landed.records())
    for start, end in spans():
        expected = oracle.chosen(
            ledger, MORE, lambda record, a=start, b=end: a <= record.occurred_at < b
        )
        quantities = oracle.quantities(ledger, MORE, start, end)
        for metric in MORE:
            rows = state.rows(
                f"select {FIGURES}, quantity from rollups.usage_between(%s, %s, %s, %s)",
                *(TENANT, metric.name, start, end),
            )
            what = f"{metric.name} from {start} to {end}"
            expect_figures(what, [row[:-1] for row in rows], metric.name, expected)
            for row in rows:
                key = (TENANT, metric.name, json.dumps(row[0], sort_keys=True))
                assert row[-1] == quantities[key], (what, key)


@pytest.mark.parametrize("zone", ZONES)
def test_local_days(state: World, zone: str) -> None:
    ledger = oracle.post(state.landed.records())
    local = ZoneInfo(zone)
    for day in ZONES[zone]:
        days = [day - timedelta(days=1), day, day + timedelta(days=1)]
        rows = state.rows(
            f"select day, starts_at, ends_at, {FIGURES}"
            " from rollups.usage_by_local_day(%s, %s, %s, %s, %s)",
            *(TENANT, "input_tokens", zone, days[0], days[-1]),
        )
        for each in days:
            expected = oracle.chosen(
                ledger,
                MORE,
                lambda record, each=each: record.occurred_at.astimezone(local).date() == each,
            )
            own = [row[3:] for row in rows if row[0] == each]
            expect_figures(f"{zone} {each}", own, "input_tokens", expected)
        for found, start, end in {row[:3] for row in rows}:
            assert start.astimezone(local).date() == found
            assert (start - MICROSECOND).astimezone(local).date() < found
            assert (end - MICROSECOND).astimezone(local).date() == found
            assert end.astimezone(local).date() > found


def test_days_are_as_long_as_their_clock_says(state: World) -> None:
    rows = state.rows(
        "select time_zone, day, extract(epoch from ends_at - starts_at) / 3600"
        " from unnest(%s::text[], %s::date[]) as days (time_zone, first_day)"
        " cross join lateral rollups.usage_by_local_day('acme', 'requests', time_zone, first_day, first_day)"
        " order by 1, 2",
        [zone for zone, days in ZONES.items() for _ in days],
        [day for days in ZONES.values() for day in days],
    )
    lengths = {(zone, day): float(hours) for zone, day, hours in rows}
    assert lengths["Europe/Berlin", date(2025, 3, 30)] == 23
    assert lengths["Europe/Berlin", date(2025, 10, 26)] == 25
    assert lengths["Australia/Lord_Howe", date(2025, 4, 6)] == 24.5
    assert lengths["Australia/Lord_Howe", date(2025, 10, 5)] == 23.5
    assert lengths["America/Havana", date(2025, 11, 2)] == 25
    assert lengths["America/Santiago", date(2025, 4, 5)] == 25
    assert lengths["America/Santiago", date(2025, 9, 7)] == 23
    assert lengths["Asia/Kathmandu", date(2026, 1, 7)] == 24


def test_as_landed_by(state: World) -> None:
    ledger = oracle.post(state.landed.records())
    spans = [(HOURS[0], HOURS[2]), (datetime(2025, 1, 1, tzinfo=UTC), HOURS[1])]
    for landed_before in (*HOURS, END_OF_TIME.replace(year=2030, hour=0)):
        known = oracle.as_landed_by(ledger, landed_before)
        for start, end in spans:
            expected = oracle.chosen(
                known, MORE, lambda record, a=start, b=end: a <= record.occurred_at < b
            )
            added = {key: (*each[:3], *each[-2:]) for key, each in expected.items()}
            for metric in MORE:
                rows = state.rows(
                    "select * from rollups.usage_as_landed_by(%s, %s, %s, %s, %s)",
                    *(TENANT, metric.name, start, end, landed_before),
                )
                expect_figures(
                    f"{metric.name} landed before {landed_before}", rows, metric.name, added
                )


def test_real_time_reads_the_tenants_own_debts_by_their_keys(state: World) -> None:
    """Of the debts of others nothing is read, and the ledger not at all where nothing is owed."""
    query = """
        explain (analyze, costs off)
        select hour, sum(event_count)
        from rollups.usage_realtime
        where tenant_id = 'nobody' and metric = 'requests' and hour >= %s and hour < %s
        group by hour
    """
    with state.database.connect() as connection:
        connection.execute("set enable_seqscan = off; set enable_bitmapscan = off")
        rows = connection.execute(query.encode(), (HOURS[0], HOURS[-1])).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "CTE" not in plan
    for table in ("usage_hourly", "pending", "touched_buckets"):
        conditions = [
            condition
            for line, condition in zip(plan.splitlines(), plan.splitlines()[1:], strict=False)
            if f"{table}_pkey" in line
        ]
        assert conditions, plan
        assert all("tenant_id = 'nobody'" in each for each in conditions), plan
    assert "Function Scan on usage_in_ledger found (never executed)" in plan


def amounts(
    ledger: oracle.Ledger, unit: str, spans: list[tuple[datetime, datetime]]
) -> Counter[tuple[Any, ...]]:
    """Rows of tenant, metric, time, quantity and event count, over all dimensions."""
    found: Counter[tuple[Any, ...]] = Counter()
    for start, end in spans:
        own = oracle.quantities(ledger, MORE, start, end, apart=False)
        within = oracle.chosen(
            ledger, MORE, lambda record, a=start, b=end: a <= record.occurred_at < b
        )
        time_of = start if unit == "hour" else start.date()
        for (tenant, metric, _), quantity in own.items():
            counts = [each[0] for key, each in within.items() if key[:2] == (tenant, metric)]
            found[tenant, metric, time_of, quantity, sum(counts)] += 1
    return found


def test_the_analysts_views(state: World) -> None:
    """Today is exact at any moment; days and months are what the last run has made of it."""
    state.listing()
    ledger = oracle.post(state.landed.records())
    midnight = HOURS[-1].replace(hour=0)
    hours = [midnight + number * HOUR for number in range(24)]
    expected = {"today": amounts(ledger, "hour", [(each, each + HOUR) for each in hours])}
    if not state.rows("select * from rollups.indebted_hours"):
        days = sorted({record.occurred_at.astimezone(UTC).date() for record in ledger.standing()})
        edges = [datetime.combine(day, time(), UTC) for day in days]
        expected["daily"] = amounts(ledger, "day", [(each, each + 24 * HOUR) for each in edges])
        months = sorted({each.replace(day=1) for each in edges})
        expected["monthly"] = amounts(
            ledger, "month", [(each, (each + 31 * 24 * HOUR).replace(day=1)) for each in months]
        )
    for name, wanted in expected.items():
        unit = {"today": "hour", "daily": "day", "monthly": "month"}[name]
        rows = state.rows(
            f"select tenant_id, metric, {unit}, quantity, event_count from rollups.tenant_usage_{name}"
        )
        expect(name, Counter(rows), wanted)
        assert rows
    assert state.rows(
        "select distinct tenant_name, unit from rollups.tenant_usage_today"
        " where tenant_id = 'acme' and metric = 'requests'"
    ) == [("Acme Corporation", "units")]


def test_late_usage(state: World) -> None:
    if state.rows("select * from rollups.indebted_hours"):
        return  # what is owed has contributed nothing yet
    expected: Counter[tuple[Any, ...]] = Counter()
    sums: Counter[tuple[Any, ...]] = Counter()
    ledger = oracle.post(state.landed.records())
    for key, figures in oracle.contributions(ledger, MORE).items():
        landed_hour, tenant, metric, hour, _ = key
        if landed_hour - hour > timedelta(days=1):
            place = (landed_hour.date(), tenant, metric, hour.date())
            expected[place] += figures[0]
            sums[place] += figures[1]
    rows = state.rows(
        "select landed_day, tenant_id, metric, usage_day, event_count, value_sum from rollups.late_usage"
    )
    expect("late_usage", Counter(rows), Counter((*k, expected[k], sums[k]) for k in expected))


PAGE = (PROJECT_ROOT / "docs" / "reading.md").read_text()


@pytest.mark.parametrize("query", blocks(PAGE, "sql"))
def test_documented_queries(state: World, query: str) -> None:
    """Each runs at any moment, and finds something once all is rolled up."""
    state.listing()
    found = state.rows(query)
    assert found or state.rows("select * from rollups.indebted_hours")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("usage_between('a', 'b', '2026-01-02Z', '2026-01-01Z')", "must not end before it starts"),
        ("usage_between('a', 'b', null, '2026-01-01Z')", "must not end before it starts"),
        ("usage_by_local_day('a', 'b', 'Mars/Olympus', '2026-01-01', '2026-01-01')", "'Mars/Olympus' is no time zone: write a time zone of the tz database"),
        ("usage_by_local_day('a', 'b', 'IST', '2026-01-01', '2026-01-01')", "'IST' is no time zone"),
        ("usage_by_local_day('a', 'b', 'Berlin-3', '2026-01-01', '2026-01-01')", "'Berlin-3' is no time zone"),
        ("usage_by_local_day('a', 'b', 'UTC', '2026-01-02', '2026-01-01')", "must not lie before the first"),
        ("usage_as_landed_by('a', 'b', '2026-01-01 00:30Z', '2026-01-02Z', '2026-01-02Z')", "starts_at must be the first instant of an hour"),
        ("usage_as_landed_by('a', 'b', '2026-01-01Z', '2026-01-02 00:00:00.000001Z', '2026-01-02Z')", "ends_at must be the first"),
        ("usage_as_landed_by('a', 'b', '2026-01-01Z', '2026-01-02Z', null)", "landed_before must be the first instant of an hour \\(UTC\\), not null"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said(world: World, call: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        world.rows(f"select * from rollups.{call}")
