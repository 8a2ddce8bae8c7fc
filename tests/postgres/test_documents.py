"""What a document comes to: coupons, taxes, prepaid credits, voids, write-offs and approvals."""

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal

import psycopg
import pytest

from metering_pipeline.invoices import credits
from metering_pipeline.invoices.issuing import (
    IssuedInvoice,
    IssueReport,
    IssuingStoppedError,
    UnknownHoldError,
    approve,
    issue,
    issue_within,
    preview,
    reverse,
    stop_issuing,
)
from metering_pipeline.invoices.reversals import NotReversibleError, UnknownDocumentError
from metering_pipeline.settings import PROJECT_ROOT
from metering_pipeline.transform.dbt import run_dbt
from tests.dbt.company import Company
from tests.postgres.billing_world import CATALOG, FEBRUARY, JANUARY, World, after, at, use
from tests.postgres.test_issuing import check_numbers_and_chain, redraft, wait_for_lock

D = Decimal
NOW = after(JANUARY)


def issue_january(world: World) -> IssueReport:
    return issue(world.database, JANUARY, NOW)


def pass_january(world: World) -> dict[str, IssuedInvoice]:
    """January issued in the test's own transaction: each tenant's last document."""
    report = issue_within(world.connection, JANUARY, NOW)
    assert report.held == []
    return {each.tenant_id: each for each in report.issued}


def amounts(document: IssuedInvoice) -> tuple[str, str, str, str, str]:
    parts = (
        document.total, document.coupon_amount, document.tax_amount, document.credit_amount,
        document.amount_due,
    )  # fmt: skip
    net, coupon, tax, credit, due = map(str, parts)
    return net, coupon, tax, credit, due


def offer(world: World, coupon: str, **terms: object) -> None:
    """A coupon of the catalog."""
    values = {
        "coupon": coupon, "tenant": "acme", "subscription": None, "currency": None, "percent": None,
        "amount": None, "since": "2026-01-01", "until": None, "documents": None, **terms,
    }  # fmt: skip
    world.execute(
        """
        insert into catalog.coupons values (
            %(coupon)s, %(tenant)s, %(subscription)s, %(currency)s, %(percent)s, %(amount)s, %(since)s,
            %(until)s, %(documents)s, 'welcome'
        )
        """,
        values,
    )


def tax(
    world: World, tenant: str, code: str, rate: str, since: str, charge: str | None = None
) -> None:
    world.execute(
        "insert into catalog.tax_rates values (%s, %s, %s, %s, %s)", tenant, code, charge, rate, since
    )  # fmt: skip


def grant(world: World, amount: str, **terms: object) -> None:
    """A credit of acme's, entered as the command does."""
    values = {
        "id": f"CR-{amount}", "tenant": "acme", "currency": "USD", "priority": 50, "expires_on": None,
        "components": None, **terms,
    }  # fmt: skip
    world.execute(
        """
        insert into invoices.credit_entries (
            credit_id, kind, tenant_id, currency, amount, priority, expires_on, components, entered_at,
            entered_by, reason
        )
        values (
            %(id)s, 'grant', %(tenant)s, %(currency)s, %(amount)s, %(priority)s, %(expires_on)s,
            %(components)s, '2026-01-05Z', 'ana', 'order 7'
        )
        """,
        values | {"amount": amount},
    )


def entries(world: World) -> list[tuple[str, str, str]]:
    return [
        (credit_id, kind, str(amount))
        for credit_id, kind, amount in world.rows(
            "select credit_id, kind, amount from invoices.credit_entries where kind <> 'grant' order by entry_id"
        )
    ]


# acme's January: 6.50 for requests (line 1) and 13.32 for tokens (line 2): 19.82 USD


