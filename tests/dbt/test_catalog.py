"""The catalog is validated before anything is cast or moved, and published as a whole."""

import csv
from collections.abc import Callable
from typing import Any

import pytest

from tests.dbt.company import SEEDS, Company
from tests.dbt.conftest import Dbt, DbtFailed

Rate = Callable[[], None]
Publish = Callable[[], list[tuple[str, str, str]]]


@pytest.fixture
def publish(company: Company, scripts: dict[str, str]) -> Publish:
    """Load the catalog and look at its problems: (table, row, column) of each, sorted."""

    def run() -> list[tuple[str, str, str]]:
        company.load_catalog()
        problems = company.rows(scripts["catalog_problems"])
        return sorted((p["catalog_table"], p["row_key"], p["column_name"]) for p in problems)

    return run


@pytest.fixture
def sound(company: Company) -> Company:
    """A small catalog without a problem."""
    company.add_metric("tokens", dimensions='["model"]')
    company.add_plan("plan")
    company.add_charge("requests", "plan", [(1000, 0, 0), (None, "0.002", "1.50")])
    for model in ("small", "large"):
        route = f'{{"model": "{model}"}}'
        company.add_charge(
            model, "plan", [(None, 1, 0)], metric="tokens", model="per_unit", route=route
        )
    company.add_fee("fee", "plan", "49.00")
    company.subscribe("acme", "plan")
    company.add(
        "tax_rates", tenant_id="acme", tax_code="vat", rate="19", effective_from="2025-01-01"
    )
    company.add(
        "sources", source="gateway", file_pattern="*", tenants='["acme"]', expects_manifest="true",
        declared_from="2026-01-01T00:00:00Z", description="a gateway",
    )  # fmt: skip
    return company


def test_the_seeds_are_sound(dbt: Dbt, company: Company) -> None:
    """The sample company: 24 tenants, published by dbt alone, loaded twice the same."""
    dbt("seed", "resource_type:seed")
    dbt("run", "catalog_problems catalog_versions")
    dbt("seed", "resource_type:seed")
    dbt("run", "catalog_versions")
    counts = company.rows(
        "select (select count(*) from catalog.tenants) as tenants, "
        "(select count(distinct currency) from catalog.plans) as currencies, "
        "(select count(distinct time_zone) from catalog.subscriptions) as zones, "
        "(select count(*) from catalog.versions) as versions"
    )
    assert counts == [{"tenants": 24, "currencies": 3, "zones": 6, "versions": 1}]
    for path in SEEDS.glob("*.csv"):
        with path.open() as seed:
            rows = len(list(csv.DictReader(seed)))
        published = company.rows(f"select count(*) as rows from catalog.{path.stem}")
        assert published == [{"rows": rows}], path.stem


MAY_BE_EMPTY = {
    "percentage_terms", "tax_rates", "coupons", "corrections", "provider_customers", "provider_meters",
    "sources",
}  # fmt: skip


def test_an_empty_catalog_is_an_error(publish: Publish, company: Company) -> None:
    for rows in company.catalog.values():
        rows.clear()
    empty = [table for table, _, _ in publish()]
    assert empty == sorted(set(company.catalog) - MAY_BE_EMPTY)


UNREADABLE: list[tuple[str, str, object]] = [
    ("currencies", "minor_digits", "two"),
    ("tenants", "billable", "yes"),
    ("tenants", "name", " acme"),
    ("metrics", "dimensions", "model"),
    ("metrics", "dimensions", "[1]"),
    ("metrics", "filter", "[]"),
    ("metrics", "aggregation", "median"),
    ("plans", "minimum_document_amount", "1,50"),
    ("plans", "minimum_document_amount", "NaN"),
    ("plans", "billing_interval", "fortnight"),
    ("plans", "interval_count", "0"),
    ("charges", "version", "01"),
    ("charges", "quantity_digits", "2.5"),
    ("charges", "included_quantity", "-1"),
    ("charges", "prorated", "no"),
    ("charges", "takes_effect", "soon"),
    ("charges", "dimension_route", "{"),
    ("charges", "effective_from", "2026-02-30"),
    ("charge_tiers", "unit_amount", "1e3"),
    ("charge_tiers", "flat_amount", None),
    ("subscriptions", "time_zone", "Europe/Atlantis"),
    ("subscriptions", "time_zone", "Europe/Berlin+5"),
    ("subscriptions", "anchor_date", "31.01.2026"),
    ("subscriptions", "anchor_time", "24:00"),
    ("subscriptions", "started_at", "2026-01-01T00:00:00"),
    ("subscriptions", "recorded_at", "2026-13-01T00:00:00Z"),
    ("tax_rates", "rate", "19 %"),
    ("sources", "tenants", "acme"),
    ("sources", "expects_manifest", "yes"),
    ("sources", "due_hours", "-1"),
    ("sources", "declared_from", "2026-01-01"),
]


