"""A company with a month of usage behind it, for the tests of the laws and of issuing.

What was landed is written by SQL; everything after it is made by the real models, once a session.
Each test works on a clone. Times are UTC; January is due on 2026-02-04, February on 2026-03-04.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.laws import LAWS, LawResult, evaluate
from metering_pipeline.transform.dbt import run_dbt
from tests.dbt.company import Company

JANUARY = date(2026, 2, 4)
"""The billing date of January: its end plus the grace period."""

FEBRUARY = date(2026, 3, 4)
CATALOG = ("catalog_problems", "catalog_versions")
MODELS = (
    "usage_events", "usage_contributions", "usage_hourly", "usage_daily",
    "billing_periods", "period_usage_daily", "rated_lines", "draft_invoices",
)  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def after(billing_date: date) -> datetime:
    """The clock half an hour after the end of a billing date."""
    return datetime.combine(billing_date, datetime.min.time(), UTC) + timedelta(days=1, minutes=30)


@dataclass
class World:
    """The pipeline's database, and hands to drop files, run the models and tamper."""

    database: Database
    connection: psycopg.Connection

    def land(self, hour: str, key: str, events: list[dict[str, Any]]) -> int:
        """A file of valid events as landing would leave it; its id. What is not given is a default."""
        landed_hour = at(hour)
        (file_id,) = self.row(
            """
            insert into landing.files (
                file_key, landed_hour, content_sha256, size_bytes, accepted_count, rejected_count,
                earliest_event_date, future_tolerance_minutes, landed_at, modified_at
            )
            values (%s, %s, md5(%s), 1, %s, 0, '2020-01-01', 60, %s, %s)
            returning file_id
            """,
            key, landed_hour, key, len(events), landed_hour, landed_hour,
        )  # fmt: skip
        self.execute(
            "select catalog.ensure_day_partitions('landing', 'usage_events', %s)",
            [landed_hour.date()],
        )
        for line_number, event in enumerate(events, start=1):
            self.execute(
                """
                insert into landing.usage_events values (
                    %(landed_hour)s, %(file_id)s, %(line_number)s, %(tenant_id)s, %(event_type)s,
                    %(occurred_at)s, %(correlation_id)s, %(quantity)s, %(properties)s, %(void)s
                )
                """,
                {
                    "landed_hour": landed_hour,
                    "file_id": file_id,
                    "line_number": line_number,
                    "event_type": "api.request",
                    "quantity": 1,
                    "properties": '{"model":"small","tokens":"100"}',
                    "void": False,
                    **event,
                },
            )
        return int(file_id)

    def seal(self, first: str, end: str) -> None:
        """Record that the landing hours of a span are listed and complete."""
        self.execute(
            """
            insert into landing.hours (landed_hour, file_count, listed_at, landed_at, sealed)
            select hour, 0, hour + interval '2 hours', hour, true
            from generate_series(%s::timestamptz, %s::timestamptz - interval '1 hour', '1 hour') as hour
            on conflict (landed_hour) do nothing
            """,
            at(first), at(end),
        )  # fmt: skip

    def run(self, first: str, end: str, *also: str) -> None:
        """Landing to drafts for a window of landing hours."""
        run_dbt(self.database, "run", [*also, *MODELS], Window(at(first), at(end)))

    def check(self, law: str | None = None) -> set[tuple[str, str | None]]:
        """Evaluate a law, or all, over all time: what failed, as (law, tenant)."""
        return {(each.law, each.tenant_id) for each in self.results(law) if not each.passed}

    def results(self, law: str | None = None) -> list[LawResult]:
        laws = LAWS if law is None else (law,)
        return [
            result
            for each in laws
            for result in evaluate(
                self.connection, each, at("2026-01-01"), at("2026-04-01"), at("2026-04-01")
            )
        ]

    def execute(self, statement: str, *parameters: Any) -> int:
        values = parameters[0] if parameters and isinstance(parameters[0], dict) else parameters
        return self.connection.execute(statement.encode(), values or None).rowcount

    def tamper(self, statement: str, *parameters: Any) -> None:
        """Change something behind the pipeline's back, past the triggers too: exactly one row."""
        with self.past_triggers():
            assert self.execute(statement, *parameters) == 1

    @contextmanager
    def past_triggers(self) -> Iterator[None]:
        with self.connection.transaction():
            self.connection.execute("set local session_replication_role = replica")
            yield
            self.connection.execute("set local session_replication_role = origin")

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), parameters or None).fetchall()

    def row(self, query: str, *parameters: Any) -> tuple[Any, ...]:
        (row,) = self.rows(query, *parameters)
        return row