def test_all_of_it_together(world: World) -> None:
    offer(world, "ten", percent=10)
    tax(world, "acme", "vat", "19", "2025-01-01")
    grant(world, "5.00")
    document = pass_january(world)["acme"]
    # 10 % is 1.982; the lines bear 0.65 and 1.33; 19 % of 5.85 is 1.1115, of 11.99 2.2781
    assert amounts(document) == ("19.82", "1.98", "3.39", "5.00", "16.23")
    number = document.number
    assert world.rows(
        "select line_number, amount from invoices.coupon_entries where invoice_number = %s order by 1", number
    ) == [(1, D("0.65")), (2, D("1.33"))]  # fmt: skip
    assert world.rows(
        "select line_number, rate, taxable_amount, tax_amount from invoices.issued_invoice_taxes"
        " where invoice_number = %s order by 1",
        number,
    ) == [(1, 19, D("5.85"), D("1.11")), (2, 19, D("11.99"), D("2.28"))]
    tiers = world.rows(
        "select line_number, sum(amount) from invoices.issued_tier_slices where invoice_number = %s"
        " group by 1 order by 1",
        number,
    )
    assert tiers == [(1, D("6.500")), (2, D("13.32"))]
    assert entries(world) == [("CR-5.00", "applied", "-5.00")]
    assert world.check("L5") == set()
    check_numbers_and_chain(world)


def test_an_amount_off_is_used_up_over_documents_and_none_is_for_others(world: World) -> None:
    """delta has two documents of 10.00: the first takes what there is, as far as it goes."""
    offer(world, "twelve", tenant="delta", amount="12.00", currency="USD")
    offer(world, "euros", tenant="delta", amount="5.00", currency="EUR")
    offer(world, "another", tenant="delta", percent=50, subscription="sub-acme")
    offer(world, "ended", tenant="delta", percent=50, until=JANUARY)
    offer(world, "to come", tenant="delta", percent=50, since=JANUARY + timedelta(days=1))
    issued = {each.number: each for each in issue_within(world.connection, JANUARY, NOW).issued}
    assert amounts(issued["US-000001"]) == ("10.00", "10.00", "0.00", "0.00", "0.00")
    assert amounts(issued["US-000002"]) == ("10.00", "2.00", "0.00", "0.00", "8.00")
    assert {each.coupon_amount for each in issued.values() if each.tenant_id != "delta"} == {0}
    assert world.check("L5") == set()


def test_a_coupon_knows_what_earlier_runs_used(world: World) -> None:
    offer(world, "thirty", amount="30.00", currency="USD", documents=2)
    assert pass_january(world)["acme"].coupon_amount == D("19.82")
    world.seal("2026-02-04", "2026-03-04")
    redraft(world)
    (later,) = (
        each
        for each in issue_within(world.connection, FEBRUARY, after(FEBRUARY)).issued
        if each.tenant_id == "acme"
    )
    assert amounts(later) == ("3.00", "3.00", "0.00", "0.00", "0.00")
    world.execute("update catalog.coupons set document_limit = 2, amount = 100")
    assert world.rows(
        "select coupon_id, sum(amount), count(distinct invoice_number) from invoices.coupon_entries group by 1"
    ) == [("thirty", D("22.82"), 2)]
    assert world.check("L5") == set()


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([("vat", "19", "2026-01-31", None)], {1: ["vat 19"], 2: ["vat 19"]}),
        ([("vat", "19", "2026-02-01", None)], {}),
        ([("vat", "16", "2025-07-01", None), ("vat", "19", "2026-01-01", None)],
         {1: ["vat 19"], 2: ["vat 19"]}),
        ([("vat", "19", "2026-01-01", None), ("vat", "7", "2025-01-01", "basic-tokens")],
         {1: ["vat 19"], 2: ["vat 7"]}),
        ([("state", "4", "2026-01-01", None), ("city", "2.5", "2026-01-01", "basic-requests")],
         {1: ["city 2.5", "state 4"], 2: ["state 4"]}),
    ],
)  # fmt: skip
def test_the_rate_is_that_of_the_last_day_of_the_service(
    world: World, rates: list[tuple[str, str, str, str | None]], expected: dict[int, list[str]]
) -> None:
    for code, rate, since, charge in rates:
        tax(world, "acme", code, rate, since, charge)
    tax(world, "birch", "vat", "99", "2026-01-01")
    number = pass_january(world)["acme"].number
    found: dict[int, list[str]] = {}
    for line, code, rate in world.rows(
        "select line_number, tax_code, rate from invoices.issued_invoice_taxes where invoice_number = %s"
        " order by 1, 2",
        number,
    ):
        found.setdefault(line, []).append(f"{code} {rate}")
    assert found == expected
    assert world.check("L5") == set()


