"""A recurring metric carries its balance: every line against plain Python over the events, late ones too."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from metering_pipeline.invoices.issuing import issue
from metering_pipeline.invoices.statement.page import compose
from metering_pipeline.invoices.statement.reading import read
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.reconciliation.independent_rating import rounded
from metering_pipeline.reconciliation.laws import LAWS, evaluate
from metering_pipeline.settings import Settings
from tests.dbt.company import Company, instant
from tests.postgres.billing_world import CATALOG, World, after

METRICS = {"level": "sum", "seats": "unique_count", "store": "weighted_sum"}
TENANTS = ("plain", "tried", "half")
IDLE = "idle"
"""A tenant with one event in January and none ever after."""

JANUARY, FEBRUARY, MARCH = date(2026, 2, 9), date(2026, 3, 9), date(2026, 4, 9)
"""Billing dates: each after the grace period of every tenant's month."""


@dataclass(frozen=True)
class Event:
    """An event and the landing round in which it comes; a void comes later, or never."""

    tenant: str
    metric: str
    at: datetime
    value: str
    removes: bool
    landed: int
    voided: int

    def stands(self, landing: int) -> bool:
        return self.landed <= landing < self.voided


def events(seed: int) -> list[Event]:
    """Usage from before any subscription to the end of March; each fifth is late, each eighth voided."""
    dice = random.Random(seed)
    start, months = instant("2025-12-30T00:00Z"), (JANUARY, FEBRUARY)
    made = [Event(IDLE, "level", instant("2026-01-10T08:00Z"), "7", False, 0, 9)]
    for tenant in TENANTS:
        for number in range(120):
            metric = dice.choice([*METRICS])
            at = start + timedelta(seconds=dice.randrange(90 * 86400))
            if number % 10 == 0:  # within the hours that edges cut
                at = at.replace(day=5, hour=4, minute=dice.choice([46, 47, 48]))
            landed = sum(at.date() >= each.replace(day=5) for each in months)
            late = 0 if dice.random() < 0.8 else dice.choice([1, 2])
            made.append(
                Event(
                    tenant,
                    metric,
                    at,
                    str(
                        dice.randrange(5) if metric == "seats" else dice.randrange(-900, 2000) / 100
                    ),
                    metric == "seats" and dice.random() < 0.4,
                    min(landed + late, 2),
                    dice.choice([landed + 1, landed + 2]) if dice.random() < 0.12 else 9,
                )
            )
    return made


def sell(company: Company) -> None:
    """One that is plain, one with a trial, and one whose periods cut hours."""
    company.add_plan("all")
    for metric, aggregation in METRICS.items():
        row = company.add_metric(metric, aggregation)
        row |= {"event_type": f"{metric}.changed", "value_property": "value", "recurring": "true"}
        company.add_charge(metric, "all", [(None, "1.25", 0)], metric, model="per_unit")
    company.subscribe("plain", "all")
    company.subscribe(IDLE, "all")
    tried = company.subscribe("tried", "all")
    tried["trial_ends_at"] = "2026-01-20T00:00:00Z"
    company.subscribe(
        "half", "all", start="2026-01-05T04:47:00Z", zone="Asia/Kolkata", anchor="2026-01-05",
        anchor_time="10:17",
    )  # fmt: skip


STARTS = {
    "plain": instant("2026-01-01T00:00Z"),
    IDLE: instant("2026-01-01T00:00Z"),
    "tried": instant("2026-01-01T00:00Z"),
    "half": instant("2026-01-05T04:47Z"),
}


def counted(known: Sequence[Event], line: Any) -> list[Event]:
    """The events that a line counts, in their order."""
    return sorted(
        (
            each
            for each in known
            if (each.tenant, each.metric) == (line["tenant_id"], line["metric"])
            and STARTS[each.tenant] <= each.at < line["slice_end"]
        ),
        key=lambda each: each.at,
    )


def quantity(known: Sequence[Event], line: Any) -> Decimal:
    """What a line's quantity must be."""
    if line["metric"] == "seats":
        state = {each.value: each.removes for each in counted(known, line)}
        return Decimal(sum(not removed for removed in state.values()))
    start, end = line["slice_start"], line["slice_end"]
    total = Fraction(0)
    for each in counted(known, line):
        left = min(end - each.at, end - start) if line["metric"] == "store" else end - start
        total += Fraction(each.value) * Fraction(left / timedelta(microseconds=1)) / Fraction(
            (end - start) / timedelta(microseconds=1)
        )  # fmt: skip
    return rounded(total, 18)


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    """A world in which no event comes too late to be rolled up."""
    patient = open_database(
        Settings(
            database_url=database.url,
            dagster_database_url=database.dagster_url,
            lookback_hours=24 * 200,
        )
    )
    with patient.connect(autocommit=True) as connection:
        yield World(patient, connection)


