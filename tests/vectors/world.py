"""A database of the real models in which every case has a customer of its own.

What was landed is written by SQL; everything after it (ledger, rollups, rating, drafts, issuing) is the
pipeline's own. Cases that ask for prices happen in the world's own time: round after round of ten days
from ``start``, which lies after every date that a case names.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from metering_pipeline.invoices import issuing
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import HOUR, Settings, hour_of
from metering_pipeline.transform.dbt import compiled_text, run_dbt
from tests.dbt.company import SEEDS, Company, Row

MODELS = (
    "usage_events", "usage_contributions", "usage_hourly", "usage_daily",
    "billing_periods", "period_usage_daily", "rated_lines", "draft_invoices",
)  # fmt: skip
FUNCTIONS = ("usage_in_ledger", "usage_as_landed_by")
ONE_DAY = timedelta(days=1)
ROUND = timedelta(days=10)
LONG = timedelta(days=900)
"""A period that is never over here."""

CENTURY_HOURS = 24 * 36525
DAYS = {
    interval: timedelta(days=days)
    for interval, days in {
        "day": 1, "week": 7, "month": 31, "quarter": 92, "half_year": 184, "year": 366,
    }.items()
}  # fmt: skip
"""The longest that an interval lasts."""

UNITS = "units"
"""The metric that prices are for: the sum of the events' quantities."""


class CatalogRefusedError(Exception):
    """The catalog's validation refused what a case describes."""


class HeldBackError(Exception):
    """The gate held a case's invoice, for another reason than hours that have not landed yet."""