def test_an_outside_engine_goes_before_the_catalog(world: World) -> None:
    tax(world, "acme", "vat", "19", "2026-01-01")
    world.execute(
        """
        insert into invoices.external_taxes
        select draft_id, charge_id, component, slice_start, tax.code, tax.rate
        from invoices.draft_invoice_lines
        cross join (values ('state', 4), ('city', 1.5)) as tax (code, rate)
        where charge_id = 'basic-tokens' and tenant_id = 'acme' and slice_start = '2026-01-01Z'
        """
    )
    document = pass_january(world)["acme"]
    assert world.rows(
        "select line_number, tax_code, tax_amount from invoices.issued_invoice_taxes"
        " where invoice_number = %s order by 1, 2",
        document.number,
    ) == [(1, "vat", D("1.24")), (2, "city", D("0.20")), (2, "state", D("0.53"))]
    assert document.tax_amount == D("1.97")


def test_credits_pay_by_priority_expiry_and_age(world: World) -> None:
    grant(world, "1.00", id="young")
    grant(world, "2.00", id="soon", expires_on="2026-02-05")
    grant(world, "3.00", id="first", priority=1)
    grant(world, "4.00", id="gone", priority=0, expires_on="2026-02-04")
    grant(world, "0.004", id="crumb", priority=0)
    grant(world, "9.00", id="euros", priority=0, currency="EUR")
    grant(world, "9.00", id="fees", priority=0, components=["flat"])
    grant(world, "9.00", id="old", priority=60)
    grant(world, "9.00", id="last", priority=60)
    document = pass_january(world)["acme"]
    assert amounts(document) == ("19.82", "0.00", "0.00", "19.82", "0.00")
    assert entries(world) == [
        ("gone", "expired", "-4.00"),
        ("first", "applied", "-3.00"),
        ("soon", "applied", "-2.00"),
        ("young", "applied", "-1.00"),
        ("old", "applied", "-9.00"),
        ("last", "applied", "-4.82"),
    ]
    balances = {each.credit_id: each for each in credits.balances(world.connection, NOW, "acme")}
    assert {name: str(each.balance) for name, each in balances.items()} == {
        "young": "0.00", "soon": "0", "first": "0.00", "gone": "0", "crumb": "0.004", "euros": "9.00",
        "fees": "9.00", "old": "0.00", "last": "4.18",
    }  # fmt: skip
    assert (balances["gone"].expired, balances["last"].applied) == (D("4.00"), D("4.82"))
    assert world.check("L5") == set()


def test_balances_at_an_instant(world: World) -> None:
    grant(world, "9.00", expires_on="2026-02-10")
    pass_january(world)
    for instant, expected in (
        ("2026-01-04", {}),
        ("2026-01-06", {"CR-9.00": ("9.00", "0")}),
        ("2026-02-06", {"CR-9.00": ("0.00", "0")}),
    ):
        found = {
            each.credit_id: (str(each.balance), str(each.expired))
            for each in credits.balances(world.connection, at(instant))
        }
        assert found == expected, instant
    grant(world, "2.00", id="later", expires_on="2026-02-10")
    (later,) = (
        each
        for each in credits.balances(world.connection, at("2026-02-10"))
        if each.credit_id == "later"
    )
    assert (str(later.balance), str(later.expired)) == ("0", "2.00")


def test_credits_are_granted_and_voided_by_hand(whole_world: World) -> None:
    database = whole_world.database
    terms = {"by": "ana", "why": "order 7", "now": NOW}
    granted = credits.grant(database, "acme", D("25.00"), "USD", **terms)
    assert granted == "CR-000001"
    for change, message in (
        ({"tenant_id": "nobody"}, "no tenant 'nobody'"),
        ({"currency": "GBP"}, "no currency 'GBP'"),
        ({"amount": D(0)}, "give a positive amount"),
        ({"expires_on": NOW.date()}, "would never pay"),
        ({"components": ("usages",)}, "known components are usage, flat"),
    ):
        wanted = {"tenant_id": "acme", "amount": D(1), "currency": "USD"} | change
        with pytest.raises(credits.CreditError, match=message):
            credits.grant(database, **wanted, **terms)
    with pytest.raises(ValueError, match="why must not be empty"):
        credits.grant(database, "acme", D(1), "USD", by="ana", why=" ", now=NOW)
    assert str(credits.void(database, granted, "ben", "typo", NOW)) == "25.00"
    with pytest.raises(credits.CreditError, match="with anything left"):
        credits.void(database, granted, "ben", "typo", NOW)
    issued = {each.tenant_id: each for each in issue_january(whole_world).issued}
    assert issued["acme"].credit_amount == 0


