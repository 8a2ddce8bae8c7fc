"""What something costs: wall time, and the CPU time of this process and of everything PostgreSQL does."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


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


def report(console: Console, results: list[Result]) -> None:
    """Print the results, with the machine."""
    table = Table(title=machine(), title_justify="left")
    for heading in ("size", "step", "events", "wall s", "CPU s", "events/s", "events/CPU s"):
        justify = "left" if heading in ("size", "step") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for each in results:
        table.add_row(
            each.size,
            each.step,
            f"{each.events:,}",
            _seconds(each.cost.wall),
            _seconds(each.cost.cpu),
            f"{each.per_second:,.0f}",
            f"{each.per_cpu_second:,.0f}",
        )
    console.print(table)


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.5f}"


def machine() -> str:
    """The machine in one line, and how busy it is."""
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{platform.platform()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python"
        f" {platform.python_version()}; load of the last minute {load:.1f}"
    )