def test_what_cannot_be_read_is_shown_and_not_cast(publish: Publish, sound: Company) -> None:
    """Every kind of column, each with one bad value: its row and column are named."""
    assert publish() == []
    for table, column, value in UNREADABLE:
        row = sound.catalog[table][-1]
        before = row[column]
        row[column] = value
        assert (table, column) in {(t, c) for t, _, c in publish()}, (table, column, value)
        row[column] = before


def change(table: str, index: int, **values: object) -> Callable[[Company], Any]:
    return lambda company: company.catalog[table][index].update(values)


def all_of(*spoilers: Callable[[Company], Any]) -> Callable[[Company], Any]:
    return lambda company: [spoil(company) for spoil in spoilers]


MATRIX = change("charges", 1, charge_model="matrix")
PERCENTAGE = all_of(
    change("charges", 1, charge_model="percentage"), change("charge_tiers", 2, unit_amount="0")
)
LOOKS_AT_EVENTS = "free_events, free_amount, minimum_per_event, maximum_per_event"


def terms(**values: object) -> Callable[[Company], Any]:
    return lambda company: company.add("percentage_terms", charge_id="small", version=1, **values)


INCONSISTENT: dict[str, tuple[Callable[[Company], Any], tuple[str, str, str]]] = {
    "duplicate key": (
        lambda company: company.catalog["plans"].append(dict(company.catalog["plans"][0])),
        ("plans", "plan", "plan_id"),
    ),
    "a source of an unknown tenant": (
        change("sources", 0, tenants='["acme", "birch"]'),
        ("sources", "gateway", "tenants"),
    ),
    "a source until before it began": (
        change("sources", 0, declared_until="2025-12-31T00:00:00Z"),
        ("sources", "gateway", "declared_until"),
    ),
    "unknown plan": (
        change("subscriptions", 0, plan_id="gold"),
        ("subscriptions", "sub-acme 1", "plan_id"),
    ),
    "price of an unknown charge": (
        change("charge_tiers", -1, version=2),
        ("charge_tiers", "fee 2 1", "charge_id, version"),
    ),
    "charge without a price": (
        lambda company: company.catalog["charge_tiers"].pop(),
        ("charges", "fee 1", ""),
    ),
    "closed last tier": (
        change("charge_tiers", 1, up_to=2000),
        ("charge_tiers", "requests 1 2", "up_to"),
    ),
    "overlapping tiers": (
        change("charge_tiers", 0, up_to=None),
        ("charge_tiers", "requests 1 1", "up_to"),
    ),
    "tiers that do not ascend": (
        change("charge_tiers", 0, up_to=0),
        ("charge_tiers", "requests 1 1", "up_to"),
    ),
    "gap in the tiers": (
        change("charge_tiers", 1, tier=3),
        ("charge_tiers", "requests 1 3", "tier"),
    ),
    "versions that do not ascend": (
        lambda company: company.add_charge(
            "requests", "plan", [(None, 1, 0)], version=2, since="2019-01-01"
        ),
        ("charges", "requests 2", "effective_from"),
    ),
    "two charges for the same usage": (
        change("charges", 2, dimension_route="{}"),
        ("charges", "large 1", "dimension_route"),
    ),
    "route by an unknown dimension": (
        change("charges", 1, dimension_route='{"region": "eu"}'),
        ("charges", "small 1", "dimension_route"),
    ),
    "a percentile that is not named": (
        change("metrics", 0, aggregation="percentile"),
        ("metrics", "requests", "percentile"),
    ),
    "a percentile above 100": (
        change("metrics", 0, aggregation="percentile", percentile="100.5"),
        ("metrics", "requests", "percentile"),
    ),
    "the percentile of a sum": (
        change("metrics", 0, aggregation="sum", percentile="95"),
        ("metrics", "requests", "percentile"),
    ),
    "the balance of a count": (
        change("metrics", 0, recurring="true"),
        ("metrics", "requests", "recurring"),
    ),
    "a matrix of a balance": (
        all_of(MATRIX, change("metrics", 1, recurring="true")),
        ("charges", "small 1", "charge_model"),
    ),
    "unique values of nothing": (
        change("metrics", 0, aggregation="unique_count"),
        ("metrics", "requests", "value_property"),
    ),
    "usage without a metric": (
        change("charges", 0, metric=None),
        ("charges", "requests 1", "metric"),
    ),
    "usage in advance": (
        change("charges", 0, timing="advance"),
        ("charges", "requests 1", "timing"),
    ),
    "a package without a size": (
        change("charges", 1, charge_model="package"),
        ("charges", "small 1", "package_size"),
    ),
    "the size of no package": (
        change("charges", 1, package_size="10"),
        ("charges", "small 1", "package_size"),
    ),
    "a package of nothing": (
        change("charges", 1, charge_model="package", package_size="0"),
        ("charges", "small 1", "package_size"),
    ),
    "a factor without an operation": (
        change("charges", 1, conversion_factor="10"),
        ("charges", "small 1", "conversion_operation"),
    ),
    "an operation without a factor": (
        change("charges", 1, conversion_operation="divide"),
        ("charges", "small 1", "conversion_factor"),
    ),
    "a division by nothing": (
        change("charges", 1, conversion_operation="divide", conversion_factor="0"),
        ("charges", "small 1", "conversion_factor"),
    ),
    "digits without a rounding": (
        change("charges", 1, quantity_digits="2"),
        ("charges", "small 1", "quantity_digits"),
    ),
    "included units of a fee": (
        change("charges", 3, included_quantity="5"),
        ("charges", "fee 1", "conversion_operation, quantity_rounding, included_quantity"),
    ),
    "the minimum of a fee": (
        change("charges", 3, minimum_amount="5"),
        ("charges", "fee 1", "minimum_amount, maximum_amount"),
    ),
    "a minimum above the maximum": (
        change("charges", 1, minimum_amount="5", maximum_amount="4"),
        ("charges", "small 1", "minimum_amount"),
    ),
    "a negative minimum": (
        change("charges", 1, minimum_amount="-5"),
        ("charges", "small 1", "minimum_amount"),
    ),
    "a negative maximum": (
        change("charges", 1, maximum_amount="-5"),
        ("charges", "small 1", "maximum_amount"),
    ),
    "a negative percentage off": (
        change("charges", 1, discount_percent="-5"),
        ("charges", "small 1", "discount_percent"),
    ),
    "a negative amount off": (
        change("charges", 1, discount_amount="-5"),
        ("charges", "small 1", "discount_amount"),
    ),
    "a commitment of a metric": (
        change("charges", 0, component="commitment"),
        ("charges", "requests 1", "metric"),
    ),
    "a commitment by the unit": (
        change("charges", 0, component="commitment"),
        ("charges", "requests 1", "charge_model"),
    ),
    "a commitment in advance": (
        change("charges", 3, component="commitment"),
        ("charges", "fee 1", "timing"),
    ),
    "a discounted commitment": (
        change("charges", 3, component="commitment", discount_percent="5"),
        ("charges", "fee 1", "discount_percent, discount_amount"),
    ),
    "a dynamic count": (
        change("charges", 0, charge_model="dynamic"),
        ("charges", "requests 1", "charge_model"),
    ),
    "a matrix of maximums": (
        all_of(MATRIX, change("metrics", 1, aggregation="max")),
        ("charges", "small 1", "charge_model"),
    ),
    "a rounded matrix": (
        all_of(MATRIX, change("charges", 1, quantity_rounding="round")),
        ("charges", "small 1", "quantity_rounding, included_quantity"),
    ),
    "a matrix by an unknown dimension": (
        all_of(MATRIX, change("charge_tiers", 2, dimension_values='{"region": "eu"}')),
        ("charge_tiers", "small 1 1", "dimension_values"),
    ),
    "a matrix by quantity": (
        all_of(MATRIX, change("charge_tiers", 2, up_to="5")),
        ("charge_tiers", "small 1 1", "up_to"),
    ),
    "two prices for one row of a matrix": (
        all_of(
            MATRIX,
            lambda company: company.catalog["charge_tiers"].append(
                company.catalog["charge_tiers"][2] | {"tier": 2}
            ),
        ),
        ("charge_tiers", "small 1 2", "dimension_values"),
    ),
    "dimension values outside a matrix": (
        change("charge_tiers", 2, dimension_values='{"model": "small"}'),
        ("charge_tiers", "small 1 1", "dimension_values"),
    ),
    "the rate of a unit price": (
        change("charge_tiers", 2, rate_percent="5"),
        ("charge_tiers", "small 1 1", "rate_percent"),
    ),
    "the unit price of a percentage": (
        change("charges", 1, charge_model="percentage"),
        ("charge_tiers", "small 1 1", "unit_amount"),
    ),
    "the flat amount of a percentage": (
        all_of(PERCENTAGE, change("charge_tiers", 2, flat_amount="5")),
        ("charge_tiers", "small 1 1", "flat_amount"),
    ),
    "two tiers of a package": (
        change("charges", 0, charge_model="package", package_size="5"),
        ("charge_tiers", "requests 1 2", "tier"),
    ),
    "terms of a unit price": (terms(), ("percentage_terms", "small 1", "charge_id, version")),
    "free events of a maximum": (
        all_of(PERCENTAGE, terms(free_events=1), change("metrics", 1, aggregation="max")),
        ("percentage_terms", "small 1", LOOKS_AT_EVENTS),
    ),
    "free events and included units": (
        all_of(PERCENTAGE, terms(free_events=1), change("charges", 1, included_quantity="5")),
        ("percentage_terms", "small 1", LOOKS_AT_EVENTS),
    ),
    "limits the wrong way round": (
        all_of(PERCENTAGE, terms(minimum_per_event="5", maximum_per_event="4")),
        ("percentage_terms", "small 1", "maximum_per_event"),
    ),
    "a negative amount per event": (
        all_of(PERCENTAGE, terms(amount_per_event="-1")),
        ("percentage_terms", "small 1", "amount_per_event"),
    ),
    "end before start": (
        change("subscriptions", 0, ended_at="2025-01-01T00:00:00Z"),
        ("subscriptions", "sub-acme 1", "ended_at"),
    ),
    "a trial that ends before the start": (
        change("subscriptions", 0, trial_ends_at="2025-01-01T00:00:00Z"),
        ("subscriptions", "sub-acme 1", "trial_ends_at"),
    ),
    "a trial that outlasts the subscription": (
        change(
            "subscriptions",
            0,
            trial_ends_at="2027-02-01T00:00:00Z",
            ended_at="2027-01-01T00:00:00Z",
        ),
        ("subscriptions", "sub-acme 1", "trial_ends_at"),
    ),
    "a count of no interval": (
        change("charges", 0, interval_count="2"),
        ("charges", "requests 1", "interval_count"),
    ),
    "a charge that changes its interval": (
        lambda company: company.add_charge(
            "requests", "plan", [(None, 1, 0)], version=2, since="2026-01-01"
        ).update(billing_interval="year"),
        ("charges", "requests 2", "billing_interval, interval_count"),
    ),
    "a first version at once": (
        change("charges", 0, takes_effect="at_once"),
        ("charges", "requests 1", "takes_effect"),
    ),
    "overlapping subscriptions": (
        lambda company: company.subscribe("acme", "plan", subscription="sub-twice"),
        ("subscriptions", "sub-acme 1", "started_at, ended_at"),
    ),
    "one series for two entities": (
        lambda company: company.add("legal_entities", legal_entity="eu", name="EU", series="US"),
        ("legal_entities", "eu", "series"),
    ),
}