def test_a_credit_note_takes_neither_coupon_nor_credit(world: World) -> None:
    world.execute(
        "update invoices.draft_invoice_lines set amount = -amount where tenant_id = 'acme'"
    )
    world.execute("update invoices.draft_invoices set total = -total where tenant_id = 'acme'")
    world.execute("update invoices.held_invoices set released_at = now()")
    offer(world, "ten", percent=10)
    grant(world, "5.00")
    tax(world, "acme", "vat", "19", "2026-01-01")
    report = issue_within(world.connection, JANUARY, NOW)
    assert {each.tenant_id for each in report.held} == {
        "acme"
    }  # its amounts are not the rated ones
    world.execute(
        "update invoices.held_invoices set released_by = 'ana', release_reason = 'test', released_at = now()"
    )
    redraft(world)
    (document,) = issue_within(world.connection, JANUARY, NOW).issued
    assert (document.document_kind, *amounts(document)) == (
        "credit_note", "-19.82", "0.00", "-3.77", "0.00", "-23.59",
    )  # fmt: skip


def test_a_preview_shows_what_issuing_does(whole_world: World) -> None:
    offer(whole_world, "ten", percent=10)
    tax(whole_world, "acme", "vat", "19", "2026-01-01")
    grant(whole_world, "5.00")
    shown = preview(whole_world.database, JANUARY, NOW).issued
    assert entries(whole_world) == []
    assert issue_january(whole_world).issued == shown


# Documents of several kinds beside each other


def sell_to_many(world: World) -> None:
    """small is billed from 5.00 on; multi in dollars and yen; own is never billed; gone has ended."""
    company = Company(world.connection)
    company.add("metrics", metric="tokens", event_type="api.request", aggregation="sum",
                value_property="tokens", dimensions="[]", unit="tokens", filter="{}",
                description="tokens")  # fmt: skip
    for plan, currency, metric, price, minimum in (
        ("small", "USD", "requests", "1", "5"), ("dollars", "USD", "requests", "1", "0"),
        ("yen", "JPY", "tokens", "0.335", "0"),
    ):  # fmt: skip
        company.add_plan(plan, currency, minimum)
        company.add_charge(plan, plan, [(None, price, 0)], metric, model="per_unit")
    company.subscribe("small", "small")
    company.subscribe("multi", "dollars")
    company.subscribe("multi", "yen", subscription="sub-multi-yen")
    company.subscribe("gone", "dollars", end="2026-01-20T00:00:00Z")
    company.subscribe("own", "dollars")
    company.catalog["tenants"][-1]["billable"] = "false"
    company.load_catalog()
    world.seal("2026-02-04", "2026-03-05")
    world.land("2026-01-12T12:00", "many.ndjson", [
        use(tenant, "2026-01-12T10:10", number)
        for tenant, count in (("small", 2), ("multi", 3), ("own", 5), ("gone", 4))
        for number in range(count)
    ])  # fmt: skip
    world.land("2026-02-02T12:00", "small.ndjson", [
        use("small", "2026-02-02T10:10", 100 + number) for number in range(4)
    ])  # fmt: skip
    world.run("2026-01-12", "2026-02-03", *CATALOG)
    assert world.check() == set()
    for tenant, code, rate, since in (
        ("small", "vat", "19", "2025-01-01"), ("small", "vat", "20", "2026-02-01"),
        ("multi", "vat", "10", "2025-01-01"), ("own", "vat", "19", "2025-01-01"),
        ("gone", "vat", "19", "2025-01-01"),
    ):  # fmt: skip
        tax(world, tenant, code, rate, since)


