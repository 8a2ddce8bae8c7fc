"""Random histories: files that come, change, change back and vanish, landed, posted and rolled up in
any order, again and again. Whatever happened, the tables are the oracle's in the end."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from tests.soak.world import CATALOGS, HOURS, Event, World, expect

NAMES = ("a.ndjson", "B.ndjson")
"""In the order of their bytes B comes first."""
TIMES = (
    "2026-01-10T22:10:00Z",
    "2026-01-10T22:10:00.000001Z",
    "2026-01-10T20:05:00Z",  # later than the lookback in every landing hour
    "2026-01-10T23:59:59.999999Z",
    "2026-01-11T00:00:00Z",
    "2026-01-11T00:40:00+00:00",
)
PAYLOADS: tuple[Event, ...] = (
    {"properties": {"input_tokens": 3, "model": "small", "output_tokens": 7, "user": "una"}},
    {
        "quantity": 2,
        "properties": {
            "input_tokens": 5,
            "model": "large",
            "operation": "remove",
            "output_tokens": 11,
            "user": "una",
        },
    },
    {"quantity": "0.5", "properties": {"input_tokens": "many", "operation": "?", "user": "2"}},
    {"void": True},
    {"void": True, "quantity": 9},
)
IDENTITIES = [
    *(("acme", "api.request", at, "a") for at in TIMES),
    *(("acme", "api.request", at, "b") for at in TIMES[:2]),
    *(("cobalt", "storage.snapshot", at, "a") for at in TIMES[2:4]),
    ("cobalt", "page.viewed", TIMES[0], "a"),
]
NAMED = ("tenant_id", "event_type", "occurred_at", "correlation_id")
EVENTS: Sequence[Event] = [
    dict(zip(NAMED, identity, strict=True)) | dict(payload)
    for identity, payload in itertools.product(IDENTITIES, PAYLOADS)
]
"""So few that most are copies of others."""

_ALL = (HOURS[0], HOURS[-1])

Step = tuple[Any, ...]
"""The name of a method of World, and its arguments."""

_hours = st.sampled_from(HOURS)
_windows = st.tuples(_hours, _hours).map(sorted)
_files = (st.sampled_from(HOURS[:3]), st.sampled_from(NAMES))
_changes = st.one_of(
    *[
        st.tuples(
            st.just("write"), *_files, st.lists(st.sampled_from(EVENTS), min_size=size, max_size=7)
        )
        for size in (0, 3, 5, 6)
    ],
    st.tuples(st.just("put_back"), *_files),
    st.tuples(st.just("remove"), *_files),
)
_actions = st.one_of(
    _windows.map(lambda window: ("run", *window)),
    _windows.map(lambda window: ("land", *window)),
    _windows.map(lambda window: ("post_ledger", *window)),
    st.just(("run", HOURS[0], HOURS[-1])),
    st.just(("land", HOURS[0], HOURS[-1])),
    _hours.map(lambda hour: ("roll_up", hour)),
    st.sampled_from([("roll_up",), ("sum_days",), ("release",), ("listing",)]),
    st.sampled_from([("contribute",), ("merge",), ("sum_days",)]),
    st.sampled_from([("publish", catalog) for catalog in CATALOGS]),
)
_rounds = st.tuples(
    st.lists(_changes, min_size=1, max_size=4), st.lists(_actions, min_size=1, max_size=4)
)
_orders = st.one_of(
    st.just([(HOURS[0], HOURS[-1])]),
    st.permutations([(hour, hour) for hour in HOURS]),
)

histories: st.SearchStrategy[tuple[list[Step], list[tuple[datetime, datetime]]]] = st.tuples(
    st.lists(_rounds, min_size=2, max_size=4).map(
        lambda rounds: [step for changes, actions in rounds for step in (*changes, *actions)]
    ),
    _orders,
)
"""What happens, and the order in which the hours are run in the end."""

RETRIES: Sequence[Event] = [
    dict(zip(NAMED, ("acme", "api.request", at, "a"), strict=True)) | dict(payload)
    for at, payload in itertools.product(TIMES, (PAYLOADS[0], PAYLOADS[1], PAYLOADS[3]))
]
"""One request, stamped anew again and again."""

_retried = st.one_of(
    st.tuples(
        st.just("write"),
        *(_hours, st.sampled_from(NAMES), st.lists(st.sampled_from(RETRIES), max_size=3)),
    ),
    st.tuples(st.just("put_back"), _hours, st.sampled_from(NAMES)),
)
_looked_for = st.sampled_from([(("list_suspects",),), ()])

retries: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.lists(_retried, min_size=1, max_size=2), _looked_for), min_size=2, max_size=5
).map(
    lambda rounds: [
        step
        for changes, looks in rounds
        for step in (*changes, ("land", *_ALL), ("post_ledger", *_ALL), *looks)
    ]
)
"""What happens to that request, and when suspects are looked for: what is listed depends on that."""


def live_through_retries(world: World, steps: Sequence[Step]) -> None:
    """Let it happen in an empty world; each look is compared, and the last one row for row, run again too."""
    world.begin_anew()
    for method, *arguments in (*steps, ("list_suspects",)):
        getattr(world, method)(*arguments)
    world.check_suspects()
    world.list_suspects()
    world.check_suspects()


def live_through(
    world: World, steps: Sequence[Step], order: Sequence[tuple[datetime, datetime]]
) -> None:
    """Let a history happen in an empty world, run every hour, and compare everything.

    In between, windows are posted that were not landed since their files changed, and rollups run
    while the ledger is behind, or are cut off half-way: only what is read in real time, and days against
    their hours, are right at every step, all the rest must be made good at the end.
    """
    world.begin_anew()
    for method, *arguments in steps:
        getattr(world, method)(*arguments)
        world.check_realtime()
        world.check_days()
    for first, last in order:
        world.land(first, last)
        world.post_ledger(first, last)
    world.check_ledger()
    world.check_rebuilt()
    world.roll_up()
    world.check_debts()
    world.release()
    world.roll_up()
    world.sum_days()
    world.check_rollups()
    world.list_suspects()
    world.check_suspects()
    _again_changes_nothing(world)
    _anew_gives_the_same(world)


def _again_changes_nothing(world: World) -> None:
    """Not even when a row was recorded."""
    before = world.ledger_rows(clock=True)
    world.land(HOURS[0], HOURS[-1])
    world.post_ledger(HOURS[0], HOURS[-1])
    for table, rows in world.ledger_rows(clock=True).items():
        expect(f"{table} run again", rows, before[table])
    world.check_ledger()
    world.check_rollups()


def _anew_gives_the_same(world: World) -> None:
    before = world.ledger_rows(clock=False)
    world.forget_ledger()
    world.post_ledger(HOURS[0], HOURS[-1])
    for table, rows in world.ledger_rows(clock=False).items():
        expect(f"{table} posted anew", rows, before[table])
