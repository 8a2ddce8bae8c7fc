"""Whatever runs at once: each waits for the others, none for ever, and the rows are the oracle's."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest

from metering_pipeline.archive import archive_day
from metering_pipeline.landing.archives import ArchiveError, Archives, Stage
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import LANDED_LOCK, LEDGER_LOCK, PIPELINE_LOCKS, ROLLUPS_LOCK
from metering_pipeline.reconciliation.rebuild_landing import rebuild_landing
from metering_pipeline.settings import HOUR, PROJECT_ROOT
from tests.scenarios.conftest import Pipeline
from tests.soak.histories import EVENTS, NAMES
from tests.soak.posting import DAILY, LEDGER, ROLLUPS, SUSPECTS, RecordedModels, through_dbt
from tests.soak.world import HOURS, LOOKBACK, World

PATIENCE = 240
_WAITING = "select pid from pg_locks where objid = %s and not granted"
EVERYTHING = Window(HOURS[0], HOURS[-1] + HOUR)


@pytest.fixture
def world(pipeline: Pipeline) -> Iterator[World]:
    """A world with two files in each hour."""
    world = World(pipeline.database, pipeline.root, through_dbt(pipeline.database))
    chosen = random.Random(1)
    for hour in HOURS:
        for name in NAMES:
            world.write(hour, name, chosen.choices(EVENTS, k=40))
    yield world
    world.close()


def test_whatever_runs_at_once_gives_the_oracles_rows(world: World) -> None:
    """Backfills, runs of the same hours, listings and late arrivals, on partitions not yet made."""
    with closing(RecordedModels(world.database)) as recorded:

        def run(first: int, last: int) -> Callable[[], None]:
            return lambda: run_hours(world, recorded, HOURS[first], HOURS[last])

        def listing() -> None:
            for _ in range(10):
                list_hours(world.database.url, world.settings, world.settings.now())

        def late_arrivals() -> None:
            with closing(recorded.another()) as post:
                for _ in range(10):
                    world.release()
                    post(ROLLUPS, EVERYTHING)

        works = [run(0, 3), run(1, 1), run(1, 1), run(0, 1), run(3, 3), listing, late_arrivals]
        for change in range(2):
            if change:
                world.write(HOURS[change], NAMES[0], EVENTS[change::3])
            with ThreadPoolExecutor(len(works)) as pool:
                for done in [pool.submit(work) for work in works]:
                    done.result(timeout=PATIENCE)
            world.note_landed(HOURS[0], HOURS[-1])
    world.check_ledger()
    world.release()
    world.roll_up()
    world.sum_days()
    world.check_rollups()


def run_hours(world: World, recorded: RecordedModels, first: datetime, last: datetime) -> None:
    """A run of its own, with its own connections."""
    land_hours(world.database.url, world.settings, first, last, world.settings.now())
    with closing(recorded.another()) as post:
        post([LEDGER], Window(first, last + HOUR))
        post([*ROLLUPS, DAILY], EVERYTHING)


def wait_until_it_waits(world: World, work: Future[Any], lock: str) -> None:
    """Until somebody waits for such a lock, which only this work does."""
    deadline = time.monotonic() + PATIENCE
    while not world.rows(f"select pid from pg_locks where {lock} and not granted"):
        assert not work.done()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("model", "table", "locks"),
    [
        (LEDGER, "landing.hours", {LEDGER_LOCK}),
        (ROLLUPS[0], "ledger.pending", {ROLLUPS_LOCK}),
        (ROLLUPS[1], "rollups.touched_buckets", {ROLLUPS_LOCK}),
        (DAILY, "rollups.touched_days", {ROLLUPS_LOCK}),
        (SUSPECTS, "ledger.suspects", {*PIPELINE_LOCKS}),
    ],
)
def test_a_posting_holds_its_locks(world: World, model: str, table: str, locks: set[int]) -> None:
    """Stopped in the middle, by somebody who reads or writes one of its tables, it still has them."""
    with ThreadPoolExecutor(1) as pool, world.database.connect() as other:
        other.execute(f"lock table {table} in access exclusive mode".encode())
        posting = pool.submit(world.post, [model], EVERYTHING)
        wait_until_it_waits(world, posting, "relation is not null")
        held = world.rows(
            "select objid::bigint from pg_locks where locktype = 'advisory' and objid = any(%s) and granted"
            " and pid in (select pid from pg_locks where relation is not null and not granted)",
            [*PIPELINE_LOCKS],
        )
        other.rollback()
        posting.result(timeout=PATIENCE)
    assert {lock for (lock,) in held} == locks


def test_ledger_and_rollups_do_not_wait_for_each_other(world: World) -> None:
    """Landed and posted while the rollups are written, and rolled up while the ledger is."""
    works: list[tuple[int, Callable[[], object]]] = [
        (ROLLUPS_LOCK, lambda: world.land(HOURS[0], HOURS[-1])),
        (ROLLUPS_LOCK, lambda: world.post([LEDGER], EVERYTHING)),
        (LEDGER_LOCK, lambda: world.post([*ROLLUPS, DAILY], EVERYTHING)),
    ]
    for lock, work in works:
        with ThreadPoolExecutor(1) as pool, world.database.connect() as other:
            other.execute("select pg_advisory_xact_lock(%s)", (lock,))
            pool.submit(work).result(timeout=PATIENCE)
    world.check_ledger()
    world.release()
    world.roll_up()
    world.sum_days()
    world.check_rollups()


@pytest.mark.parametrize("first", ["posting", "rollups"])
def test_what_is_owed_anew_while_it_is_taken_is_not_lost(world: World, first: str) -> None:
    """A posting changes what it has owed before, while that is rolled up: whoever comes second waits, and what the
    posting has changed is rolled up in the end."""
    world.land(HOURS[0], HOURS[-1])
    world.post([LEDGER], EVERYTHING)
    world.write(HOURS[0], NAMES[0], EVENTS[::2])
    with closing(RecordedModels(world.database)) as recorded, closing(recorded.another()) as second:
        works = {
            "posting": lambda: recorded([LEDGER], EVERYTHING),
            "rollups": lambda: second(ROLLUPS, EVERYTHING),
        }
        # where each is stopped: the posting once it owes, the rollups once they have taken
        table = {"posting": "landing.hours", "rollups": "rollups.touched_buckets"}[first]
        world.land(HOURS[0], HOURS[0])
        with ThreadPoolExecutor(2) as pool, world.database.connect() as other:
            other.execute(f"lock table {table} in share mode".encode())
            stopped = pool.submit(works.pop(first))
            wait_until_it_waits(world, stopped, "relation is not null")
            [beside] = works.values()
            waiting = pool.submit(beside)
            wait_until_it_waits(world, waiting, "locktype in ('transactionid', 'tuple')")
            other.rollback()
            for each in (stopped, waiting):
                each.result(timeout=PATIENCE)
    world.check_ledger()
    world.release()
    world.roll_up()
    world.sum_days()
    world.check_rollups()


def test_a_landing_keeps_only_its_own_hour_waiting(world: World) -> None:
    """Stopped while it reads, it lets everybody write but who lands the same hour; then both land."""

    def land(hour: datetime) -> int:
        now = world.settings.now()
        [landed] = land_hours(world.database.url, world.settings, hour, hour, now)
        return landed.files_landed

    assert land(HOURS[0]) == len(NAMES)
    world.write(HOURS[0], NAMES[0], EVENTS[::2])
    with ThreadPoolExecutor(2) as pool, world.database.connect() as other:
        other.execute("lock table landing.usage_events in share mode")
        first = pool.submit(land, HOURS[0])
        wait_until_it_waits(world, first, "relation is not null")
        assert world.rows("select pg_try_advisory_xact_lock(%s)", LEDGER_LOCK) == [(True,)]
        second = pool.submit(land, HOURS[0])
        wait_until_it_waits(world, second, "locktype = 'advisory'")
        other.rollback()
        assert [each.result(timeout=PATIENCE) for each in (first, second)] == [1, 0]
    world.note_landed(HOURS[0], HOURS[0])
    world.post([LEDGER], EVERYTHING)
    world.check_ledger()


def test_a_posting_reads_while_another_writes(world: World) -> None:
    """It waits for the ledger's lock with its batch made; who would change what it has read waits for its end."""

    def land() -> None:
        land_hours(world.database.url, world.settings, HOURS[0], HOURS[-1], world.settings.now())

    def erase() -> None:
        with world.database.connect() as connection:
            connection.execute("set role metering_erase")
            connection.execute(
                "select landing.erase_payloads('acme', array['none'], 'asked', 'somebody', now())"
            )

    def mend() -> None:
        rebuild_landing(world.database, str(world.root), HOURS[0], HOURS[-1] + HOUR, repair=True)

    def archive() -> None:
        archives = Archives(world.database, world.settings)
        with pytest.raises(ArchiveError, match="not older"):
            archive_day(
                world.database, archives, Stage.LANDING, HOURS[0].date(), world.settings.now()
            )

    land()
    world.note_landed(HOURS[0], HOURS[-1])
    world.write(HOURS[1], NAMES[0], EVENTS[::2])
    changes = (land, erase, mend, archive)
    with ThreadPoolExecutor(1 + len(changes)) as pool, world.database.connect() as other:
        other.execute("select pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))
        posting = pool.submit(world.post, [LEDGER], EVERYTHING)
        wait_until_it_waits(world, posting, f"objid = {LEDGER_LOCK}")
        waiting: list[Future[None]] = []
        for change in changes:
            known = [pid for (pid,) in world.rows(_WAITING, LANDED_LOCK)]
            waiting.append(pool.submit(change))
            wait_until_it_waits(
                world, waiting[-1], f"objid = {LANDED_LOCK} and pid <> all(array{known}::int[])"
            )
        other.rollback()
        for each in (posting, *waiting):
            each.result(timeout=PATIENCE)
    posted = "select landed_hour from landing.hours where posted_at is null"
    assert world.rows(posted) == [(HOURS[1],)]
    world.check_ledger()


def test_two_processes_run_the_same_hour(
    world: World, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill of all hours beside the run of one of them, from the command line."""
    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", pipeline.database.dagster_url)
    monkeypatch.setenv("METERING_FIRST_HOUR", f"{HOURS[0]:%Y-%m-%dT%H}")
    monkeypatch.setenv("METERING_LOOKBACK_HOURS", str(LOOKBACK // HOUR))
    pipeline.set_clock(world.settings.now())
    first, one, *_, last = (f"{hour:%Y-%m-%dT%H}" for hour in HOURS)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "from metering_pipeline.cli import main; main()", "run", *hours],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=PROJECT_ROOT,
        )
        for hours in (["--from", first, "--to", last], ["--hour", one])
    ]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    world.note_landed(HOURS[0], HOURS[-1])
    world.check_ledger()
    world.check_debts()