class World:
    """One database; the customers write into it, and all are rated at once."""

    def __init__(self, database: Database, start: datetime, grace_hours: int = 0) -> None:
        self.start = start
        self.round = 0
        self.database = open_database(
            Settings(
                database_url=database.url,
                dagster_database_url=database.dagster_url,
                grace_hours=grace_hours,
                lookback_hours=CENTURY_HOURS,
            )
        )
        self.connection = self.database.connect(autocommit=True)
        self.company = Company(self.connection)
        self.company.catalog["currencies"] = []
        self._take_currencies()
        self.company.add(
            "metrics", metric=UNITS, event_type=UNITS, aggregation="sum", dimensions="[]",
            unit="units", filter="{}", description="Units",
        )  # fmt: skip
        self._events: list[Row] = []
        self._settle()

    def close(self) -> None:
        self.connection.close()

    # What the customers ask for

    @property
    def horizon(self) -> datetime:
        """The end of the landed hours in this round: ten days and one each."""
        return self.start + (self.round + 1) * ROUND + timedelta(days=1)

    def add_event(self, **event: Any) -> None:
        """An event to land with the next rating, in its last hour unless ``landed_hour`` says another."""
        self._events.append({"landed_hour": None, **event})

    def rows(self, query: str, *parameters: object) -> list[Row]:
        return self.company.rows(query, *parameters)

    def macro(self, text: str, parameters: Mapping[str, object]) -> Any:
        """What an expression of the project's own macros gives for these parameters."""
        window = Window(self.start, self.start + HOUR)
        compiled = compiled_text(self.database, f"select {text} as answer", window)
        (row,) = self.connection.execute(compiled.encode(), parameters).fetchall()
        return row[0]

    def forget(self, name: str) -> None:
        """Take a customer out of the catalog again, and its usage that has not landed."""
        for table, rows in self.company.catalog.items():
            self.company.catalog[table] = [row for row in rows if not _belongs(row, name)]
        self._events = [event for event in self._events if event["tenant_id"] != name]

    # What happens to all at once

    def rate(self) -> dict[str, Row]:
        """Land the events, publish the catalog and rate; whose catalog was refused, and for what row."""
        self._load_catalog()
        if self.round == 0:
            run_dbt(self.database, "run", ["catalog_problems", *FUNCTIONS])
        refused = self._publish()
        self._seal()
        first = self._land()
        run_dbt(self.database, "run", ["catalog_versions", *MODELS], Window(first, self.horizon))
        return refused

    def issue(self) -> None:
        """Issue all that is rated; an invoice of a period that is not over is released by name."""
        billing_date = self.billing_date
        now = self.billing_clock
        report = issuing.issue(self.database, billing_date, now)
        waiting = [each for each in report.held if each.reason == "hour_not_sealed"]
        for each in waiting:
            issuing.release(
                self.database, each.draft_id, each.reason, by="vectors", why="in steps", now=now
            )
        if waiting:
            run_dbt(self.database, "run", ["draft_invoices"])
            issuing.issue(self.database, billing_date, now)

    @property
    def billing_date(self) -> date:
        """Far enough that everything rated is due, and each later than the one before."""
        return (self.start + LONG + timedelta(days=60 + 32 * self.round)).date()

    @property
    def billing_clock(self) -> datetime:
        """The moment of issuing: an hour after the billing date has ended."""
        return datetime.combine(self.billing_date, time(1), UTC) + timedelta(days=1)

    def next_round(self) -> None:
        self.round += 1

    # How

    def _settle(self) -> None:
        """Somebody who is always there: an empty catalog is refused, and cases may have nobody."""
        resident = Customer(self, "resident")
        resident.plan("USD")
        resident.fee(1)
        resident.subscribe(self.start, self.start + ONE_DAY)

    def _take_currencies(self) -> None:
        with (SEEDS / "currencies.csv").open() as seed:
            for row in csv.DictReader(seed):
                self.company.add("currencies", **row)

    def _publish(self) -> dict[str, Row]:
        """Load the catalog without the customers whose rows the validation refuses."""
        refused: dict[str, Row] = {}
        while problems := self.rows("select * from staging.catalog_problems"):
            found = {_customer_of(problem): problem for problem in problems}
            if found.keys() <= refused.keys():
                raise CatalogRefusedError(str(problems))
            for name in found:
                self.forget(name)
            refused |= found
            self._load_catalog()
        return refused

    def _load_catalog(self) -> None:
        self.company.load_catalog()
        self.connection.execute(
            "analyze"
        )  # the validation joins tables that are new to the planner

    def _seal(self) -> None:
        self.connection.execute(
            """
            insert into landing.hours (landed_hour, file_count, listed_at, landed_at, sealed)
            select hour, 0, hour + interval '2 hours', hour, true
            from generate_series(%s, %s, interval '1 hour') as hour
            on conflict (landed_hour) do nothing
            """,
            (self.start - timedelta(days=1), self.horizon - HOUR),
        )

    def _land(self) -> datetime:
        """Write the events as landing would, a file an hour; the first of the hours."""
        last = self.horizon - HOUR
        by_hour: defaultdict[datetime, list[Row]] = defaultdict(list)
        for event in self._events:
            hour = event["landed_hour"] or last
            by_hour[hour].append(event | {"landed_hour": hour})
        for hour, events in by_hour.items():
            self._land_file(hour, events)
        self._events = []
        return min(by_hour, default=last)

    def _land_file(self, hour: datetime, events: Sequence[Row]) -> None:
        key = f"{hour:%Y-%m-%dT%H}/{self.round}.ndjson"
        self.connection.execute(
            "select catalog.ensure_day_partitions('landing', 'usage_events', %s)", ([hour.date()],)
        )
        (file_id,) = self.connection.execute(
            """
            insert into landing.files (
                file_key, landed_hour, content_sha256, size_bytes, accepted_count, rejected_count,
                earliest_event_date, future_tolerance_minutes, landed_at, modified_at
            )
            values (%(key)s, %(hour)s, md5(%(key)s), 1, %(count)s, 0, '2000-01-01', 60, %(hour)s, %(hour)s)
            returning file_id
            """,
            {"key": key, "hour": hour, "count": len(events)},
        ).fetchone() or (0,)
        with self.connection.cursor() as cursor:
            cursor.executemany(
                """
                insert into landing.usage_events values (
                    %(landed_hour)s, %(file_id)s, %(line_number)s, %(tenant_id)s, %(event_type)s,
                    %(occurred_at)s, %(correlation_id)s, %(quantity)s, %(properties)s, false
                )
                """,
                [
                    {"file_id": file_id, "line_number": number, **event}
                    for number, event in enumerate(events, start=1)
                ],
            )


def _belongs(row: Row, name: str) -> bool:
    return any(isinstance(value, str) and _names(value, name) for value in row.values())


def _names(text: str, name: str) -> bool:
    return text == name or text.startswith(f"{name}.")


