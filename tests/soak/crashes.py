"""Kills at random moments: of the pipeline's process, and of the whole PostgreSQL server. Whatever was cut
off, the next run makes it good, without anybody's help: nothing is lost, nothing doubled."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg

from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import PIPELINE_LOCKS
from metering_pipeline.settings import END_OF_TIME, HOUR, PROJECT_ROOT
from metering_pipeline.transform import dbt
from tests.soak.posting import DAILY, LEDGER, ROLLUPS, through_dbt
from tests.soak.servers import Place, own_server, publish_catalog
from tests.soak.world import HOURS, Event, World

PHASES = ("landing", "ledger", "rollups", "days", "late arrivals")
EVENTS_A_FILE = 2_500
ROUNDS_A_WORLD = 8
"""After so many rounds everything begins anew: the superseded versions of files add up."""
HANGS_SECONDS = 120.0
FREE_SECONDS = 30.0
"""The longest that the work of a killed process may still hold the pipeline's locks."""

State = tuple[str, bool]
"""A phase, and whether the run is within a transaction of it."""

Progress = Callable[[str], None]
Mark = Callable[[str], None]


@dataclass
class Report:
    """What was killed where, and what became of it."""

    what: str
    killed: Counter[State] = field(default_factory=Counter)
    comparisons: int = 0
    longest_free: float = 0.0
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        return self.killed.total()

    def __str__(self) -> str:
        phases = sorted({phase for phase, _ in self.killed})
        lines = [
            f"{self.kills} kills of {self.what} in {self.seconds:.0f} s, {self.comparisons} times run again"
            " and compared: nothing lost, nothing doubled",
            *(
                f"  {phase}: {self.killed[phase, True]} within a transaction,"
                f" {self.killed[phase, False]} between transactions"
                for phase in phases
            ),
        ]
        if self.longest_free:
            lines.append(
                f"  the pipeline's locks were free again after at most {self.longest_free:.1f} s"
            )
        return "\n".join(lines)


# What is killed


def run_hours(world: World, first: datetime, last: datetime, mark: Mark) -> None:
    """What the job hourly does, by the functions that its assets call."""
    post = through_dbt(world.database)
    mark("landing")
    land_hours(world.database.url, world.settings, first, last, world.settings.now())
    mark("ledger")
    post([LEDGER], Window(first, last + HOUR))
    mark("rollups")
    post(ROLLUPS, Window(first, END_OF_TIME))
    mark("days")
    post([DAILY], Window(first, END_OF_TIME))


def run_late_arrivals(world: World, mark: Mark) -> None:
    """What the job late_arrivals does."""
    from metering_pipeline.transform.late_arrivals import release_late_arrivals

    mark("late arrivals")
    release_late_arrivals(world.database)
    through_dbt(world.database)((*ROLLUPS, DAILY), Window(HOURS[0], END_OF_TIME))


def run_pipeline(world: World, first: datetime, last: datetime, mark: Mark) -> None:
    """Both jobs."""
    run_hours(world, first, last, mark)
    run_late_arrivals(world, mark)


def run_what_waits(world: World, mark: Mark) -> None:
    """What the daemon does after a crash: the hours that its sensor finds, then the hour's own run."""
    listing = list_hours(world.database.url, world.settings, world.settings.now())
    waiting = {*listing.unlanded_hours, *listing.unposted_hours}
    for hour in sorted(waiting - {HOURS[-1]}):
        run_hours(world, hour, hour, mark)
    run_pipeline(world, HOURS[-1], HOURS[-1], mark)


class Worker:
    """A forked process that runs the pipeline, and says on a pipe which phase it has begun.

    A start with its imports costs ten seconds, a fork none. It is sound because the process that
    forks has imported and parsed everything, but has no connection, and no thread of dbt's or of
    Arrow's, whose locks a child could inherit.
    """

    def __init__(self, world: World, work: Callable[[Mark], None]) -> None:
        world.close()
        reading, writing = os.pipe()
        self.started = time.monotonic()
        self.log = world.root.parent / "worker.log"
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            _be_worker(work, writing, self.log)
        os.close(writing)
        self._marks = reading
        os.set_blocking(reading, False)
        self.begun: list[tuple[str, float]] = []
        self.code: int | None = None

    def look(self) -> str | None:
        """The phase that it is in; None before the first."""
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self._marks, 4096):
                now = time.monotonic()
                self.begun += [(phase, now) for phase in text.decode().splitlines()]
        return self.begun[-1][0] if self.begun else None

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.look()
                os.close(self._marks)
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        while not self.ended():
            assert time.monotonic() - self.started < HANGS_SECONDS, self._hangs()
            self.look()
            time.sleep(0.002)
        assert self.code is not None
        return self.code

    def succeed(self) -> None:
        assert self.wait() == 0, self.log.read_text()[-4000:]

    def _hangs(self) -> str:
        os.kill(self.pid, signal.SIGKILL)
        return f"hangs in {self.begun}: {self.log.read_text()[-4000:]}"


