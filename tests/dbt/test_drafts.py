"""Drafts by the one formula: due = rated - billed, each line at its billing instant."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.dbt.company import Company, Row, instant
from tests.dbt.conftest import Dbt

Rate = Callable[[], None]


@pytest.fixture
def acme(company: Company) -> Company:
    """One customer: 0.01 a request in arrears, 49.00 a month in advance."""
    company.land_until("2026-02-02T00:00:00Z")
    company.add_plan("plan")
    company.add_charge("requests", "plan", [(None, "0.01", 0)], model="per_unit")
    company.add_fee("fee", "plan", "49.00")
    company.subscribe("acme", "plan")
    company.use("acme", "2026-01-10T00:00:00Z", count=1000)
    return company


def documents(company: Company) -> dict[str, Decimal]:
    rows = company.rows("select * from invoices.draft_invoices")
    return {row["draft_id"]: row["total"] for row in rows}


def lines(company: Company, draft: str) -> list[tuple[str, str, Decimal]]:
    return [
        (line["description"], line["kind"], line["amount"])
        for line in company.draft_lines()
        if line["draft_id"] == draft
    ]


def test_each_line_has_its_billing_instant(acme: Company, rate: Rate) -> None:
    acme.use("acme", "2026-02-01T05:00:00Z", count=7)
    rate()
    assert documents(acme) == {
        "sub-acme/USD/2026-01-01T00:00Z": Decimal("49.00"),
        "sub-acme/USD/2026-02-01T00:00Z": Decimal("49.00"),
        "sub-acme/USD/2026-02-04T00:00Z": Decimal("10.00"),
        "sub-acme/USD/2026-03-04T00:00Z": Decimal("0.07"),
    }
    usage = acme.rows("select * from invoices.draft_invoices where bill_at = '2026-02-04Z'")[0]
    assert usage["window_start"] == instant("2026-01-01T00:00:00Z")
    assert usage["window_end"] == instant("2026-02-01T00:00:00Z")
    assert usage["cut_off"] == instant("2026-02-04T00:00:00Z")
    fee = acme.rows("select * from invoices.draft_invoices where bill_at = '2026-02-01Z'")[0]
    assert fee["cut_off"] is None


def test_late_usage_is_due_on_the_next_regular_document(acme: Company, rate: Rate) -> None:
    """Up, and down again after a void: with the period's own dates and the first price."""
    rate()
    assert len(acme.issue("2026-02-04")) == 3
    rate()
    assert documents(acme) == {}

    acme.use("acme", "2026-01-11T00:00:00Z", count=100)
    rate()
    # The next regular instant is the start of March, when its fee will be billed.
    assert lines(acme, "sub-acme/USD/2026-03-01T00:00Z") == [
        ("Adjustment: requests", "adjustment", Decimal("1.00"))
    ]
    line = acme.draft_lines()[0]
    assert (line["rated_amount"], line["billed_amount"]) == (Decimal("11.00"), Decimal("10.00"))
    assert line["quantity"] == 1100
    assert line["slice_start"] == instant("2026-01-01T00:00:00Z")

    acme.forget("acme", "2026-01-10T00:00:00Z")
    rate()
    assert lines(acme, "sub-acme/USD/2026-03-01T00:00Z") == [
        ("Adjustment: requests", "adjustment", Decimal("-9.00"))
    ]
    acme.land_until("2026-03-05T00:00:00Z")
    rate()
    assert lines(acme, "sub-acme/USD/2026-03-01T00:00Z") == [
        ("fee", "regular", Decimal("49.00")),
        ("Adjustment: requests", "adjustment", Decimal("-9.00")),
    ]


def test_usage_that_returns_to_what_was_issued_is_not_due(acme: Company, rate: Rate) -> None:
    rate()
    acme.issue("2026-02-04")
    acme.use("acme", "2026-01-11T00:00:00Z", count=100)
    rate()
    assert len(acme.draft_lines()) == 1
    acme.forget("acme", "2026-01-11T00:00:00Z")
    rate()
    assert acme.draft_lines() == []


def test_an_issued_period_keeps_its_price(acme: Company, rate: Rate) -> None:
    """A new version does not touch it, late usage is priced by the old one; a correction does."""
    rate()
    acme.issue("2026-02-04")
    acme.add_charge(
        "requests", "plan", [(None, "0.02", 0)], model="per_unit", version=2, since="2026-01-01"
    )
    acme.use("acme", "2026-01-11T00:00:00Z", count=100)
    acme.use("acme", "2026-02-01T00:00:00Z", count=100)
    rate()
    versions = {
        row["slice_start"].month: (row["charge_version"], row["amount"])
        for row in acme.rows("select * from rating.rated_lines where component = 'usage'")
    }
    assert versions == {1: (1, Decimal("11.00")), 2: (2, Decimal("2.00"))}

    acme.add(
        "corrections",
        correction_id="c-1",
        subscription_id="sub-acme",
        charge_id="requests",
        period_start="2026-01-01T00:00:00Z",
        version=2,
        recorded_by="finance",
        reason="agreed with the customer",
        recorded_at="2026-02-10T00:00:00Z",
    )
    rate()
    assert lines(acme, "sub-acme/USD/2026-03-04T00:00Z") == [
        ("requests", "regular", Decimal("2.00"))
    ]
    assert lines(acme, "sub-acme/USD/2026-03-01T00:00Z") == [
        ("Adjustment: requests", "adjustment", Decimal("12.00"))
    ]