def _customer_of(problem: Row) -> str:
    """Every id of a customer begins with its name, which the validation gives in the row's key."""
    name = str(problem["row_key"]).split(" ")[0].split(".")[0]
    if not name.startswith("case-"):
        raise CatalogRefusedError(str(problem))
    return name


@dataclass
class Customer:
    """A case's own tenant with one plan and one subscription, all of them named after it."""

    world: World
    name: str
    tenant: str = ""
    latest: datetime | None = None
    """The latest day that the case names."""
    _interval: timedelta = field(default=timedelta())
    _events: int = field(default=0)
    _grants: int = field(default=0)

    def __post_init__(self) -> None:
        self.tenant = self.tenant or self.name

    @property
    def company(self) -> Company:
        return self.world.company

    def metric(self, aggregation: str, **columns: object) -> None:
        """A metric of the case's own, which reads an event type of the same name."""
        row: Row = {"filter": "{}", "dimensions": "[]"} | columns
        self.company.add(
            "metrics", metric=self.name, event_type=self.name, aggregation=aggregation, unit="units",
            description=self.name, **row,
        )  # fmt: skip

    def plan(
        self, currency: str, interval: str = "month", count: object = 1, **more: object
    ) -> None:
        """The plan; its charges follow."""
        row: Row = {"minimum_document_amount": 0} | more
        self._interval = DAYS.get(interval, timedelta()) * (
            int(str(count)) if str(count).isdigit() else 1
        )
        self.company.add(
            "plans", plan_id=self.name, name=self.name, currency=currency,
            billing_interval=interval, interval_count=count, **row,
        )  # fmt: skip

    def charge(
        self,
        model: str,
        tiers: Sequence[Mapping[str, object]],
        suffix: str = "charge",
        **columns: object,
    ) -> str:
        """A charge of the plan; its id."""
        charge = f"{self.name}.{suffix}"
        flat = model == "flat"
        row: Row = {
            "component": "flat" if flat else "usage",
            "metric": None if flat else UNITS,
            "dimension_route": "{}",
            "timing": "arrears",
            "effective_from": "1970-01-01",
        } | columns
        self.company.add(
            "charges", charge_id=charge, version=1, plan_id=self.name, charge_model=model,
            description=charge, **row,
        )  # fmt: skip
        for number, tier in enumerate(tiers, start=1):
            amounts: Row = {"unit_amount": 0, "flat_amount": 0, **tier}
            self.company.add("charge_tiers", charge_id=charge, version=1, tier=number, **amounts)
        return charge

    def fee(self, amount: object, suffix: str = "charge", **columns: object) -> str:
        return self.charge("flat", [{"flat_amount": amount}], suffix, **columns)

    def subscribe(
        self,
        start: datetime,
        end: datetime | None = None,
        anchor: datetime | None = None,
        zone: str = "UTC",
        billable: bool = False,
        **columns: object,
    ) -> None:
        """The subscription; the anchor is the start unless given. A tenant that is not billed has no drafts.

        Without an end it ends two whole intervals after all that the case is about.
        """
        end = end or max(start, self.latest or start) + ONE_DAY + 3 * self._interval
        if not self.own("tenants"):
            # A legal entity of its own: what others are billed does not put off its next document.
            self.company.add(
                "legal_entities",
                legal_entity=self.tenant,
                name=self.tenant,
                series=self.tenant.upper(),
            )
            self.company.add(
                "tenants", tenant_id=self.tenant, name=self.tenant, legal_entity=self.tenant,
                billable="true" if billable else "false",
            )  # fmt: skip
        wall = wall_time(anchor or start, zone)
        self.company.add(
            "subscriptions", subscription_id=self.name, version=1, tenant_id=self.tenant,
            plan_id=self.name, time_zone=zone, anchor_date=wall.date().isoformat(),
            anchor_time=wall.time().isoformat(), started_at=start.isoformat(),
            ended_at=end.isoformat(), recorded_at="1970-01-01T00:00:00Z",
            recorded_by="case", **columns,
        )  # fmt: skip

    def use(
        self,
        quantity: Decimal,
        at: datetime,
        event_type: str = UNITS,
        correlation_id: str | None = None,
        landed_hour: datetime | None = None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        """An event that lands with the next rating."""
        self._events += 1
        self.world.add_event(
            tenant_id=self.tenant,
            event_type=event_type,
            occurred_at=at,
            correlation_id=correlation_id or str(self._events),
            quantity=quantity,
            properties=json.dumps(properties or {}),
            landed_hour=landed_hour and hour_of(landed_hour),
        )

    def own(self, table: str) -> list[Row]:
        """The tenant's rows of a catalog table, to be changed for later rounds."""
        return [row for row in self.company.catalog[table] if row.get("tenant_id") == self.tenant]

    def rows(self, query: str) -> list[Row]:
        """Rows of a query with one parameter, the name of tenant and subscription."""
        return self.world.rows(query, self.name)

    def lines(self) -> list[Row]:
        return self.rows(
            "select * from rating.rated_lines where subscription_id = %s"
            " order by slice_start, charge_id, component"
        )

    def slices(self) -> list[Row]:
        return self.rows(
            "select * from rating.tier_slices where subscription_id = %s"
            " order by slice_start, charge_id, component, tier"
        )

    def periods(self) -> list[Row]:
        return self.rows(
            "select * from rating.billing_periods where subscription_id = %s order by period_start"
        )

    def documents(self) -> list[Row]:
        """What was issued to the tenant in this round. Raises HeldBackError."""
        held = self.rows(
            "select reason, detail from invoices.held_invoices"
            " inner join invoices.draft_invoices using (draft_id)"
            " where draft_invoices.tenant_id = %s"
        )
        if held:
            raise HeldBackError("; ".join(f"{row['reason']}: {row['detail']}" for row in held))
        return self.world.rows(
            "select * from invoices.issued_invoices where tenant_id = %s and billing_date = %s"
            " order by series_number",
            self.name,
            self.world.billing_date,
        )

    def document_lines(self) -> list[Row]:
        """The lines of these documents. Raises HeldBackError."""
        numbers = [row["invoice_number"] for row in self.documents()]
        return self.world.rows(
            "select * from invoices.issued_invoice_lines where invoice_number = any(%s)"
            " order by invoice_number, line_number",
            numbers,
        )

    # What pays or reduces documents

    def tax(self, percent: object) -> None:
        self.company.add(
            "tax_rates",
            tenant_id=self.name,
            tax_code="tax",
            rate=percent,
            effective_from="1970-01-01",
        )

    def coupon(self, currency: str, amount: object) -> None:
        self.company.add(
            "coupons", coupon_id=f"{self.name}.coupon", tenant_id=self.name, currency=currency,
            amount=amount, effective_from="1970-01-01", description="coupon",
        )  # fmt: skip

    def grant(
        self,
        credit: str,
        currency: str,
        amount: Decimal,
        priority: int = 1,
        expires_on: date | None = None,
        components: Sequence[str] | None = None,
    ) -> None:
        """A prepaid credit, newer than those before it."""
        self._grants += 1
        self.world.connection.execute(
            """
            insert into invoices.credit_entries (
                credit_id, kind, tenant_id, currency, amount, priority, expires_on, components, entered_at,
                entered_by, reason
            )
            values (
                %(credit)s, 'grant', %(tenant)s, %(currency)s, %(amount)s, %(priority)s, %(expires_on)s,
                %(components)s, %(entered_at)s, 'case', 'case'
            )
            """,
            {
                "credit": f"{self.name}.{credit}",
                "tenant": self.name,
                "currency": currency,
                "amount": amount,
                "priority": priority,
                "expires_on": expires_on,
                "components": list(components) if components else None,
                "entered_at": self.world.start + timedelta(seconds=self._grants),
            },
        )

    def credits(self) -> dict[str, tuple[Decimal, Decimal]]:
        """What was applied of each credit, and what is left of it after this round."""
        rows = self.world.rows(
            "select * from invoices.credit_balances_at(%s) where tenant_id = %s",
            self.world.billing_clock,
            self.name,
        )
        return {
            row["credit_id"].removeprefix(f"{self.name}."): (row["applied"], row["balance"])
            for row in rows
        }


def zone_of(zone: str) -> ZoneInfo:
    """A time zone; UTC for one that does not exist, which the catalog will refuse."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def wall_time(instant: datetime, zone: str) -> datetime:
    """The wall time in a zone."""
    return instant.astimezone(zone_of(zone)).replace(tzinfo=None)