def by_tenant(report: IssueReport) -> dict[str, tuple[str, ...]]:
    """Each document's amounts, by tenant and currency."""
    assert report.held == []
    return {f"{each.tenant_id} {each.currency}": amounts(each) for each in report.issued}


def test_coupons_taxes_and_credits_of_documents_of_many_kinds(whole_world: World) -> None:
    sell_to_many(whole_world)
    offer(whole_world, "ten", tenant="small", percent=10)
    offer(whole_world, "fifteen", tenant="multi", percent=15)
    offer(whole_world, "dollar", tenant="multi", amount="1.00", currency="USD", since="2026-01-02")
    offer(whole_world, "half", tenant="own", percent=50)
    offer(whole_world, "five", tenant="gone", amount="5.00", currency="USD")
    grant(whole_world, "5.00", id="small", tenant="small")
    grant(whole_world, "30.5", id="yen", tenant="multi", currency="JPY")
    grant(whole_world, "9.00", id="own", tenant="own")
    grant(whole_world, "0.50", id="gone", tenant="gone")
    # 3.00 less 15 % and a dollar is 1.55, a tenth of it 0.155; 100.5 yen are 101, 15 % of them 15.15,
    # a tenth of 86 is 8.6, and half a yen buys nothing; what is gone has used four of its five
    assert by_tenant(issue_january(whole_world)) == {
        "multi USD": ("3.00", "1.45", "0.16", "0.00", "1.71"),
        "multi JPY": ("101", "15", "9", "30", "65"),
        "gone USD": ("4.00", "4.00", "0.00", "0.00", "0.00"),
    }

    whole_world.land("2026-02-10T00:00", "late.ndjson", [
        use("gone", "2026-01-13T10:10", 10 + number) for number in range(3)
    ])  # fmt: skip
    for _ in range(2):
        whole_world.execute("update ledger.pending set released = true")
        whole_world.run("2026-02-10", "2026-02-11")
    assert whole_world.check() == set()
    # 30 days after the last regular billing, on 23 January: the coupon's last dollar, 19 % of two
    final = date(2026, 2, 22)
    assert by_tenant(issue(whole_world.database, final - timedelta(days=1), after(final))) == {}
    assert by_tenant(issue(whole_world.database, final, after(final))) == {
        "gone USD": ("3.00", "1.00", "0.38", "0.50", "1.88"),
    }

    # January's two dollars had to wait; each line has the rate of its own month: 0.342 and 0.72
    redraft(whole_world)
    assert by_tenant(issue(whole_world.database, FEBRUARY, after(FEBRUARY))) == {
        "small USD": ("6.00", "0.60", "1.06", "5.00", "1.46"),
    }
    assert whole_world.rows(
        "select rate, taxable_amount, tax_amount from invoices.issued_invoice_taxes"
        " inner join invoices.issued_invoice_lines using (invoice_number, line_number)"
        " where tenant_id = 'small' order by line_number"
    ) == [(19, D("1.80"), D("0.34")), (20, D("3.60"), D("0.72"))]
    assert entries(whole_world) == [
        ("yen", "applied", "-30"), ("gone", "applied", "-0.50"), ("small", "applied", "-5.00"),
    ]  # fmt: skip
    assert whole_world.rows("select from invoices.coupon_entries where coupon_id = 'half'") == []
    check_numbers_and_chain(whole_world)
    assert whole_world.check() == set()


# Voids and write-offs


def full(world: World) -> IssuedInvoice:
    """acme's January with all that a document may have."""
    offer(world, "two", amount="2.00", currency="USD", documents=1)
    tax(world, "acme", "vat", "19", "2026-01-01")
    grant(world, "5.00")
    return {each.tenant_id: each for each in issue_january(world).issued}["acme"]