def test_an_issued_line_is_not_rated_by_accident(acme: Company, rate: Rate) -> None:
    """Without another digest it stays, whatever else is touched; with one it is rated again."""
    rate()
    acme.issue("2026-02-04")
    acme.connection.execute(
        "update rollups.usage_hourly set event_count = event_count + 1 where tenant_id = 'acme'"
    )
    acme.touch("acme", "requests", instant("2026-01-10T00:00:00Z"))
    rate()
    assert acme.draft_lines() == []
    acme.connection.execute(
        "update rollups.usage_hourly set payload_digest = 0 where tenant_id = 'acme'"
    )
    acme.touch("acme", "requests", instant("2026-01-10T00:00:00Z"))
    rate()
    assert [line["amount"] for line in acme.draft_lines()] == [Decimal("0.01")]


def test_a_cancellation_recorded_late_pays_back(acme: Company, rate: Rate) -> None:
    """After the end there is at most one document every so many days."""
    rate()
    acme.issue("2026-02-04")
    acme.subscribe("acme", "plan", end="2026-01-20T12:00:00Z", version=2)
    rate()
    # Last regular instant: 23 January, 12:00. The next multiple of 30 days after 4 February.
    draft = "sub-acme/USD/2026-02-22T12:00Z"
    assert lines(acme, draft) == [
        ("Adjustment: fee (19 of 31 days)", "adjustment", Decimal("-18.97")),
        ("Adjustment: fee", "adjustment", Decimal("-49.00")),
    ]
    assert documents(acme) == {draft: Decimal("-67.97")}
    acme.issue("2026-02-22")
    rate()
    assert documents(acme) == {}

    acme.use("acme", "2026-01-12T00:00:00Z", count=100)
    rate()
    assert documents(acme) == {"sub-acme/USD/2026-03-24T12:00Z": Decimal("1.00")}


def test_a_changed_plan_replaces_the_lines(acme: Company, rate: Rate) -> None:
    """Another plan from the start, recorded after the invoice: the old one is paid back whole."""
    rate()
    acme.issue("2026-02-04")
    acme.add_plan("other")
    acme.add_charge("other-requests", "other", [(None, "0.03", 0)], model="per_unit")
    acme.subscribe("acme", "other", version=2)
    rate()
    due = {(line["charge_id"], line["slice_start"].month): line for line in acme.draft_lines()}
    amounts = {key: line["amount"] for key, line in due.items()}
    assert amounts == {
        ("requests", 1): Decimal("-10.00"),
        ("fee", 1): Decimal("-49.00"),
        ("fee", 2): Decimal("-49.00"),
        ("other-requests", 1): Decimal("30.00"),
    }
    assert acme.rows("select distinct charge_id from rating.tier_slices") == [
        {"charge_id": "other-requests"}
    ]


def test_lines_worth_nothing(company: Company, rate: Rate) -> None:
    """Usage that is free is shown once; no usage is not; who is not billable has no draft."""
    company.land_until("2026-02-02T00:00:00Z")
    company.add_plan("plan")
    company.add_charge("requests", "plan", [(1000, 0, 0), (None, 1, 0)])
    for tenant in ("free", "idle", "own"):
        company.subscribe(tenant, "plan", end="2026-02-01T00:00:00Z")
    company.catalog["tenants"][-1]["billable"] = "false"
    company.use("free", "2026-01-10T00:00:00Z", count=10)
    company.use("own", "2026-01-10T00:00:00Z", count=5000)
    rate()
    assert documents(company) == {"sub-free/USD/2026-02-04T00:00Z": Decimal(0)}
    assert company.amounts() == {"free": 0, "idle": 0, "own": 4000}
    company.issue("2026-02-04")
    rate()
    assert documents(company) == {}


def test_small_sums_are_carried_forward(company: Company, rate: Rate) -> None:
    company.land_until("2026-04-05T00:00:00Z")
    company.add_plan("plan", minimum="5")
    company.add_charge("requests", "plan", [(None, 1, 0)], model="per_unit")
    usage: dict[str, Row] = {
        "slow": {"2026-01-10": 2, "2026-02-10": 2, "2026-03-10": 2, "2026-04-02": 1},
        "fast": {"2026-01-10": 9, "2026-02-10": 1},
        "over": {"2026-01-10": 3},
    }
    company.subscribe("slow", "plan")
    company.subscribe("fast", "plan")
    company.subscribe("over", "plan", end="2026-02-01T00:00:00Z")
    for tenant, days in usage.items():
        for day, count in days.items():
            company.use(tenant, f"{day}T00:00:00Z", count=count)
    rate()
    assert documents(company) == {
        # Three months make six; what has begun since waits with the open period.
        "sub-slow/USD/2026-04-04T00:00Z": Decimal(6),
        "sub-slow/USD/2026-05-04T00:00Z": Decimal(1),
        "sub-fast/USD/2026-02-04T00:00Z": Decimal(9),
        # Carried to the last billing that is known.
        "sub-fast/USD/2026-04-04T00:00Z": Decimal(1),
        # No billing comes after the end: it goes as it is.
        "sub-over/USD/2026-02-04T00:00Z": Decimal(3),
    }