def _be_worker(work: Callable[[Mark], None], writing: int, log: Path) -> None:
    """Never returns."""
    code = 1
    try:
        with log.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        with os.fdopen(writing, "w") as told:
            work(lambda phase: print(phase, file=told, flush=True))
        code = 0
    except BaseException:  # noqa: BLE001 - the parent reads it in the log
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


# The harness


class Harness:
    """A world whose pipeline is killed and run again."""

    def __init__(self, place: Place, chosen: int, what: str, progress: Progress) -> None:
        self.place = place
        self.random = random.Random(chosen)
        self.report = Report(what)
        self.progress = progress
        self.rounds = 0
        self.lasts: dict[State, float] = {}
        """How long a run that nobody killed has been in each state, in seconds."""
        self.world = World(place.database, place.folder / "landing", through_dbt(place.database))

    def change_files(self) -> None:
        """Up to three files come, or come with other content."""
        if self.rounds % ROUNDS_A_WORLD == 0:
            self.world.begin_anew()
        self.rounds += 1
        for _ in range(self.random.randint(1, 3)):
            hour = self.random.choice(HOURS)
            events = [self.event(hour) for _ in range(self.random.choice([0, 10, EVENTS_A_FILE]))]
            self.world.write(hour, self.random.choice(["a.ndjson", "B.ndjson"]), events)
        self.world.note_landed(HOURS[0], HOURS[-1])  # at the end of the round

    def event(self, landed: datetime) -> Event:
        """One of some thousand events, in one of their copies."""
        choose = self.random.randrange
        at = HOURS[0] - timedelta(hours=choose(3), minutes=choose(4), microseconds=choose(3))
        event = {
            "tenant_id": f"tenant-{choose(4)}",
            "event_type": "storage.snapshot" if choose(5) == 0 else "api.request",
            "occurred_at": at.isoformat(),
            "correlation_id": f"c{choose(40)}",
        }
        if choose(30) == 0:
            return event | {"void": True}
        model = "small" if choose(20) else "large"
        return event | {
            "quantity": 1 + choose(2),
            "properties": {"input_tokens": 3, "model": model, "output_tokens": 7},
        }

    def window(self) -> tuple[datetime, datetime]:
        first, last = sorted(self.random.choices(HOURS, k=2))
        return first, last

    def worker(self) -> Worker:
        first, last = self.window()
        return Worker(self.world, lambda mark: run_pipeline(self.world, first, last, mark))

    def wait_for_moment(self, worker: Worker, connection: psycopg.Connection) -> State | None:
        """Until a random moment of a random state, the state then; None if the worker was faster."""
        target = self.random.choice(sorted(self.lasts))
        moment = self.random.random() * self.lasts[target]
        entered: float | None = None
        while not worker.ended():
            state = self.state(worker, connection)
            if state == target and entered is None:
                entered = time.monotonic()
            if state and entered is not None and time.monotonic() >= entered + moment:
                return state
            assert time.monotonic() - worker.started < HANGS_SECONDS, worker.log.read_text()
            time.sleep(0.001)
        return None

    def state(self, worker: Worker, connection: psycopg.Connection) -> State | None:
        inside = any(self.backends(connection))
        phase = worker.look()
        return (phase, inside) if phase else None

    def measure(self) -> None:
        """Let a run be, and see how long it is in which state."""
        self.change_files()
        whole = self.whole_run()
        with self.world.database.connect(autocommit=True) as connection:
            seen = time.monotonic()
            while not whole.ended():
                state = self.state(whole, connection)
                seen, before = time.monotonic(), seen
                if state:
                    self.lasts[state] = self.lasts.get(state, 0) + seen - before
                time.sleep(0.001)
        whole.succeed()

    def whole_run(self) -> Worker:
        return Worker(self.world, lambda mark: run_pipeline(self.world, HOURS[0], HOURS[-1], mark))

    def recover(self) -> None:
        """Run again, as a person or the daemon would; then compare."""
        if self.random.random() < 0.5:
            self.whole_run().succeed()
        else:
            Worker(self.world, lambda mark: run_what_waits(self.world, mark)).succeed()
        self.world.check_ledger()
        self.world.check_debts()
        self.world.check_rollups()
        self.report.comparisons += 1
        self.progress(f"{self.report.kills} kills of {self.report.what}")

    def backends(self, connection: psycopg.Connection) -> list[bool]:
        """The pipeline's sessions: whether each is within a transaction."""
        rows = connection.execute(
            "select xact_start is not null from pg_stat_activity"
            " where datname = 'metering' and backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return [inside for (inside,) in rows]

    def wait_until_free(self, connection: psycopg.Connection) -> None:
        """The killed process's transaction ends by itself, and the pipeline's locks come free."""
        killed = time.monotonic()
        while self.backends(connection):
            assert time.monotonic() - killed < FREE_SECONDS, "a killed process's session lives on"
            time.sleep(0.01)
        for lock in PIPELINE_LOCKS:
            got = connection.execute("select pg_try_advisory_lock(%s)", (lock,)).fetchone()
            assert got == (True,)
        self.report.longest_free = max(self.report.longest_free, time.monotonic() - killed)

    def kill_process(self) -> None:
        """Kill a run at a random moment. One that was faster is not counted."""
        worker = self.worker()
        with self.world.database.connect(autocommit=True) as connection:
            state = self.wait_for_moment(worker, connection)
            if state is None:
                worker.succeed()
                return
            worker.kill()
            self.report.killed[state] += 1
            self.wait_until_free(connection)

    def kill_server(self) -> None:
        """Kill the server with all its processes at a random moment of a run, and start it again."""
        worker = self.worker()
        with self.world.database.connect(autocommit=True) as connection:
            state = self.wait_for_moment(worker, connection)
        if state is None:
            worker.succeed()
            return
        main = self.place.server.process()
        assert main is not None
        family = [main, *main.children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=10)
        worker.wait()  # by itself: with an error, unless it was done
        self.report.killed[state] += 1
        address = self.place.server.start()
        assert address.url("metering") == self.world.database.url, "it has another port"


def _parsed() -> None:
    """Import and parse all that workers need, in this thread: dbt's own would not survive a fork."""
    # Workers that are killed cannot give back dbt's semaphores: the one who does it would complain.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    dbt._parse("metering")
    import metering_pipeline.transform.late_arrivals  # noqa: F401 - reads what was parsed


@contextlib.contextmanager
def _harness(
    options: Mapping[str, str], chosen: int, what: str, progress: Progress
) -> Iterator[Harness]:
    with own_server(options) as place:
        _parsed()
        harness = Harness(place, chosen, what, progress)
        Worker(harness.world, lambda _: publish_catalog(place.database)).succeed()
        started = time.monotonic()
        try:
            yield harness
        finally:
            harness.report.seconds = time.monotonic() - started
            harness.world.close()


def kill_workers(count: int, chosen: int, progress: Progress) -> str:
    """Kill runs of the stages' functions at random moments, up to three in a row."""
    with _harness({}, chosen, "the pipeline's process", progress) as harness:
        harness.measure()
        while harness.report.kills < count:
            harness.change_files()
            for _ in range(harness.random.randint(1, 3)):
                harness.kill_process()
            harness.recover()
    return str(harness.report)


def kill_servers(count: int, chosen: int, progress: Progress) -> str:
    """Kill the server under runs, up to twice in a row; it has its own settings, fsync included."""
    with _harness({}, chosen, "the PostgreSQL server", progress) as harness:
        harness.measure()
        while harness.report.kills < count:
            harness.change_files()
            for _ in range(harness.random.randint(1, 2)):
                harness.kill_server()
            harness.recover()
    return str(harness.report)


def kill_command_lines(count: int, chosen: int, progress: Progress) -> str:
    """Kill whole processes of ``metering run`` at random moments, and let the next one go on."""
    with _harness({}, chosen, "metering run", progress) as harness:
        harness.change_files()
        started = time.monotonic()
        _command_line(harness).wait()
        lasts = time.monotonic() - started
        while harness.report.kills < count:
            harness.change_files()
            harness.world.close()
            process = _command_line(harness)
            with harness.world.database.connect(autocommit=True) as connection:
                time.sleep(lasts * harness.random.uniform(0.3, 0.95))
                inside = any(harness.backends(connection))
                if process.poll() is None:
                    process.kill()
                    harness.report.killed["a run", inside] += 1
                process.wait()
                harness.wait_until_free(connection)
            again = _command_line(harness)
            assert again.wait(HANGS_SECONDS) == 0, harness.world.root.parent / "metering.log"
            harness.world.check_ledger()
            harness.world.check_debts()
            harness.report.comparisons += 1
            progress(f"{harness.report.kills} kills of metering run")
    return str(harness.report)


def _command_line(harness: Harness) -> subprocess.Popen[bytes]:
    settings = harness.world.settings
    environment: dict[str, Any] = os.environ | {
        "METERING_DATABASE_URL": harness.world.database.url,
        "METERING_DAGSTER_DATABASE_URL": harness.world.database.dagster_url,
        "METERING_LANDING_URL": settings.landing_root,
        "METERING_FIRST_HOUR": f"{settings.first_hour:%Y-%m-%dT%H}",
        "METERING_LOOKBACK_HOURS": str(settings.lookback_hours),
        "METERING_CLOCK": settings.now().isoformat(),
    }
    hours = [f"{hour:%Y-%m-%dT%H}" for hour in (HOURS[0], HOURS[-1])]
    command = "from metering_pipeline.cli import main; main()"
    with (harness.world.root.parent / "metering.log").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", command, "run", "--from", hours[0], "--to", hours[1]],
            stdout=output,
            stderr=output,
            cwd=PROJECT_ROOT,
            env=environment,
        )