@pytest.mark.parametrize("batch", [0, 1])
def test_what_does_not_fit_together_is_named(publish: Publish, sound: Company, batch: int) -> None:
    for name, (spoil, expected) in list(INCONSISTENT.items())[batch::2]:
        saved = {table: [dict(row) for row in rows] for table, rows in sound.catalog.items()}
        spoil(sound)
        assert expected in publish(), name
        sound.catalog = saved
    assert publish() == []


def test_a_problem_stops_the_publishing(dbt: Dbt, sound: Company) -> None:
    """The old catalog stays in force; the error names table, row, column and what to do."""
    sound.load_catalog()
    dbt("run", "catalog_problems catalog_versions")
    sound.catalog["charge_tiers"][0]["unit_amount"] = "free"
    sound.load_catalog()
    with pytest.raises(DbtFailed) as failure:
        dbt("run", "catalog_versions")
    message = str(failure.value)
    assert 'charge_tiers row "requests 1 1" column unit_amount value "free"' in message
    assert "write a decimal number with a point" in message
    assert sound.rows("select count(*) as charges from catalog.charges") == [{"charges": 4}]


def test_only_new_content_is_a_new_version(dbt: Dbt, sound: Company) -> None:
    sound.load_catalog()
    dbt("run", "catalog_problems catalog_versions")
    sound.connection.execute("update invoices.draft_state set stale = false")
    for rows in sound.catalog.values():
        rows.reverse()
    sound.load_catalog()
    dbt("run", "catalog_versions")
    assert sound.rows("select stale from invoices.draft_state") == [{"stale": False}]
    sound.catalog["plans"][0]["name"] = "Plan A"
    sound.load_catalog()
    dbt("run", "catalog_versions")
    assert sound.rows("select stale from invoices.draft_state") == [{"stale": True}]
    versions = sound.rows("select * from catalog.versions order by catalog_version")
    assert [row["catalog_version"] for row in versions] == [1, 2]
    assert len({row["content_sha256"] for row in versions}) == 2


