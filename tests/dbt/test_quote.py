"""What usage would cost: by the models, compared with a second rating in plain Python; nothing is kept."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.independent_rating import Tier, rounded, usage_amount
from metering_pipeline.transform.posting import PostingError
from metering_pipeline.transform.shadow import Asked, QuoteError, price, rerate, rerate_tenant
from tests.dbt.company import SEEDS, Company
from tests.dbt.conftest import Dbt

JANUARY = Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
GRADUATED = [("1000", "0", "0"), ("5000", "0.0018", "1.50"), (None, "0.0012", "0")]
PER_UNIT = [(None, "0.002", "0")]


def cost(model: str, tiers: list[tuple[str | None, str, str]], quantity: Decimal) -> Decimal:
    """By the second rating, in dollars."""
    known = [
        Tier(None if up_to is None else Decimal(up_to), Decimal(unit), Decimal(flat))
        for up_to, unit, flat in tiers
    ]
    return rounded(Fraction(usage_amount(model, known, quantity)), 2)


@pytest.fixture
def sold(company: Company, rate: Callable[[], None], dbt: Dbt) -> Company:
    """Two plans; acme and birch used 4,321 and 12 of the one in January, which has been rated."""
    assert dbt  # names the test's database to dbt
    company.add_metric("max_seats", aggregation="max", dimensions='["region"]')
    company.add_plan("growth")
    company.add_fee("growth-platform", "growth", 49)
    company.add_charge("growth-requests", "growth", GRADUATED)
    company.add_charge(
        "growth-seats",
        "growth",
        [(None, "3", "0")],
        "max_seats",
        model="per_unit",
        route='{"region": "eu"}',
    )
    company.add_plan("starter")
    company.add_charge("starter-requests", "starter", PER_UNIT, model="per_unit")
    for tenant, quantity in (("acme", 4321), ("birch", 12)):
        company.subscribe(tenant, "growth")
        company.use(tenant, "2026-01-10T05:00:00Z", value=quantity, count=quantity)
    company.land_until("2026-02-06T00:00:00Z")
    rate()
    return company


@pytest.fixture
def contents(sold: Company) -> Callable[[], dict[str, list[str]]]:
    """Every row of every table, as text."""

    def read() -> dict[str, list[str]]:
        tables = sold.connection.execute(
            "select format('%I.%I', table_schema, table_name) from information_schema.tables"
            " where table_type = 'BASE TABLE' and table_schema !~ '^(pg_|information_schema)' order by 1"
        ).fetchall()
        return {
            table: sorted(
                row
                for (row,) in sold.connection.execute(f"select t::text from {table} as t".encode())
            )
            for (table,) in tables
        }

    return read


def test_each_quantity_costs_what_the_second_rating_says(
    sold: Company, database: Database, contents: Callable[[], object]
) -> None:
    before = contents()
    quantities = [Decimal(text) for text in ("0", "1", "1000", "1001", "5000", "123456")]
    first_day = date(2026, 6, 3)
    asked = [
        Asked(plan, "requests", quantity, {}, first_day)
        for plan in ("growth", "starter")
        for quantity in quantities
    ]
    quoted = price(database, asked)
    for each, lines in zip(asked, quoted, strict=True):
        amounts = {line.charge_id: line.amount for line in lines}
        if each.plan_id == "growth":
            expected = {
                "growth-platform": Decimal(49),
                "growth-requests": cost("graduated", GRADUATED, each.quantity),
                "growth-seats": Decimal(0),
            }
        else:
            expected = {"starter-requests": cost("per_unit", PER_UNIT, each.quantity)}
        assert amounts == expected, each
        assert {(line.slice_start, line.slice_end) for line in lines} == {
            (datetime(2026, 6, 3, tzinfo=UTC), datetime(2026, 7, 3, tzinfo=UTC))
        }
    assert contents() == before


def test_a_dimension_finds_its_charge(sold: Company, database: Database) -> None:
    for region, amount in (("eu", Decimal("7.5")), ("us", Decimal(0))):
        asked = Asked("growth", "max_seats", Decimal("2.5"), {"region": region}, date(2026, 1, 1))
        [lines] = price(database, [asked])
        assert {line.amount for line in lines if line.charge_id == "growth-seats"} == {amount}


def test_another_plan_for_real_usage(
    sold: Company, database: Database, contents: Callable[[], object]
) -> None:
    before = contents()
    rerated = rerate_tenant(database, JANUARY, "acme", "starter")
    assert {(line.charge_id, line.amount) for line in rerated.before} == {
        ("growth-platform", Decimal(49)),
        ("growth-requests", cost("graduated", GRADUATED, Decimal(4321))),
        ("growth-seats", Decimal(0)),
    }
    assert [(line.charge_id, line.quantity, line.amount) for line in rerated.after] == [
        ("starter-requests", Decimal(4321), cost("per_unit", PER_UNIT, Decimal(4321)))
    ]
    assert contents() == before


def write_tiers(folder: Path, company: Company, charge: str, unit_amount: str) -> None:
    """The company's tiers, with another unit amount in the second tier of a charge."""
    header = (SEEDS / "charge_tiers.csv").read_text().splitlines()[0]
    rows = [
        {**row, "unit_amount": unit_amount}
        if (row["charge_id"], row["tier"]) == (charge, 2)
        else row
        for row in company.catalog["charge_tiers"]
    ]
    lines = [
        ",".join("" if row[c] is None else str(row[c]) for c in header.split(",")) for row in rows
    ]
    (folder / "charge_tiers.csv").write_text("\n".join([header, *lines]) + "\n")