def test_a_void_is_due_again_with_coupons_and_credits(whole_world: World) -> None:
    before = full(whole_world)
    assert amounts(before) == ("19.82", "2.00", "3.39", "5.00", "16.21")
    why = "wrong address"
    void = reverse(whole_world.database, before.number, "void", "ana", why, at("2026-02-06"))
    assert (void.document_kind, *amounts(void)) == (
        "void", "-19.82", "-2.00", "-3.39", "-5.00", "-16.21",
    )  # fmt: skip
    assert whole_world.row(
        "select refers_to, decided_by, reason, billing_date from invoices.issued_invoices"
        " where invoice_number = %s",
        void.number,
    ) == (before.number, "ana", why, JANUARY)
    assert entries(whole_world)[-1] == ("CR-5.00", "returned", "5.00")
    check_numbers_and_chain(whole_world)
    assert whole_world.check("L5") == set()

    whole_world.run("2026-01-12", "2026-01-15")
    due = whole_world.rows(
        "select distinct kind, bill_at from invoices.draft_invoice_lines"
        " where tenant_id = 'acme' and slice_start = '2026-01-01Z'"
    )
    assert due == [("regular", at("2026-02-04"))]
    (again,) = issue(whole_world.database, JANUARY, at("2026-02-06")).issued
    assert amounts(again) == amounts(before)
    assert whole_world.check() == set()
    check_numbers_and_chain(whole_world)
    whole_world.run("2026-01-12", "2026-01-15")
    assert issue(whole_world.database, JANUARY, at("2026-02-06")).issued == []


def test_a_write_off_leaves_what_was_billed(whole_world: World) -> None:
    before = full(whole_world)
    done = reverse(
        whole_world.database, before.number, "write_off", "ana", "insolvent", at("2026-02-06")
    )
    assert (done.document_kind, str(done.amount_due)) == ("write_off", "-16.21")
    assert whole_world.row("select count(*) from invoices.coupon_entries") == (2,)
    assert entries(whole_world) == [("CR-5.00", "applied", "-5.00")]
    whole_world.run("2026-01-12", "2026-01-15")
    assert issue(whole_world.database, JANUARY, at("2026-02-06")).issued == []
    assert whole_world.check() == set()
    check_numbers_and_chain(whole_world)


def test_a_document_is_reversed_once(whole_world: World) -> None:
    number = full(whole_world).number

    def reversed_as(kind: str, which: str = number) -> IssuedInvoice:
        return reverse(whole_world.database, which, kind, "ana", "why", at("2026-02-06"))

    with pytest.raises(UnknownDocumentError, match="no document 'US-999999'"):
        reversed_as("void", "US-999999")
    with pytest.raises(ValueError, match="by must not be empty"):
        reverse(whole_world.database, number, "void", "", "why", NOW)
    void = reversed_as("void")
    for kind in ("void", "write_off"):
        with pytest.raises(NotReversibleError, match=f"has a void already: {void.number}"):
            reversed_as(kind)
        with pytest.raises(NotReversibleError, match=f"{void.number} is a void of {number}"):
            reversed_as(kind, void.number)
    stop_issuing(whole_world.database, "ana", "audit", NOW)
    with pytest.raises(IssuingStoppedError):
        reversed_as("void", "US-000001")


def test_what_is_paid_cannot_be_written_off(whole_world: World) -> None:
    grant(whole_world, "99.00")
    document = full(whole_world)
    assert document.amount_due == 0
    with pytest.raises(NotReversibleError, match="there is nothing to write off"):
        reverse(whole_world.database, document.number, "write_off", "ana", "why", NOW)


def test_two_voids_at_once_leave_one_and_no_gap(whole_world: World) -> None:
    number = full(whole_world).number

    def void(_: int) -> str:
        try:
            return reverse(whole_world.database, number, "void", "ana", "why", NOW).number
        except NotReversibleError:
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(void, range(2))) == ["US-000005", "refused"]
    check_numbers_and_chain(whole_world)


def test_a_kill_in_the_middle_of_a_void_leaves_nothing(whole_world: World) -> None:
    number = full(whole_world).number
    script = (
        "import sys; from datetime import datetime\n"
        "from metering_pipeline.postgres import Database\n"
        "from metering_pipeline.invoices.issuing import reverse\n"
        "reverse(Database(sys.argv[1], ''), sys.argv[2], 'void', 'ana', 'why', "
        "datetime.fromisoformat(sys.argv[3]))\n"
    )
    with whole_world.database.connect() as other:
        other.execute("lock table invoices.credit_entries in share mode")
        arguments = [whole_world.database.url, number, NOW.isoformat()]
        process = subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=PROJECT_ROOT)
        try:
            wait_for_lock(whole_world, "credit_entries")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
    assert reverse(whole_world.database, number, "void", "ana", "why", NOW).number == "US-000005"
    check_numbers_and_chain(whole_world)
    assert whole_world.check("L5") == set()


