"""What something costs: wall time, and the CPU time of this process and of everything PostgreSQL does."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


@dataclass(frozen=True)
class Result:
    """One measured step over so many events."""

    size: str
    step: str
    events: int
    cost: Cost

    @property
    def per_second(self) -> float:
        return self.events / self.cost.wall

    @property
    def per_cpu_second(self) -> float:
        return self.events / self.cost.cpu


@dataclass(frozen=True)
class Ratio:
    """How many times the one step costs what the other does."""

    more: Result
    less: Result

    @property
    def wall(self) -> float:
        return self.more.cost.wall / self.less.cost.wall

    @property
    def cpu(self) -> float:
        return self.more.cost.cpu / self.less.cost.cpu


@dataclass(frozen=True)
class Reading:
    """A question asked of one source again and again: each answer's milliseconds, and their CPU time's mean."""

    size: str
    question: str
    source: str
    milliseconds: Sequence[float]
    cpu_milliseconds: float

    def quantile(self, share: float) -> float:
        """The smallest time within which that share of the answers came."""
        in_order = sorted(self.milliseconds)
        return in_order[max(0, -int(-share * len(in_order) // 1) - 1)]


@dataclass(frozen=True)
class Run:
    """Landing hours through Dagster as one run: its cost, and the wall seconds of its steps."""

    events: int
    cost: Cost
    steps: Mapping[str, float]


@dataclass
class Report:
    """What was measured, told as it comes and in tables at the end."""

    console: Console
    results: list[Result] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    at_once: int = 1
    all_runs: Cost | None = None
    """Of all runs together, where several stand side by side."""
    disk: Mapping[str, float] = field(default_factory=dict)
    """Bytes an event, by stage."""

    def note(self, text: str) -> None:
        self.console.print(f"[dim]{datetime.now():%H:%M:%S}[/dim] {text}")  # noqa: DTZ005  (for the reader's watch)

    def add(self, size: str, step: str, events: int, cost: Cost) -> Result:
        result = Result(size, step, events, cost)
        self.results.append(result)
        self.note(f"{size}: {step}: {cost.wall:.2f} s, {cost.cpu:.2f} CPU s")
        return result

    def add_reading(self, reading: Reading) -> None:
        self.readings.append(reading)
        self.note(
            f"{reading.size}: {reading.question} from {reading.source}: {reading.quantile(0.5):.2f} ms"
        )

    def add_run(self, run: Run) -> None:
        self.runs.append(run)
        self.note(
            f"run {len(self.runs)}: {run.events:,} events in {run.cost.wall:.2f} s, {run.cost.cpu:.2f} CPU s"
        )

    def print(self) -> None:
        """The results as tables, below a line about the machine; those that are empty are left out."""
        self.console.print(machine())
        for table in (
            _results(self.results),
            _ratios(self.ratios),
            _readings(self.readings),
            _runs(self.runs, self.at_once, self.all_runs),
        ):
            if table.row_count:
                self.console.print(table)
        for stage, size in self.disk.items():
            self.console.print(f"{stage}: {size:.0f} bytes on disk an event, with its indexes")


def cost_of(server: psutil.Process, work: Callable[[], object]) -> Cost:
    """Do the work; what it cost."""
    cpu, started = _cpu(server), time.perf_counter()
    work()
    wall = time.perf_counter() - started
    time.sleep(0.2)  # backends that end are counted by their parent
    return Cost(wall, _cpu(server) - cpu)


def _cpu(server: psutil.Process) -> float:
    times = server.cpu_times()
    spent = times.user + times.system + times.children_user + times.children_system
    for child in server.children():
        try:
            its = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += its.user + its.system
    return spent + time.process_time()


def _table(title: str, *headings: str, texts: int) -> Table:
    """A table whose first columns, so many, are texts."""
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < texts else "right", no_wrap=True)
    return table


def _results(results: Sequence[Result]) -> Table:
    table = _table(
        "Steps", "size", "step", "events", "wall s", "CPU s", "events/s", "events/CPU s", texts=2
    )
    for each in results:
        table.add_row(
            each.size,
            each.step,
            f"{each.events:,}",
            f"{each.cost.wall:.2f}",
            f"{each.cost.cpu:.2f}",
            f"{each.per_second:,.0f}",
            f"{each.per_cpu_second:,.0f}",
        )
    return table


def _ratios(ratios: Sequence[Ratio]) -> Table:
    table = _table(
        "How many times as much", "size", "step", "costs that of", "wall", "CPU", texts=3
    )
    for each in ratios:
        table.add_row(
            each.more.size,
            each.more.step,
            each.less.step,
            f"{each.wall:,.1f}",
            f"{each.cpu:,.1f}",
        )
    return table


FEW_READINGS = 100
"""Below that many, a 99th percentile is the maximum by another name."""


def _readings(readings: Sequence[Reading]) -> Table:
    table = _table(
        "Reading: prepared, timed on the client until the last row is there",
        *(
            "size",
            "question",
            "source",
            "asked",
            "p50 ms",
            "p99 ms",
            "CPU ms",
            "p50, of the rollup's",
        ),
        texts=3,
    )
    for each in readings:
        rollup = next(  # the source that is asked first
            one for one in readings if (one.size, one.question) == (each.size, each.question)
        )
        several = len(each.milliseconds) >= FEW_READINGS
        table.add_row(
            each.size,
            each.question,
            each.source,
            str(len(each.milliseconds)),
            f"{each.quantile(0.5):,.2f}",
            f"{each.quantile(0.99):,.2f}" if several else "",
            f"{each.cpu_milliseconds:,.2f}",
            f"{each.quantile(0.5) / rollup.quantile(0.5):,.1f} times",
        )
    return table


def _runs(runs: Sequence[Run], at_once: int, together: Cost | None) -> Table:
    """The first run, the last one, the slowest and all; the steps in wall seconds."""
    steps = list(runs[0].steps) if runs else []
    table = _table(
        "File to rollup through Dagster; the steps in wall seconds",
        *("run", "events", "wall s", "CPU s", "events/s", *steps),
        texts=1,
    )
    if not runs:
        return table
    slowest = max(range(len(runs)), key=lambda place: runs[place].cost.wall)
    all_of_them = together or sum((run.cost for run in runs), Cost(0, 0))
    beside = f", {at_once} at a time" if at_once > 1 else ""
    rows = [
        ("first", runs[:1], runs[0].cost),
        ("last", runs[-1:], runs[-1].cost),
        (f"slowest: {slowest + 1}", [runs[slowest]], runs[slowest].cost),
        (f"all {len(runs)}{beside}", runs, all_of_them),
    ]
    for name, some, cost in rows:
        events = sum(run.events for run in some)
        table.add_row(
            name,
            f"{events:,}",
            f"{cost.wall:,.2f}",
            f"{cost.cpu:,.2f}",
            f"{events / cost.wall:,.0f}",
            *(f"{sum(run.steps[step] for run in some):,.2f}" for step in steps),
        )
    return table


def machine() -> str:
    """The machine in one line, and how busy it is."""
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{platform.platform()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python"
        f" {platform.python_version()}; load of the last minute {load:.1f}"
    )
