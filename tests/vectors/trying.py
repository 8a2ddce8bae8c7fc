"""Tries cases: all of a world at once, round after round, until each has answered."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import localcontext

import psycopg
from psycopg import sql

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.postgres import Database
from tests.vectors import documents, money, periods, prices, usage  # noqa: F401 they register how cases are asked
from tests.vectors.asking import KINDS, Asking, Wait
from tests.vectors.cases import Case, Given, NotSupportedError, Outcome, instant, judge
from tests.vectors.world import Customer, HeldBackError, World

EARLIEST_START = 2030
EXACT = 100
"""Digits: Python's own 28 would round what PostgreSQL keeps."""

MakeDatabase = Callable[[], Database]


@dataclass
class Trial:
    """A case on its way: what it waits for, or what became of it."""

    case: Case
    customer: Customer
    asking: Asking | None = None
    waits_for: Wait | None = None
    outcome: Outcome | None = None

    def go_on(self) -> None:
        """Let it answer, or write what it needs for the next round."""
        given = Given(self.case.inputs)
        try:
            if self.asking is None:
                given.take("op", None)
                self.asking = KINDS[self.case.kind].ask(given, self.customer)
                self.waits_for = next(self.asking)
                if unknown := given.unknown():
                    raise NotSupportedError(f"unknown key {', '.join(unknown)}")
            else:
                self.waits_for = next(self.asking)
        except StopIteration as answered:
            self.end(judge(self.case, answered.value))
        except NotSupportedError as error:
            self.customer.world.forget(self.customer.name)
            self.end(Outcome(self.case, "not supported", str(error)))
        except HeldBackError as error:
            self.end(Outcome(self.case, "failed", f"its invoice is held: {error}"))
        except (ArithmeticError, LookupError, TypeError, ValueError, psycopg.Error) as error:
            self.end(Outcome(self.case, "failed", f"no answer: {error!r}"))

    def refuse(self, problem: str) -> None:
        """The catalog did not take it; a case may expect that."""
        if "error" in self.case.expected:
            self.end(judge(self.case, {"error": True}))
        else:
            self.end(Outcome(self.case, "failed", f"the catalog refuses it: {problem}"))

    def end(self, outcome: Outcome) -> None:
        self.outcome, self.waits_for = outcome, None


def try_cases(cases: Sequence[Case], make_database: MakeDatabase) -> list[Outcome]:
    """What became of each case, in order; a new database for each world."""
    with localcontext(prec=EXACT):
        return _try(cases, make_database)


def _try(cases: Sequence[Case], make_database: MakeDatabase) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    start = _after_every_date(cases)
    worlds: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        if case.kind in KINDS:
            worlds[KINDS[case.kind].world_of(case)].append(number)
    for (_, grace_hours), numbers in worlds.items():
        with closing(World(make_database(), start, grace_hours)) as world:
            trials = [
                Trial(cases[each], Customer(world, f"case-{each}", latest=_latest(cases[each])))
                for each in numbers
            ]
            _run(world, trials)
        outcomes |= {
            number: trial.outcome
            for number, trial in zip(numbers, trials, strict=True)
            if trial.outcome
        }
    return [
        outcomes.get(number) or Outcome(case, "not supported", f"unknown operation {case.kind}")
        for number, case in enumerate(cases)
    ]


def _run(world: World, trials: Iterable[Trial]) -> None:
    by_name = {trial.customer.name: trial for trial in trials}
    for trial in by_name.values():
        trial.go_on()
    while any(trial.waits_for for trial in by_name.values()):
        for name, problem in world.rate().items():
            by_name[name].refuse(problem)
        issued = [trial for trial in by_name.values() if trial.waits_for == "issued"]
        for trial in [trial for trial in by_name.values() if trial.waits_for == "rated"]:
            trial.go_on()
        if issued:
            world.issue()
        for trial in issued:
            trial.go_on()
        world.next_round()


def _latest(case: Case) -> datetime | None:
    """The end of the latest day that a case names."""
    days = re.findall(r"\b\d{4}-\d{2}-\d{2}", json.dumps(dict(case.inputs)))
    return instant(max(days)) + timedelta(days=1) if days else None


def _after_every_date(cases: Sequence[Case]) -> datetime:
    """The first day of a year that no case reaches."""
    years = [latest.year + 2 for latest in map(_latest, cases) if latest]
    return datetime(max([EARLIEST_START, *years]), 1, 1, tzinfo=UTC)


def on_server(server: EmbeddedServer) -> MakeDatabase:
    """A maker of empty databases on a server, each in the place of the one before."""

    def make() -> Database:
        address = server.start()
        with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
            for statement in ("drop database if exists {} with (force)", "create database {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier("metering")))
        return Database(url=address.url("metering"), dagster_url=address.url("dagster"))

    return make