def land(world: World, made: Sequence[Event], landing: int, hour: str) -> None:
    """The events of a round, and the voids of those that no longer stand."""
    rows = [
        {
            "tenant_id": each.tenant,
            "event_type": f"{each.metric}.changed",
            "occurred_at": each.at,
            "correlation_id": str(number),
            "properties": f'{{"value":"{each.value}","operation":"{"remove" if each.removes else "add"}"}}',
            "void": void,
        }
        for void in (False, True)
        for number, each in enumerate(made)
        if (each.voided if void else each.landed) == landing
    ]
    world.land(hour, f"{landing}.ndjson", rows)


def check_lines(company: Company, known: Sequence[Event]) -> list[dict[str, Any]]:
    lines = company.rows("select * from rating.rated_lines order by tenant_id, metric, slice_start")
    for line in lines:
        key = line["tenant_id"], line["metric"], line["slice_start"]
        assert line["quantity"] == quantity(known, line), key
        assert line["event_count"] == len(counted(known, line)), key
    return lines


def laws(world: World) -> set[tuple[str, str | None]]:
    """What fails, over all time."""
    first, end = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)
    return {
        (each.law, each.tenant_id)
        for law in LAWS
        for each in evaluate(world.connection, law, first, end, end)
        if not each.passed
    }


@pytest.mark.parametrize("seed", [5])
def test_a_balance_is_carried_from_period_to_period(world: World, seed: int) -> None:
    """Three months billed one after the other; late usage and voids adjust every later month."""
    company = Company(world.connection)
    sell(company)
    company.load_catalog()
    made = events(seed)
    billed: dict[tuple[Any, ...], Decimal] = {}
    sealed = "2025-12-30"
    for landing, billing_date in enumerate((JANUARY, FEBRUARY, MARCH)):
        hour = f"{billing_date.replace(day=6)}T00:00"
        end = f"{billing_date + timedelta(days=1)}"
        world.seal(sealed, end)
        land(world, made, landing, hour)
        world.run(hour, f"{billing_date.replace(day=6)}T01:00", *(CATALOG if landing == 0 else ()))
        sealed = end

        known = [each for each in made if each.stands(landing)]
        lines = check_lines(company, known)
        assert {line["metric"] for line in lines} == {*METRICS}
        assert laws(world) == set()

        report = issue(world.database, billing_date, after(billing_date))
        assert report.held == []
        issued = company.rows(
            "select * from invoices.issued_invoice_lines inner join invoices.issued_invoices"
            " using (invoice_number) where billing_date = %s", billing_date,
        )  # fmt: skip
        (idle,) = [each for each in issued if each["tenant_id"] == IDLE]
        assert idle["amount"] == Decimal("8.75")
        (shown,) = compose(read(world.connection, idle["invoice_number"])).usage
        first = ["10 Jan 2026", "until 31 Jan 2026", "until 28 Feb 2026"][landing]
        assert shown.days == [(first, "7", "1")]
        key = ("tenant_id", "charge_id", "slice_start")
        for line in issued:
            of = tuple(line[each] for each in key)
            billed[of] = billed.get(of, Decimal(0)) + line["amount"]
        due = {
            tuple(line[each] for each in key): line["amount"]
            for line in lines
            if line["slice_end"] <= datetime.combine(billing_date, datetime.min.time(), UTC)
        }
        assert {of: amount for of, amount in billed.items() if amount} == {
            of: amount for of, amount in due.items() if amount
        }
        adjusted = {line["slice_start"] for line in issued if line["kind"] == "adjustment"}
        months = {each.month for each in adjusted if each.day == 1}
        assert months == {*range(1, landing + 1)}, "each month that was billed before"
        assert laws(world) == set()

    world.run("2026-04-06", "2026-04-06T01:00")
    for tampering, fault in (
        ("value_sum = value_sum + 1", "what the line carries is not the usage before it"),
        ("event_digest = event_digest + 1", "days do not add up to the line"),
    ):
        with world.connection.transaction(force_rollback=True):
            world.tamper(
                f"update rating.carried_usage set {tampering}"
                " where charge_id = 'level' and subscription_id = 'sub-half' and slice_start = '2026-03-05T04:47Z'"
            )
            assert laws(world) == {("L4", None), ("L4", "half")}
            (figures,) = world.row(
                "select figures::text from reconciliation.current_law_results"
                " where law = 'L4' and tenant_id = 'half' and not passed"
            )
            assert fault in figures
