"""A company for tests: writes its catalog, its usage and its issued invoices into the database."""

import csv
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from metering_pipeline.settings import PROJECT_ROOT

SEEDS = PROJECT_ROOT / "dbt_project" / "seeds"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

TIER = ("up_to", "unit_amount", "flat_amount")

Row = dict[str, Any]


def instant(text: str) -> datetime:
    """An instant with its offset, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _as_text(value: object) -> str | None:
    if value in (None, ""):
        return None
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


class Company:
    """What a test company sells and to whom; every value is text, as in the seeds."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.catalog: dict[str, list[Row]] = {path.stem: [] for path in sorted(SEEDS.glob("*.csv"))}
        self._numbers = itertools.count(1)
        self.add("legal_entities", legal_entity="us", name="Example, Inc.", series="US")
        for currency, digits in (("USD", 2), ("JPY", 0), ("KWD", 3), ("EUR", 2)):
            self.add("currencies", currency=currency, minor_digits=digits)
        self.add_metric("requests", aggregation="count")

    # The catalog

    def add(self, table: str, **row: object) -> Row:
        """A row of a catalog table; what is not given is empty. Returns it, to be changed later."""
        with (SEEDS / f"{table}.csv").open() as seed:
            columns = next(csv.reader(seed))
        unknown = set(row) - set(columns)
        if unknown:
            raise KeyError(f"{table} has no column {', '.join(sorted(unknown))}")
        added = {name: row.get(name) for name in columns}
        self.catalog[table].append(added)
        return added

    def add_metric(self, metric: str, aggregation: str = "sum", dimensions: str = "[]") -> Row:
        return self.add(
            "metrics",
            metric=metric,
            event_type="api.request",
            aggregation=aggregation,
            dimensions=dimensions,
            unit="units",
            filter="{}",
            description=metric,
        )

    def add_plan(
        self, plan: str, currency: str = "USD", minimum: str = "0", interval: str = "month"
    ) -> Row:
        return self.add(
            "plans",
            plan_id=plan,
            name=plan,
            currency=currency,
            billing_interval=interval,
            minimum_document_amount=minimum,
        )

    def add_charge(
        self,
        charge: str,
        plan: str,
        tiers: Sequence[tuple[object, object, object] | Row],
        metric: str | None = "requests",
        *,
        model: str = "graduated",
        timing: str = "arrears",
        route: str = "{}",
        version: int = 1,
        since: str = "2020-01-01",
        component: str | None = None,
        **terms: object,
    ) -> Row:
        """A version of a charge with its tiers (up_to, unit amount, flat amount), or rows of them."""
        for number, tier in enumerate(tiers, start=1):
            row = tier if isinstance(tier, dict) else dict(zip(TIER, tier, strict=True))
            key = {"charge_id": charge, "version": version, "tier": number}
            self.add("charge_tiers", **key | {"unit_amount": 0, "flat_amount": 0} | row)
        return self.add(
            "charges",
            charge_id=charge,
            version=version,
            plan_id=plan,
            component=component or ("flat" if model == "flat" else "usage"),
            metric=metric,
            dimension_route=route,
            charge_model=model,
            timing=timing,
            description=charge,
            effective_from=since,
            **terms,
        )

    def add_fee(
        self, charge: str, plan: str, price: object, timing: str = "advance", **terms: object
    ) -> Row:
        tiers = [(None, 0, price)]
        return self.add_charge(
            charge, plan, tiers, metric=None, model="flat", timing=timing, **terms
        )

    def add_commitment(self, charge: str, plan: str, amount: object, **terms: object) -> Row:
        return self.add_fee(charge, plan, amount, "arrears", component="commitment", **terms)

    def subscribe(
        self,
        tenant: str,
        plan: str,
        *,
        start: str = "2026-01-01T00:00:00Z",
        end: str | None = None,
        trial_ends: str | None = None,
        zone: str = "UTC",
        anchor: str = "2026-01-01",
        anchor_time: str = "00:00",
        version: int = 1,
        subscription: str | None = None,
    ) -> Row:
        """A version of a subscription (sub-<tenant> unless named); a new tenant is added."""
        if all(row["tenant_id"] != tenant for row in self.catalog["tenants"]):
            self.add("tenants", tenant_id=tenant, name=tenant, legal_entity="us", billable="true")
        return self.add(
            "subscriptions",
            subscription_id=subscription or f"sub-{tenant}",
            version=version,
            tenant_id=tenant,
            plan_id=plan,
            time_zone=zone,
            anchor_date=anchor,
            anchor_time=anchor_time,
            started_at=start,
            trial_ends_at=trial_ends,
            ended_at=end,
            recorded_at=f"2025-12-{version:02d}T00:00:00Z",
            recorded_by="test",
        )

    def load_catalog(self) -> None:
        """Write the catalog into the staging tables, as dbt's seeds do: all of it text."""
        for table, rows in self.catalog.items():
            with (SEEDS / f"{table}.csv").open() as seed:
                columns = next(csv.reader(seed))
            name = sql.Identifier("staging", table)
            self.connection.execute(
                sql.SQL("create table if not exists {} ({})").format(
                    name,
                    sql.SQL(", ").join(
                        sql.SQL("{} text").format(sql.Identifier(c)) for c in columns
                    ),
                )
            )
            self.connection.execute(sql.SQL("delete from {}").format(name))
            with (
                self.connection.cursor() as cursor,
                cursor.copy(sql.SQL("copy {} from stdin").format(name)) as copy,
            ):
                for row in rows:
                    copy.write_row([_as_text(row[column]) for column in columns])

    # Usage

    def land_until(self, end: str) -> None:
        """Record that the landing hours up to an instant are listed."""
        self.connection.execute(
            "insert into landing.hours (landed_hour, file_count, listed_at, landed_at, sealed) "
            "values (%s, 0, %s, %s, true) on conflict do nothing",
            (instant(end) - timedelta(hours=1), instant(end), instant(end)),
        )

    def use(
        self,
        tenant: str,
        at: str,
        value: object = 1,
        metric: str = "requests",
        count: int = 1,
        **dimensions: str,
    ) -> None:
        """Add usage to an hour's bucket, with digests of its own, and tell rating."""
        number = next(self._numbers)
        hour = instant(at).replace(minute=0, second=0, microsecond=0)
        self.connection.execute(
            """
            insert into rollups.usage_hourly as hours (
                tenant_id, metric, hour, dimensions, event_count, value_sum, value_min, value_max,
                value_latest, latest_at, event_digest, payload_digest
            )
            values (
                %(tenant)s, %(metric)s, %(hour)s, %(dimensions)s, %(count)s, %(value)s, %(value)s,
                %(value)s, %(value)s, %(at)s, %(number)s, %(number)s
            )
            on conflict (tenant_id, hour, metric, dimensions) do update set
                event_count = hours.event_count + excluded.event_count,
                value_sum = hours.value_sum + excluded.value_sum,
                event_digest = hours.event_digest + excluded.event_digest
            """,
            {
                "tenant": tenant,
                "metric": metric,
                "hour": hour,
                "dimensions": Jsonb(dimensions),
                "count": count,
                "value": Decimal(str(value)),
                "at": instant(at),
                "number": number * 1_000_003,
            },
        )
        self.touch(tenant, metric, hour)

    def forget(self, tenant: str, at: str, metric: str = "requests") -> None:
        """Take an hour's usage away again, as voids do."""
        hour = instant(at).replace(minute=0, second=0, microsecond=0)
        self.connection.execute(
            "delete from rollups.usage_hourly where tenant_id = %s and hour = %s", (tenant, hour)
        )
        self.touch(tenant, metric, hour)

    def touch(self, tenant: str, metric: str, hour: datetime) -> None:
        self.connection.execute(
            "insert into rating.touched values (%s, %s, %s) on conflict do nothing",
            (tenant, metric, hour.date()),
        )

    def record_event(
        self,
        tenant: str,
        at: str,
        event_type: str = "api.request",
        metric: str = "requests",
        quantity: object = 1,
    ) -> None:
        """One event in the ledger and in the bucket of a metric that reads its quantity."""
        number = next(self._numbers)
        occurred_at = instant(at)
        self.connection.execute(
            "select catalog.ensure_day_partitions('ledger', 'usage_events', %s)",
            ([occurred_at.date()],),
        )
        self.connection.execute(
            """
            insert into ledger.usage_events (
                tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash,
                quantity, properties, landed_hour, file_id, line_number, recorded_at
            )
            values (
                %(tenant)s, %(event_type)s, %(at)s, %(id)s, md5(%(id)s)::uuid, md5('')::uuid,
                %(quantity)s, '{}', %(at)s, 1, %(number)s, %(at)s
            )
            """,
            {
                "tenant": tenant,
                "event_type": event_type,
                "at": occurred_at,
                "id": f"request-{number}",
                "number": number,
                "quantity": Decimal(str(quantity)),
            },
        )
        self.use(tenant, at, quantity, metric=metric)

    # Invoices

    def issue(self, through: str) -> list[str]:
        """Issue the drafts that are due by the end of a UTC day, as the pipeline would."""
        day = datetime.fromisoformat(through).replace(tzinfo=UTC)
        drafts = self.rows(
            "select * from invoices.draft_invoices where bill_at < %s order by draft_id",
            day + timedelta(days=1),
        )
        for draft in drafts:
            number = next(self._numbers)
            self.connection.execute(
                """
                insert into invoices.issued_invoices (
                    invoice_number, series, series_number, document_kind, tenant_id, subscription_id,
                    legal_entity, currency, total, billing_date, bill_at, catalog_version, issued_at,
                    content, content_sha256, previous_sha256, coupon_amount, tax_amount,
                    credit_amount, amount_due, tenant_name, legal_entity_name, plan_name, time_zone,
                    minor_digits
                )
                select
                    %(draft)s || '#' || %(number)s, 'US', %(number)s, 'invoice', tenant_id,
                    subscription_id, legal_entity, currency, total, %(day)s::date, bill_at, 1,
                    %(day)s, '', '', '', 0, 0, 0, total, tenant_id, legal_entity, '', 'UTC', 2
                from invoices.draft_invoices
                where draft_id = %(draft)s
                """,
                {"draft": draft["draft_id"], "number": number, "day": day},
            )
            self.connection.execute(
                """
                insert into invoices.issued_invoice_lines
                select
                    draft_id || '#' || %(number)s, line_number, subscription_id, tenant_id,
                    charge_id, charge_version, subscription_version, component, metric,
                    slice_start, slice_end, quantity, event_count, event_digest, payload_digest,
                    rated_amount, amount, currency, kind, description, 'graduated'
                from invoices.draft_invoice_lines
                where draft_id = %(draft)s
                """,
                {"draft": draft["draft_id"], "number": number},
            )
        return [str(draft["draft_id"]) for draft in drafts]

    # Reading

    def rows(self, query: str, *parameters: object) -> list[Row]:
        """The query's rows as dictionaries."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), parameters).fetchall()

    def amounts(self, column: str = "tenant_id") -> dict[str, Decimal]:
        """The sum of the rated lines by tenant, charge or another column."""
        query = sql.SQL("select {0}, sum(amount) from rating.rated_lines group by {0}").format(
            sql.Identifier(column)
        )
        return dict(self.connection.execute(query).fetchall())

    def draft_lines(self) -> list[Row]:
        """The draft lines in the order in which they will be billed."""
        return self.rows(
            "select * from invoices.draft_invoice_lines order by bill_at, draft_id, line_number"
        )