def test_a_month_under_a_changed_catalog(
    sold: Company, database: Database, contents: Callable[[], object], tmp_path: Path
) -> None:
    """Also where the price has been invoiced: there it could not be changed in earnest."""
    assert len(sold.issue("2026-02-05")) == 6
    before = contents()
    write_tiers(tmp_path, sold, "growth-requests", "0.0036")
    doubled = [GRADUATED[0], ("5000", "0.0036", "1.50"), GRADUATED[2]]
    change = cost("graduated", doubled, Decimal(4321)) - cost("graduated", GRADUATED, Decimal(4321))
    changes = {each.tenant_id: each for each in rerate(database, JANUARY, tmp_path)}
    assert {tenant: each.total_after - each.total_before for tenant, each in changes.items()} == {
        "acme": change,
        "birch": Decimal(0),
    }
    assert change > 0
    assert {tenant: each.lines for tenant, each in changes.items()} == {"acme": 1, "birch": 0}
    assert contents() == before


def test_what_cannot_be_quoted_is_said(sold: Company, database: Database, tmp_path: Path) -> None:
    with pytest.raises(QuoteError, match="plans have no 'gold'; there are growth, starter"):
        price(database, [Asked("gold", "requests", Decimal(1), {}, date(2026, 1, 1))])
    with pytest.raises(QuoteError, match="'nobody' has none"):
        rerate_tenant(database, JANUARY, "nobody", "starter")
    with pytest.raises(QuoteError, match="no CSV file"):
        rerate(database, JANUARY, tmp_path)
    (tmp_path / "prices.csv").write_text("a\n")
    with pytest.raises(QuoteError, match=r"prices\.csv: no table of the catalog"):
        rerate(database, JANUARY, tmp_path)
    (tmp_path / "prices.csv").rename(tmp_path / "plans.csv")
    with pytest.raises(QuoteError, match=r"plans\.csv: no column a; there are plan_id"):
        rerate(database, JANUARY, tmp_path)
    (tmp_path / "plans.csv").unlink()
    write_tiers(tmp_path, sold, "growth-requests", "dear")
    with pytest.raises(
        PostingError, match=r'row "growth-requests 1 2" column unit_amount value "dear"'
    ):
        rerate(database, JANUARY, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--quantity 5", "needs --plan and --metric"),
        ("--plan p --metric m --quantity 1e3", "write a decimal number"),
        ("--plan p --metric m --quantity -1", "write a decimal number"),
        ("--plan p --metric m --quantity 1 --dimension model", "write name=value"),
        ("--month 2026-13 --tenant t", "write a month"),
        ("--month 2026-01", "needs --tenant"),
        ("--tenant t", "or --month"),
    ],
)
def test_the_command_says_what_is_missing(arguments: str, problem: str) -> None:
    outcome = CliRunner().invoke(cli, ["quote", *arguments.split()])
    assert outcome.exit_code == 2
    assert problem in " ".join(outcome.output.split())