def use(tenant: str, occurred_at: str, number: int, **values: Any) -> dict[str, Any]:
    """An event; void, quantity, properties and event_type may be given."""
    return {
        "tenant_id": tenant,
        "occurred_at": at(occurred_at),
        "correlation_id": f"{tenant}-{number}",
        **values,
    }


def sell(connection: psycopg.Connection) -> None:
    """Customers of two legal entities: graduated, per unit, a fee in arrears; delta only in advance."""
    company = Company(connection)
    company.add("legal_entities", legal_entity="eu", name="Example GmbH", series="EU")
    company.catalog["metrics"].append(
        company.catalog["metrics"].pop() | {"dimensions": '["model"]'}
    )
    company.add("metrics", metric="tokens", event_type="api.request", aggregation="sum",
                value_property="tokens", dimensions="[]", unit="tokens", filter="{}",
                description="tokens")  # fmt: skip
    company.add_plan("basic")
    company.add_charge("basic-requests", "basic", [(2, "1.50", "3"), (None, "0.125", "0.25")])
    company.add_charge("basic-tokens", "basic", [(None, "0.0333", 0)], "tokens", model="per_unit")
    company.add_plan("basic-eur", "EUR")
    company.add_charge("eur-requests", "basic-eur", [(None, "2", 0)], model="per_unit")
    company.add_charge("eur-tokens", "basic-eur", [(None, "0.01", 0)], "tokens", model="per_unit")
    company.add_fee("eur-fee", "basic-eur", "49.00", timing="arrears")
    company.subscribe("acme", "basic")
    company.subscribe("birch", "basic")
    company.subscribe("cobalt", "basic-eur", start="2026-01-10T12:00:00Z")
    company.catalog["tenants"][-1]["legal_entity"] = "eu"
    company.add_plan("access")
    company.add_fee("access-fee", "access", "10.00")
    company.subscribe("delta", "access")
    company.load_catalog()


def use_january(world: World) -> None:
    """Usage of January: duplicates, a conflict, voids in both orders, late usage, a bad line."""
    world.seal("2026-01-01", "2026-02-04")
    world.land("2026-01-12T10:00", "a.ndjson", [
        use("acme", "2026-01-12T10:05", 1),
        use("acme", "2026-01-12T10:06", 2),
        use("acme", "2026-01-12T10:07", 3),
        use("acme", "2026-01-12T10:05", 1),
        use("birch", "2026-01-12T10:05", 1, properties='{"model":"large","tokens":"7.5"}'),
        use("birch", "2026-01-12T09:59", 2),
        use("cobalt", "2026-01-12T10:01", 1, quantity="1.50"),
        use("cobalt", "2026-01-12T10:02", 2, void=True),
    ])  # fmt: skip
    bad = world.land("2026-01-12T11:00", "b.ndjson", [
        use("acme", "2026-01-12T10:06", 2, quantity="2"),
        use("acme", "2026-01-12T11:30", 4),
        use("birch", "2026-01-12T11:30", 3),
        use("birch", "2026-01-12T11:31", 4),
        use("cobalt", "2026-01-12T10:02", 2),
        use("cobalt", "2026-01-12T11:02", 3),
        use("cobalt", "2026-01-12T11:03", 4, void=True),
        use("cobalt", "2026-01-12T11:03", 4),
        use("cobalt", "2026-01-12T11:03", 4, void=True),
    ])  # fmt: skip
    world.execute(
        "insert into landing.rejected_events values (%s, %s, 10, 'not_json', 'torn', '{')",
        at("2026-01-12T11:00"), bad,
    )  # fmt: skip
    world.execute("update landing.files set rejected_count = 1 where file_id = %s", bad)
    world.land("2026-01-14T00:00", "c.ndjson", [
        use("acme", "2026-01-12T10:08", 5),
        use("birch", "2026-01-13T23:59", 5),
        use("acme", "2026-01-12T10:07", 3, void=True),
    ])  # fmt: skip