def test_what_changes_a_line_stands_below_it(company: Company, rate: Rate) -> None:
    company.land_until("2026-03-02T00:00:00Z")
    company.add_plan("plan")
    for charge in ("b", "a"):
        company.add_metric(charge, "count")
        company.add_charge(
            charge, "plan", [(None, 1, 0)], charge, discount_percent=10, maximum_amount=80
        )
    company.add_charge("c", "plan", [(None, 1, 0)], minimum_amount=5)
    company.add_fee("d", "plan", "9.00", "arrears", discount_percent=50)
    company.subscribe("acme", "plan", end="2026-03-01T00:00:00Z")
    for month in ("01", "02"):
        for metric, count in (("a", 100), ("b", 90), ("requests", 3)):
            company.use("acme", f"2026-{month}-10T00:00:00Z", metric=metric, count=count)
    rate()
    expected = [
        *[("a", "usage"), ("a", "discount"), ("a", "maximum"), ("b", "usage"), ("b", "discount")],
        *[("b", "maximum"), ("c", "usage"), ("c", "minimum"), ("d", "flat"), ("d", "discount")],
    ]
    assert [
        (line["slice_start"].month, line["charge_id"], line["component"])
        for line in company.draft_lines()
    ] == [(month, *each) for month in (1, 2) for each in expected]


CHANGES: dict[str, Callable[[Company], object]] = {
    "another customer is billed on a later date": lambda company: company.connection.execute(
        """
        insert into invoices.issued_invoices
        select changed.*
        from invoices.issued_invoices as documents
        cross join lateral jsonb_populate_record(
            documents, '{"invoice_number": "US-99", "series_number": 99, "billing_date": "2026-03-03"}'
        ) as changed
        where documents.tenant_id = 'birch'
        limit 1
        """
    ),
    "the grace period": lambda company: company.connection.execute(
        "update catalog.settings set value = '96' where name = 'grace_hours'"
    ),
    "the interval after the end": lambda company: company.connection.execute(
        "update catalog.settings set value = '7' where name = 'final_days'"
    ),
    "a charge's name": lambda company: company.catalog["charges"][0].update(description="calls"),
    "a plan's minimum": lambda company: company.catalog["plans"][0].update(
        minimum_document_amount="500"
    ),
    "who is billed": lambda company: company.catalog["tenants"][0].update(billable="false"),
    "who bills": lambda company: company.catalog["tenants"][2].update(legal_entity="eu"),
    "an end beyond the landed hours": lambda company: company.catalog["subscriptions"][2].update(
        ended_at="2026-03-01T00:00:00Z"
    ),
    "usage": lambda company: company.use("acme", "2026-01-13T00:00:00Z", count=100),
}


@pytest.mark.parametrize("change", CHANGES)
def test_drafts_follow_what_changed(acme: Company, rate: Rate, change: str) -> None:
    """They are changed by it, and row for row what building all of them anew makes of it."""
    acme.add("legal_entities", legal_entity="eu", name="Example GmbH", series="EU")
    acme.subscribe("birch", "plan")
    acme.add_plan("small", minimum="500")
    acme.add_fee("small-fee", "small", "5.00")
    acme.subscribe("cobalt", "small", start="2026-02-01T00:00:00Z")  # carried to its next billing
    acme.subscribe("gone", "plan", end="2026-01-15T00:00:00Z")
    acme.use("gone", "2026-01-11T00:00:00Z", count=100)
    rate()
    acme.issue("2026-02-04")
    for tenant in ("acme", "gone"):
        acme.use(tenant, "2026-01-12T00:00:00Z", count=100)
    rate()
    before = everything(acme)
    CHANGES[change](acme)
    rate()
    followed = everything(acme)
    acme.connection.execute("delete from invoices.drafted_from")
    rate()
    assert followed == everything(acme)
    assert followed != before


def test_a_full_refresh_mends_what_nothing_touched(acme: Company, dbt: Dbt, rate: Rate) -> None:
    rate()
    before = everything(acme)
    acme.connection.execute("update invoices.draft_invoices set total = 0")
    acme.connection.execute("delete from invoices.draft_invoice_lines where line_number = 1")
    dbt("run", "draft_invoices")
    assert everything(acme) != before
    dbt("run", "draft_invoices", "--full-refresh")
    assert everything(acme) == before


def everything(company: Company) -> list[Row]:
    return [
        row
        for table in ("draft_invoices", "draft_invoice_lines")
        for row in company.rows(f"select * from invoices.{table} order by {table}")
    ]
