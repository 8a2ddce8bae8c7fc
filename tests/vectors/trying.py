"""Tries cases: all of a world at once, round after round, until each has answered."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import localcontext
from functools import partial

import psycopg
from psycopg import sql

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.postgres import Database
from tests.dbt.company import Row
from tests.vectors import documents, money, periods, prices, usage  # noqa: F401 they register how cases are asked
from tests.vectors.asking import KINDS, Asking, Kind, Wait
from tests.vectors.cases import (
    Answer,
    Case,
    Given,
    NotSupportedError,
    Outcome,
    instant,
    judge,
)
from tests.vectors.world import Customer, HeldBackError, World

EARLIEST_START = 2030
FAR_OFF = datetime(2500, 1, 1, tzinfo=UTC)
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
        try:
            self.waits_for = self._next()
        except StopIteration as answered:
            self._judge(answered.value)
        except NotSupportedError as error:
            self.customer.world.forget(self.customer.name)
            self.end(Outcome(self.case, "not supported", str(error)))
        except HeldBackError as error:
            self.end(Outcome(self.case, "failed", f"its invoice is held: {error}"))
        except Exception as error:  # noqa: BLE001 a case of any shape must not stop the others
            self.customer.world.forget(self.customer.name)
            self.end(Outcome(self.case, "failed", f"no answer: {error!r}"))

    def _next(self) -> Wait:
        if self.asking:
            return next(self.asking)
        given = Given(self.case.inputs)
        given.take("op", None)
        self.asking = KINDS[self.case.kind].ask(given, self.customer)
        waits_for = next(self.asking)
        if unknown := given.unknown():
            raise NotSupportedError(f"unknown key {', '.join(unknown)}")
        return waits_for

    def _judge(self, answer: Answer) -> None:
        try:
            self.end(judge(self.case, answer))
        except (NotSupportedError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            self.end(Outcome(self.case, "not supported", f"expected is of another form: {error!r}"))

    def refuse(self, problem: Row) -> None:
        """The catalog did not take it; a case may expect that."""
        if self.case.expected.get("error"):
            self._judge({"error": True})
        elif problem["column_name"] == "currency":
            reason = f"the currency {problem['value']} is not in the catalog"
            self.end(Outcome(self.case, "not supported", reason))
        else:
            said = "{catalog_table} {row_key}: {column_name} {value} {problem}".format_map(problem)
            self.end(Outcome(self.case, "failed", f"the catalog refuses it: {said}"))

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
        try:
            worlds[_kind(case).world_of(case)].append(number)
        except NotSupportedError as error:
            outcomes[number] = Outcome(case, "not supported", str(error))
    for (_, grace_hours), numbers in worlds.items():
        make_world = partial(_make_world, make_database, start, grace_hours)
        outcomes |= _try_together({number: cases[number] for number in numbers}, make_world)
    return [outcomes[number] for number in range(len(cases))]


def _kind(case: Case) -> Kind:
    if case.kind not in KINDS:
        raise NotSupportedError(f"unknown operation {case.kind}")
    return KINDS[case.kind]


def _make_world(make_database: MakeDatabase, start: datetime, grace_hours: int) -> World:
    return World(make_database(), start, grace_hours)


def _try_together(cases: Mapping[int, Case], make_world: Callable[[], World]) -> dict[int, Outcome]:
    """What became of the cases of a world; one that breaks it for all is found by halves."""
    try:
        return _try_in(make_world, cases)
    except Exception as error:  # noqa: BLE001 whatever a case makes the models do
        numbers = list(cases)
        if len(numbers) == 1:
            _try_in(make_world, {})  # what breaks without it too is not the case's
            reason = f"the models broke: {error!r}"
            return {number: Outcome(cases[number], "failed", reason) for number in numbers}
        middle = len(numbers) // 2
        halves = (
            {number: cases[number] for number in half}
            for half in (numbers[:middle], numbers[middle:])
        )
        return {
            n: outcome for half in halves for n, outcome in _try_together(half, make_world).items()
        }


def _try_in(make_world: Callable[[], World], cases: Mapping[int, Case]) -> dict[int, Outcome]:
    with closing(make_world()) as world:
        trials = {
            number: Trial(case, Customer(world, f"case-{number}", latest=_latest(case)))
            for number, case in cases.items()
        }
        _run(world, trials.values())
        if not trials:
            world.rate()
    return {number: trial.outcome for number, trial in trials.items() if trial.outcome}


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
    """The latest day that a case names, but for one that is as far off as never."""
    words = re.findall(r"\b\d{4}-\d{2}-\d{2}", json.dumps(dict(case.inputs), default=str))
    days = []
    for word in words:
        with suppress(NotSupportedError):
            days.append(instant(word))
    return max((day for day in days if day < FAR_OFF), default=None)


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
