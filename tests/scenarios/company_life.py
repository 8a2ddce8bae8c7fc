"""A company's life: what happens on which day is told here, and its invoices are read back.

Usage is dropped as files and goes the whole way: landed, posted, rolled up, rated, drafted and issued
by the functions and statements of the pipeline itself. Only Dagster and dbt's runner stay outside.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, LiteralString

from metering_pipeline.invoices import credits, issuing
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.sources import Source
from metering_pipeline.landing.store import Store
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.reconciliation.laws import LAWS, evaluate, evaluate_day_of_usage
from metering_pipeline.settings import END_OF_TIME, HOUR, Settings, hour_of
from metering_pipeline.transform.late_arrivals import release_late_arrivals
from metering_pipeline.transform.posting import RATING
from tests.dbt.company import Company, Row, instant
from tests.soak.posting import CATALOG, DAILY, LEDGER, ROLLUPS, RecordedModels

BEGINNING = datetime(2025, 12, 1, tzinfo=UTC)
"""The first landing hour of every company."""
DAY = timedelta(days=1)
DRAFTS = RATING[-1]


@dataclass(frozen=True)
class Line:
    """A line of an invoice; start and end are its service period in UTC, as 2026-01-31T13:00."""

    charge: str
    component: str
    kind: str
    start: str
    end: str
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True)
class Invoice:
    """An issued document as the database has it; the amounts are in its currency."""

    number: str
    kind: str
    tenant: str
    subscription: str
    currency: str
    total: Decimal
    coupons: Decimal
    taxes: Decimal
    credits: Decimal
    due: Decimal
    bill_at: datetime
    refers_to: str | None
    lines: tuple[Line, ...]

    def line(self, charge: str, kind: str = "regular") -> Line:
        """The one line of a charge and kind."""
        (line,) = (each for each in self.lines if (each.charge, each.kind) == (charge, kind))
        return line

    def parts(self, kind: str, first_day: str) -> dict[str, Decimal]:
        """By component what the lines of a kind and a period come to."""
        lines = [line for line in self.lines if (line.kind, line.start[:10]) == (kind, first_day)]
        return {line.component: line.amount for line in lines}

    @property
    def amounts(self) -> list[tuple[str, str, Decimal]]:
        """Charge, first day of service and amount of each line, as they stand on the document."""
        return [(line.charge, line.start[:10], line.amount) for line in self.lines]


class CompanyLife:
    """A company with a pipeline of its own, and the present moment in it.

    ``sells`` is its catalog; what is written there counts from the next moment on.
    """

    def __init__(self, database: Database, root: Path, models: RecordedModels) -> None:
        root.mkdir(parents=True)
        self.database = database
        self.settings = Settings(
            database_url=database.url,
            dagster_database_url=database.dagster_url,
            landing_url=str(root),
            first_hour=BEGINNING,
        )
        open_database(self.settings)
        self.connection = database.connect(autocommit=True)
        self.sells = Company(self.connection)
        self.sells.catalog["metrics"].clear()
        self.sells.add("metrics", metric="units", event_type="api.request", aggregation="sum",
                       dimensions="[]", unit="units", filter="{}", description="units")  # fmt: skip
        self.now = BEGINNING
        self.held: list[issuing.HeldInvoice] = []
        self._models = models.another(database)
        self._store = Store(database.url, self.settings, Source(str(root)))
        self._root = root
        self._files = 0
        self._not_landed: set[datetime] = set()
        self._published: Mapping[str, Sequence[Row]] = {}

    def close(self) -> None:
        self._store.__exit__(None, None, None)
        self._models.close()
        self.connection.close()

    # What is sold

    def sell_units(
        self, plan: str, price: str, currency: str = "USD", minimum: str = "0", **terms: Any
    ) -> None:
        """A monthly plan whose units cost so much each; the charge is <plan>-units."""
        self.sells.add_plan(plan, currency, minimum)
        self.price_units(plan, price, **terms)

    def price_units(self, plan: str, price: str, **terms: Any) -> None:
        """A price for a unit, of the first version of the charge or a further one."""
        tiers = [(None, price, 0)]
        self.sells.add_charge(f"{plan}-units", plan, tiers, "units", model="per_unit", **terms)

    # What happens

    def use(
        self, tenant: str, at: str, units: object = 1, request: str | None = None, **event: Any
    ) -> None:
        """An event of so many units. It lands in its own hour, or now if that has passed: it is late then."""
        self._files += 1
        occurred_at = instant(at)
        hour = max(hour_of(occurred_at), hour_of(self.now))
        folder = self._root / f"landed_hour={hour:%Y-%m-%dT%H}"
        folder.mkdir(exist_ok=True)
        told = {
            "tenant_id": tenant,
            "event_type": "api.request",
            "occurred_at": occurred_at.isoformat(),
            "correlation_id": request or f"request-{self._files}",
            "quantity": str(units),
            **event,
        }
        (folder / f"{self._files:06}.ndjson").write_text(json.dumps(told) + "\n")
        self._not_landed.add(hour)

    def void(self, tenant: str, at: str, request: str) -> None:
        """Take an event back: the same four fields, and void."""
        self.use(tenant, at, request=request, void=True)

    def live_until(self, moment: str | datetime) -> None:
        """Let time pass: what has come until then is landed, posted, rated and drafted."""
        self.now = max(self.now, instant(moment) if isinstance(moment, str) else moment)
        due = sorted(hour for hour in self._not_landed if hour <= self.now)
        for hour in due:
            self._store.land_hour(hour, self.now)
        self._not_landed -= set(due)
        list_hours(self.database.url, self.settings, self.now)
        if due:
            self._post(LEDGER, window=Window(due[0], due[-1] + HOUR))
        self._publish_if_changed()
        self._post(*ROLLUPS, DAILY)
        if release_late_arrivals(self.database):
            self._post(*ROLLUPS, DAILY)
        if due:
            for law in LAWS[:3]:  # as the checks of a run do
                evaluate(self.connection, law, due[0], due[-1] + HOUR, self.now)
        self._post(*RATING)

    def issue(self, day: str, held: bool = False) -> list[Invoice]:
        """Issue what is due by the end of a UTC day, half an hour after it: the documents, by number.

        Nothing is held, unless the story says so; ``self.held`` has it then.
        """
        self.live_until(instant(day + "T00:00Z") + DAY + timedelta(minutes=30))
        report = issuing.issue(self.database, date.fromisoformat(day), self.now)
        self.held = report.held
        assert held or not report.held, report.held
        return [self.invoice(each.number) for each in report.issued]

    def reverse(self, number: str, kind: str) -> Invoice:
        """Void a document or write it off: the further document that says so."""
        done = issuing.reverse(self.database, number, kind, "ana", "as the story has it", self.now)
        return self.invoice(done.number)

    def grant(
        self, tenant: str, amount: str, priority: int = 50, expires: str | None = None
    ) -> None:
        """A prepaid credit in dollars."""
        self.now += timedelta(minutes=1)
        credits.grant(
            self.database, tenant, Decimal(amount), "USD", by="ana", why="prepaid", now=self.now,
            priority=priority, expires_on=date.fromisoformat(expires) if expires else None,
        )  # fmt: skip

    def _publish_if_changed(self) -> None:
        if self._published != self.sells.catalog:
            self.sells.load_catalog()
            self._post(CATALOG)
            self._published = deepcopy(self.sells.catalog)

    def _post(self, *models: str, window: Window | None = None) -> None:
        self._models(models, window or Window(BEGINNING, END_OF_TIME))

    # What came of it

    def invoice(self, number: str) -> Invoice:
        (document,) = self.sells.rows(
            "select * from invoices.issued_invoices where invoice_number = %s", number
        )
        lines = self.sells.rows(
            "select * from invoices.issued_invoice_lines where invoice_number = %s order by line_number",
            number,
        )
        return Invoice(
            number,
            document["document_kind"],
            document["tenant_id"],
            document["subscription_id"],
            document["currency"],
            document["total"],
            document["coupon_amount"],
            document["tax_amount"],
            document["credit_amount"],
            document["amount_due"],
            document["bill_at"].astimezone(UTC),
            document["refers_to"],
            tuple(_line(each) for each in lines),
        )

    def invoices(self) -> list[Invoice]:
        """Every document, in the order in which they were numbered."""
        rows = self.sells.rows(
            "select invoice_number from invoices.issued_invoices order by series, series_number"
        )
        return [self.invoice(row["invoice_number"]) for row in rows]

    def credits_left(self, tenant: str) -> list[Decimal]:
        """What is left of each credit, in the order in which they pay."""
        return [each.balance for each in credits.balances(self.connection, self.now, tenant)]

    def rated(self, tenant: str) -> Decimal:
        """What a tenant's usage and fees come to, billed or not."""
        return self.sells.amounts()[tenant]

    # What somebody may do behind the pipeline's back

    def rewrite_line(self, number: str, line_number: int, more: Decimal) -> None:
        """Make a line of the newest document dearer, and all that says what it comes to with it.

        Of a matrix units move to the first row, of a percentage by event the limits take off less, of a
        commitment less was used; else the first slice is dearer.
        """
        line = {"number": number, "line_number": line_number, "more": more}
        self.connection.execute("set local session_replication_role = replica")
        for statement in _REWRITING:
            self.connection.execute(statement, line)
        self.connection.execute("set local session_replication_role = origin")

    def document_faults(self) -> list[str]:
        """What L5 finds wrong with the documents."""
        results = evaluate(self.connection, "L5", BEGINNING, self.now + DAY, self.now)
        return [
            fault
            for result in results
            for sample in result.figures.get("samples", ())
            for fault in sample["faults"]
        ]

    # What must hold after every story

    def check_drafts(self) -> None:
        """Drafts that followed what changed are, row for row, what building all of them anew gives."""
        self.live_until(self.now)
        followed = self._drafts()
        self.connection.execute("delete from invoices.drafted_from")
        self._post(DRAFTS)
        assert followed == self._drafts()

    def _drafts(self) -> list[Row]:
        return [
            row
            for table in ("draft_invoices", "draft_invoice_lines")
            for row in self.sells.rows(f"select * from invoices.{table} order by {table}")
        ]

    def check(self) -> None:
        """Every law holds over all that happened, and every sum adds up, reckoned here once more."""
        self.check_drafts()
        for law in LAWS:
            self._expect_green(evaluate(self.connection, law, BEGINNING, self.now + DAY, self.now))
        for (day,) in self.connection.execute("select distinct day from rollups.usage_daily"):
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
            self._expect_green(evaluate_day_of_usage(self.connection, midnight, self.now))
        self._check_slices()
        self._check_documents()
        self._check_what_is_due()
        self._check_numbers()

    def _expect_green(self, results: Sequence[Any]) -> None:
        assert results
        assert [each for each in results if not each.passed] == []

    def _check_slices(self) -> None:
        """The slices of each usage and fee are its amount, rounded once: of what is rated, and of what was."""
        self._expect_slices(
            "select * from rating.rated_lines",
            "select * from rating.tier_slices",
            ("subscription_id", "charge_id", "component", "slice_start", "currency"),
            "amount",
        )
        self._expect_slices(
            # A void or write-off says the lines of its document once more, and not how they came about.
            """
            select * from invoices.issued_invoice_lines inner join invoices.issued_invoices
            using (invoice_number, currency) where refers_to is null
            """,
            "select * from invoices.issued_tier_slices",
            ("invoice_number", "line_number"),
            "rated_amount",
        )

    def _expect_slices(self, lines: str, slices: str, key: Sequence[str], amount: str) -> None:
        exact: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
        for each in self.sells.rows(slices):
            exact[tuple(each[name] for name in key)] += each["amount"]
        for line in self.sells.rows(lines):
            due = exact.pop(tuple(line[name] for name in key), Decimal(0))
            if line["component"] in ("usage", "flat"):
                assert line[amount] == _rounded(due, line["currency"]), line
        assert not exact

    def _check_documents(self) -> None:
        """Lines are the document, and what is due follows from it."""
        for invoice in self.invoices():
            assert invoice.total == sum(line.amount for line in invoice.lines), invoice
            due = invoice.total - invoice.coupons + invoice.taxes - invoice.credits
            assert invoice.due == due, invoice

    def _check_what_is_due(self) -> None:
        """For every key issued + due = rated; of customers who are never billed nothing is either."""
        key = ("subscription_id", "charge_id", "component", "slice_start", "currency")
        left: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
        billable = [
            row["tenant_id"] for row in self.sells.catalog["tenants"] if row["billable"] == "true"
        ]
        for table, sign in (
            ("rating.rated_lines", 1),
            ("invoices.billed_lines", -1),
            ("invoices.draft_invoice_lines", -1),
        ):
            for row in self.sells.rows(f"select * from {table}"):
                if row["tenant_id"] in billable or sign < 0:
                    left[tuple(row[name] for name in key)] += sign * row["amount"]
        assert {each: amount for each, amount in left.items() if amount} == {}

    def _check_numbers(self) -> None:
        rows = self.sells.rows(
            "select series, series_number from invoices.issued_invoices order by 1, 2"
        )
        by_series: defaultdict[str, list[int]] = defaultdict(list)
        for row in rows:
            by_series[row["series"]].append(row["series_number"])
        for numbers in by_series.values():
            assert numbers == list(range(1, len(numbers) + 1))