# Approval


def require_approval(world: World) -> None:
    world.execute(
        "insert into catalog.settings values ('approval', 'required')"
        " on conflict (name) do update set value = 'required'"
    )


def test_a_draft_goes_when_it_is_approved_as_it_is(whole_world: World) -> None:
    require_approval(whole_world)
    report = issue_january(whole_world)
    assert (report.issued, {each.reason for each in report.held}) == ([], {"not_approved"})
    assert len(report.held) == 5
    draft = "sub-birch/USD/2026-02-04T00:00Z"
    decided = {"by": "ana", "why": "read", "now": NOW}
    with pytest.raises(UnknownHoldError, match="no draft 'sub-nobody'"):
        approve(whole_world.database, "sub-nobody", **decided)
    assert approve(whole_world.database, draft, **decided) == [draft]
    whole_world.tamper(
        "update invoices.draft_invoice_lines set event_digest = event_digest + 1 where draft_id = %s"
        " and charge_id = 'basic-tokens'",
        draft,
    )
    report = issue_january(whole_world)
    assert ("birch", "not_approved") in {(each.tenant_id, each.reason) for each in report.held}
    whole_world.tamper(
        "update invoices.draft_invoice_lines set event_digest = event_digest - 1 where draft_id = %s"
        " and charge_id = 'basic-tokens'",
        draft,
    )
    assert [each.tenant_id for each in issue_january(whole_world).issued] == ["birch"]
    redraft(whole_world)
    # all that are due by now and not approved yet; March's drafts are not due
    assert len(approve(whole_world.database, None, **decided)) == 4
    assert len(issue_january(whole_world).issued) == 4
    assert whole_world.row(
        "select count(*), min(approved_by), sum(total) from invoices.approvals"
    ) == (5, "ana", D("100.79"))
    assert whole_world.check("L5") == set()


# L5