def test_what_an_issued_line_refers_to_may_not_change(
    publish: Publish, sound: Company, rate: Rate
) -> None:
    sound.land_until("2026-02-05T00:00:00Z")
    sound.use("acme", "2026-01-10T00:00:00Z", count=5000)
    rate()
    assert sound.issue("2026-02-04")
    assert publish() == []

    saved = {table: [dict(row) for row in rows] for table, rows in sound.catalog.items()}
    for spoil, expected in (
        (
            change("charge_tiers", 1, unit_amount="0.003"),
            ("charge_tiers", "requests 1 2", "unit_amount"),
        ),
        (
            change("charges", 0, effective_from="2021-01-01"),
            ("charges", "requests 1", "effective_from"),
        ),
        (
            change("subscriptions", 0, ended_at="2026-01-20T00:00:00Z"),
            ("subscriptions", "sub-acme 1", "ended_at"),
        ),
        (
            lambda company: company.catalog["subscriptions"].pop(),
            ("subscriptions", "sub-acme 1", ""),
        ),
        (change("metrics", 0, aggregation="sum"), ("metrics", "requests", "aggregation")),
        (change("plans", 0, currency="EUR"), ("plans", "plan", "currency")),
        (change("charges", 0, discount_percent="5"), ("charges", "requests 1", "discount_percent")),
        (
            lambda company: company.add("percentage_terms", charge_id="requests", version=1),
            ("percentage_terms", "requests 1", "charge_id, version"),
        ),
        (change("currencies", 0, minor_digits="3"), ("currencies", "USD", "minor_digits")),
        (change("legal_entities", 0, series="XX"), ("legal_entities", "us", "series")),
    ):
        spoil(sound)
        assert expected in publish(), expected
        assert sound.rows("select * from staging.catalog_problems where problem is null") == []
        sound.catalog = {table: [dict(row) for row in rows] for table, rows in saved.items()}
    # A new version, a new price of a charge never issued, and a description may.
    sound.add_charge("requests", "plan", [(None, 1, 0)], version=2, since="2026-03-01")
    sound.catalog["charges"][0]["description"] = "Calls"
    assert publish() == []