_REWRITING: tuple[LiteralString, ...] = (
    """
    update invoices.issued_tier_slices as slices
    set
        amount = slices.amount + %(more)s * moved.factor,
        quantity = slices.quantity + moved.units
    from (
        select
            tiers.invoice_number,
            tiers.line_number,
            tiers.tier,
            -- 50 units at 0.02 instead of 0.01 are 0.50 more
            case when lines.charge_model = 'matrix' then case tiers.tier when 1 then 50 else -50 end else 0 end as units,
            case
                when lines.charge_model = 'matrix' then case tiers.tier when 1 then 2 else -1 end
                when lines.component = 'commitment' then case tiers.tier when 2 then 1 else 0 end
                when lines.charge_id = 'by_event' then case tiers.tier when 3 then 1 else 0 end
                else case tiers.tier when 1 then 1 else 0 end
            end as factor
        from invoices.issued_tier_slices as tiers
        inner join invoices.issued_invoice_lines as lines using (invoice_number, line_number)
    ) as moved
    where
        slices.invoice_number = moved.invoice_number
        and slices.line_number = moved.line_number
        and slices.tier = moved.tier
        and slices.invoice_number = %(number)s
        and slices.line_number = %(line_number)s
    """,
    """
    update invoices.issued_invoice_lines
    set amount = amount + %(more)s, rated_amount = rated_amount + %(more)s
    where invoice_number = %(number)s and line_number = %(line_number)s
    """,
    """
    with rewritten as (
        select
            documents.invoice_number,
            jsonb_set(
                documents.content::jsonb
                || jsonb_build_object(
                    'total', (documents.total + %(more)s)::text,
                    'amount_due', (documents.amount_due + %(more)s)::text
                ),
                array['lines', (%(line_number)s - 1)::text],
                (documents.content::jsonb -> 'lines' -> (%(line_number)s - 1))
                || jsonb_build_object(
                    'amount', lines.amount::text,
                    'rated_amount', lines.rated_amount::text,
                    'tiers', (
                        select jsonb_agg(
                            (to_jsonb(tiers) - array['invoice_number', 'line_number'])
                            || jsonb_build_object(
                                'quantity', tiers.quantity::text,
                                'unit_amount', tiers.unit_amount::text,
                                'flat_amount', tiers.flat_amount::text,
                                'rate_percent', tiers.rate_percent::text,
                                'amount', tiers.amount::text
                            )
                            order by tiers.tier
                        )
                        from invoices.issued_tier_slices as tiers
                        where
                            tiers.invoice_number = lines.invoice_number
                            and tiers.line_number = lines.line_number
                    )
                )
            )::text as content
        from invoices.issued_invoices as documents
        inner join invoices.issued_invoice_lines as lines using (invoice_number)
        where documents.invoice_number = %(number)s and lines.line_number = %(line_number)s
    )

    update invoices.issued_invoices
    set
        total = total + %(more)s,
        amount_due = amount_due + %(more)s,
        content = rewritten.content,
        content_sha256 = encode(sha256(convert_to(rewritten.content, 'UTF8')), 'hex')
    from rewritten
    where issued_invoices.invoice_number = rewritten.invoice_number
    """,
    """
    update invoices.invoice_series
    set last_sha256 = documents.content_sha256
    from invoices.issued_invoices as documents
    where documents.invoice_number = %(number)s and invoice_series.series = documents.series
    """,
)


def _line(row: Row) -> Line:
    return Line(
        row["charge_id"],
        row["component"],
        row["kind"],
        *(f"{row[edge].astimezone(UTC):%Y-%m-%dT%H:%M}" for edge in ("slice_start", "slice_end")),
        row["quantity"],
        row["amount"],
    )


def _rounded(amount: Decimal, currency: str) -> Decimal:
    digits = {"JPY": 0, "KWD": 3}.get(currency, 2)
    return amount.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