TAMPERING: dict[str, str] = {
    "a tax": "update invoices.issued_invoice_taxes set tax_amount = tax_amount + 1 where line_number = 1",
    "what a tax is of": "update invoices.issued_invoice_taxes set taxable_amount = 1 where line_number = 1",
    "a tax removed": "delete from invoices.issued_invoice_taxes where line_number = 1",
    "a tier": "update invoices.issued_tier_slices set unit_amount = 9 where invoice_number = 'US-000003'"
    " and line_number = 2",
    "a coupon's share": "update invoices.coupon_entries set amount = amount + 1 where line_number = 1",
    "a coupon's name": "update invoices.coupon_entries set coupon_id = 'x' where line_number = 1",
    "a credit": "update invoices.credit_entries set amount = amount - 1 where kind = 'applied'",
    "a credit removed": "delete from invoices.credit_entries where kind = 'applied'",
    "a grant made smaller": "update invoices.credit_entries set amount = 1 where kind = 'grant'",
    "a name": "update invoices.issued_invoices set tenant_name = 'Renamed' where tenant_id = 'acme'",
    "a unit": "update invoices.issued_invoice_lines set unit = 'bytes' where invoice_number = 'US-000003'"
    " and line_number = 2",
    "the sums": "update invoices.issued_invoices set tax_amount = 0, amount_due = amount_due - tax_amount"
    " where tenant_id = 'acme'",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_a_changed_amount_is_caught(world: World, name: str) -> None:
    offer(world, "two", amount="2.00", currency="USD")
    tax(world, "acme", "vat", "19", "2026-01-01")
    grant(world, "5.00")
    pass_january(world)
    assert world.check("L5") == set()
    world.tamper(TAMPERING[name])
    assert world.check("L5") == {("L5", None), ("L5", "acme")}


REWRITTEN: dict[str, tuple[Callable[[str], str], str]] = {
    "a line of a void": (
        lambda text: text.replace('"amount":"-6.50"', '"amount":"-6.60"').replace(
            '"amount":"-13.32"', '"amount":"-13.22"'
        ),
        "update invoices.issued_invoice_lines set amount = case line_number when 1 then -6.60 else -13.22 end"
        " where invoice_number = 'US-000005'",
    ),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_void_that_is_no_negation_is_caught(whole_world: World, name: str) -> None:
    """One who rewrites content and hash alike is betrayed by the document that it is about."""
    number = {each.tenant_id: each for each in issue_january(whole_world).issued}["acme"].number
    reverse(whole_world.database, number, "void", "ana", "why", NOW)
    assert whole_world.check("L5") == set()
    rewrite, lines = REWRITTEN[name]
    (content,) = whole_world.row(
        "select content from invoices.issued_invoices where invoice_number = 'US-000005'"
    )
    with whole_world.past_triggers():
        whole_world.execute(lines)
        whole_world.execute(
            "update invoices.issued_invoices set content = %(content)s,"
            " content_sha256 = encode(sha256(convert_to(%(content)s, 'UTF8')), 'hex')"
            " where invoice_number = 'US-000005'",
            {"content": rewrite(content)},
        )
        whole_world.execute(
            "update invoices.invoice_series set last_sha256 = documents.content_sha256"
            " from invoices.issued_invoices as documents where documents.invoice_number = 'US-000005'"
            " and invoice_series.series = 'US'"
        )
    failed = [each for each in whole_world.results("L5") if not each.passed and each.tenant_id]
    (result,) = failed
    assert result.tenant_id == "acme"
    assert "not the negation" in str(result.figures)


def test_the_database_refuses_a_second_reversal(whole_world: World) -> None:
    number = full(whole_world).number
    reverse(whole_world.database, number, "void", "ana", "why", NOW)
    with pytest.raises(psycopg.errors.UniqueViolation):
        whole_world.execute(
            """
            insert into invoices.issued_invoices
            select 'US-000006', series, 6, document_kind, tenant_id, subscription_id, legal_entity, currency,
                total, billing_date, bill_at, catalog_version, issued_at, content, content_sha256,
                previous_sha256, draft_id, coupon_amount, tax_amount, credit_amount, amount_due, refers_to,
                decided_by, reason, tenant_name, legal_entity_name, plan_name, time_zone, minor_digits
            from invoices.issued_invoices where refers_to is not null
            """
        )


# Accrued


def accrued(world: World, before: str) -> dict[tuple[str, str], str]:
    return {
        (charge, f"{start:%m}"): str(amount)
        for charge, start, amount in world.rows(
            "select charge_id, slice_start, accrued_amount from invoices.accrued_usage(%s)"
            " where tenant_id = 'acme'",
            before,
        )
    }


def test_what_is_rated_and_not_billed_at_a_month_s_end(whole_world: World) -> None:
    run_dbt(whole_world.database, "run", ["accrued_usage"])
    january = {("basic-requests", "01"): "6.50", ("basic-tokens", "01"): "13.32"}
    assert accrued(whole_world, "2026-02-01") == january
    issue_january(whole_world)
    assert accrued(whole_world, "2026-02-01") == january, "billed later than that"
    later = accrued(whole_world, "2026-02-05")
    assert ("basic-requests", "01") not in later
    assert later["basic-requests", "02"] == "3.00", (
        "nothing has landed since: all of it is until then"
    )
    cut = accrued(whole_world, "2026-02-02")
    assert cut["basic-requests", "02"] == "3.00", "cut: what the first tier costs without usage"
    assert whole_world.rows(
        "select charge_id, event_count_until, value_sum_until, accrued_amount, is_cut"
        " from invoices.accrued_usage('2026-01-13') where tenant_id = 'birch' order by 1"
    ) == [
        ("basic-requests", 4, 4, D("6.50"), True),
        ("basic-tokens", 4, D("307.5"), D("10.24"), True),
    ]
    whole_world.execute("update catalog.tenants set billable = false where tenant_id = 'acme'")
    assert accrued(whole_world, "2026-02-01") == {}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="before must be a date"):
        whole_world.execute("select invoices.accrued_usage(null)")
