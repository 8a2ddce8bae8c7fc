"""Every figure of docs/charges.md, by the real models."""

import csv
import re
from collections.abc import Callable, Iterator
from decimal import Decimal

from metering_pipeline.settings import PROJECT_ROOT
from tests.dbt.company import Company, Row

PAGE = PROJECT_ROOT / "docs" / "charges.md"
FIRST_OF_JANUARY = "2026-01-01T00:00:00Z"
FIRST_OF_FEBRUARY = "2026-02-01T00:00:00Z"


def examples() -> Iterator[tuple[str, dict[str, list[Row]], str, str]]:
    """A table's rows: the section, its catalog rows by table, what was used, and what it costs."""
    for section in PAGE.read_text().split("\n### ")[1:]:
        catalog = {
            table: list(csv.DictReader(block.splitlines()))
            for table, block in re.findall(r"```csv (\w+)\n(.*?)```", section, re.DOTALL)
        }
        for used, costs in re.findall(r"^\| ([^|]*) \| ([^|]*) \|$", section, re.MULTILINE):
            if used != "used":
                yield section.split("\n")[0], catalog, used, costs


def use(company: Company, name: str, used: str) -> None:
    """A quantity, the amounts of events, quantities by region, or nothing for a number of days."""
    for number, part in enumerate(used.split("; ")):
        at = f"2026-01-31T{number:02}:00:00Z"
        word, _, quantity = part.rpartition(" ")
        if word:
            company.use(name, at, quantity, metric="by_region", region=word)
        elif Decimal(quantity):
            company.record_event(name, at, metric="units", quantity=quantity)


def test_the_figures_of_the_page(company: Company, rate: Callable[[], None]) -> None:
    company.add_metric("units")
    company.add_metric("by_region", dimensions='["region"]')
    company.land_until("2026-02-02T00:00:00Z")
    expected: dict[str, dict[str, Decimal]] = {}
    for number, (_, catalog, used, costs) in enumerate(examples()):
        name = f"t-{number}"
        company.add_plan(name)
        charge = dict(catalog["charges"][0])
        model = charge.pop("charge_model")
        charge.setdefault("metric", "by_region" if model == "matrix" else "units")
        tiers = [
            {k: v for k, v in row.items() if k != "tier"} for row in catalog.get("charge_tiers", [])
        ]
        company.add_charge(name, name, tiers, model=model, **charge)
        for terms in catalog.get("percentage_terms", []):
            company.add("percentage_terms", charge_id=name, version=1, **terms)
        start = FIRST_OF_JANUARY
        if days := re.fullmatch(r"(\d+) days", used):
            start = f"2026-01-{32 - int(days[1]):02}T00:00:00Z"
        else:
            use(company, name, used)
        company.subscribe(name, name, start=start, end=FIRST_OF_FEBRUARY)
        parts = (cost.split(" ") for cost in costs.split(", "))
        expected[name] = {component: Decimal(amount) for component, amount in parts}
    rate()

    rated: dict[str, dict[str, Decimal]] = {name: {} for name in expected}
    for line in company.rows("select * from rating.rated_lines"):
        rated[line["charge_id"]][line["component"]] = line["amount"]
    assert rated == expected
    models = {row["charge_model"] for row in company.catalog["charges"]}
    assert len(models) == 9
