"""What would be charged under another catalog, another plan, another quantity: rated for real, then undone.

The very models rate, in one transaction that is rolled back, as if nothing had been issued. It keeps the
pipeline's locks meanwhile; whoever reads sees nothing of it.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

from adbc_driver_postgresql import dbapi
from psycopg import sql

from metering_pipeline.errors import MeteringError
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.settings import END_OF_TIME, HOUR, PROJECT_ROOT
from metering_pipeline.transform.posting import (
    CONTRIBUTIONS,
    DAILY,
    HOURLY,
    Posting,
    posting_errors,
)

SEEDS = PROJECT_ROOT / "dbt_project" / "seeds"
RATED = ("billing_periods", "period_usage_daily", "rated_lines")
CATALOG = "catalog_versions"
QUOTED = "quoted quantity {}"
"""The tenant, and its subscription, of a quoted quantity: a name that no event can bring by accident."""


class QuoteError(MeteringError):
    """A question that cannot be answered; the message says what to ask instead."""


@dataclass(frozen=True)
class Line:
    """A rated line: quantity in metered units, amount in the currency, slice [start, end)."""

    tenant_id: str
    subscription_id: str
    charge_id: str
    description: str
    component: str
    metric: str | None
    slice_start: datetime
    slice_end: datetime
    quantity: Decimal
    amount: Decimal
    currency: str


@dataclass(frozen=True)
class Rerated:
    """The rated lines as they are, and as they would be."""

    before: tuple[Line, ...]
    after: tuple[Line, ...]


@dataclass(frozen=True)
class TenantChange:
    """What a tenant's lines come to, before and after; lines: how many of them differ."""

    tenant_id: str
    currency: str
    lines: int
    total_before: Decimal
    total_after: Decimal


@dataclass(frozen=True)
class Asked:
    """A quantity of a metric in the dimensions, under a plan, in one full billing period from a day on."""

    plan_id: str
    metric: str
    quantity: Decimal
    dimensions: Mapping[str, str]
    first_day: date


def rerate(database: Database, window: Window, catalog: Path) -> list[TenantChange]:
    """What the slices that start in the window would cost each tenant under a changed catalog.

    catalog: a folder of CSV files like the seeds; tables without a file stay as they are. Raises
    QuoteError, PostingError (with the catalog's problems), DbtError.
    """
    with _shadow(database, window) as posting:
        posting.call("remember_money")
        _load(posting, catalog)
        _rate(posting, window)
        return [
            TenantChange(tenant, currency, lines, Decimal(before), Decimal(after))
            for tenant, currency, lines, before, after in posting.ask(
                "rated_totals_compared", window.start, window.end
            )
        ]


def rerate_tenant(
    database: Database,
    window: Window,
    tenant_id: str,
    plan_id: str | None = None,
    catalog: Path | None = None,
) -> Rerated:
    """A tenant's rated lines of the slices that start in the window, under another plan or catalog.

    Raises QuoteError, PostingError, DbtError.
    """
    with _shadow(database, window) as posting:
        posting.call("remember_money")
        if catalog is not None:
            _load(posting, catalog)
        if plan_id is not None:
            _require(posting, "plans", "plan_id", plan_id)
            _change_plan(posting, tenant_id, plan_id, window)
        _rate(posting, window)
        sides = _lines(posting, window, [tenant_id])
        return Rerated(
            *(tuple(line for side, line in sides if side == which) for which in ("before", "after"))
        )


def price(
    database: Database, asked: Sequence[Asked], catalog: Path | None = None
) -> list[tuple[Line, ...]]:
    """What each quantity would cost, with everything else that its plan charges for the period.

    Each is given to a customer of its own. Raises QuoteError, PostingError, DbtError.
    """
    first_day = _midnight(min(each.first_day for each in asked))
    with _shadow(database, Window(first_day, END_OF_TIME)) as posting:
        if catalog is not None:
            _load(posting, catalog)
        for each in asked:
            _require(posting, "plans", "plan_id", each.plan_id)
            _require(posting, "metrics", "metric", each.metric)
        customers = {QUOTED.format(number): each for number, each in enumerate(asked)}
        for name, each in customers.items():
            _subscribe(posting, name, each)
        ends = {name: _end_of_period(posting, each) for name, each in customers.items()}
        window = Window(first_day, max(ends.values()))
        _land_until(posting, window.end)
        posting.post([CATALOG], window)
        for name, each in customers.items():
            _use(posting, name, each)
        posting.call("remember_money")
        posting.post(RATED, window)
        lines = [line for side, line in _lines(posting, window, customers) if side == "after"]
        return [
            tuple(line for line in lines if line.tenant_id == name and line.slice_start < end)
            for name, end in ends.items()
        ]


@contextmanager
def _shadow(database: Database, window: Window) -> Iterator[Posting]:
    """A transaction under the pipeline's locks that rates as if nothing were issued; it is undone."""
    url = database.url_with(**{"metering.rating_afresh": "on", "timezone": "UTC"})
    with posting_errors(), closing(dbapi.connect(url)) as connection:
        posting = Posting(database, connection, window)
        posting.lock()
        if posting.rows("select to_regclass('staging.plans') is null") == [(True,)]:
            raise QuoteError(
                "No catalog has been loaded yet: run a landing hour first (metering run)."
            )
        yield posting
        connection.rollback()


def _load(posting: Posting, folder: Path) -> None:
    """Put a folder's tables into the place of the loaded ones. Raises QuoteError."""
    known = {path.stem for path in SEEDS.glob("*.csv")}
    given = sorted(folder.glob("*.csv"))
    if not given:
        raise QuoteError(f"{folder} has no CSV file: give a folder like dbt_project/seeds.")
    for path in given:
        if path.stem not in known:
            raise QuoteError(
                f"{path}: no table of the catalog; there are {', '.join(sorted(known))}."
            )
        _load_table(posting, path)


def _load_table(posting: Posting, path: Path) -> None:
    columns = [
        name
        for (name,) in posting.rows(
            "select column_name::text from information_schema.columns"
            " where table_schema = 'staging' and table_name = $1::text order by ordinal_position",
            path.stem,
        )
    ]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        unknown = set(reader.fieldnames or ()) - set(columns)
        if unknown or not reader.fieldnames:
            raise QuoteError(
                f"{path}: no column {', '.join(sorted(unknown)) or 'names in its first line'}; "
                f"there are {', '.join(columns)}."
            )
        rows = [{name: row.get(name) or None for name in columns} for row in reader]
    posting.send(_named("delete from {}", path.stem))
    posting.rows(
        _named(
            "insert into {0} select * from jsonb_populate_recordset(null::{0}, $1::jsonb)",
            path.stem,
        ),
        json.dumps(rows),
    )


def _require(posting: Posting, table: str, column: str, value: str) -> None:
    query = sql.SQL("select {}::text from {} order by 1").format(
        sql.Identifier(column), sql.Identifier("staging", table)
    )
    known = [name for (name,) in posting.rows(query.as_string())]
    if value not in known:
        raise QuoteError(f"The catalog's {table} have no {value!r}; there are {', '.join(known)}.")


def _named(statement: LiteralString, table: str) -> str:
    return sql.SQL(statement).format(sql.Identifier("staging", table)).as_string()


def _change_plan(posting: Posting, tenant_id: str, plan_id: str, window: Window) -> None:
    """A new version of the tenant's one subscription in the window, with another plan. Raises QuoteError."""
    found = posting.rows(_STANDING, tenant_id, window.start, window.end)
    if len(found) != 1:
        named = ", ".join(subscription for (subscription,) in found) or "none"
        raise QuoteError(
            f"Another plan can be tried for a tenant with one subscription in {window}; "
            f"{tenant_id!r} has {named}."
        )
    posting.rows(_CHANGE_PLAN, found[0][0], plan_id)


def _rate(posting: Posting, window: Window) -> None:
    """Publish what is staged and rate it; what a changed metric measures otherwise is rolled up first."""
    posting.post([CATALOG], window)
    [(owed,)] = posting.rows("select min(landed_hour) from ledger.pending where released")
    if owed is not None:
        posting.post((CONTRIBUTIONS, HOURLY, DAILY), Window(owed, END_OF_TIME))
    posting.post(RATED, window)


def _subscribe(posting: Posting, name: str, asked: Asked) -> None:
    first_day = asked.first_day.isoformat()
    posting.rows(
        "insert into staging.tenants (tenant_id, name, legal_entity, billable)"
        " select $1::text, $1::text, min(legal_entity), 'false' from staging.legal_entities",
        name,
    )
    posting.rows(
        "insert into staging.subscriptions (subscription_id, version, tenant_id, plan_id, time_zone,"
        " anchor_date, anchor_time, started_at, recorded_at, recorded_by)"
        " values ($1::text, '1', $1::text, $2::text, 'UTC', $3::text, '00:00', $4::text, $4::text, 'quote')",
        name,
        asked.plan_id,
        first_day,
        f"{first_day}T00:00:00Z",
    )


def _end_of_period(posting: Posting, asked: Asked) -> datetime:
    [(end,)] = posting.rows(_END_OF_PERIOD, _midnight(asked.first_day), asked.plan_id)
    return _instant(end)


def _use(posting: Posting, name: str, asked: Asked) -> None:
    """The quantity in the first hour of the period, so that each aggregation gives just that."""
    posting.rows(
        _USE,
        name,
        asked.metric,
        _midnight(asked.first_day),
        json.dumps(dict(asked.dimensions)),
        str(asked.quantity),
    )


def _land_until(posting: Posting, end: datetime) -> None:
    """Periods go as far as the landed hours: without these, the quoted one would not be over."""
    posting.rows(
        "insert into landing.hours (landed_hour, file_count, listed_at, sealed)"
        " values ($1::timestamptz, 0, now(), false) on conflict do nothing",
        end - HOUR,
    )


def _lines(posting: Posting, window: Window, tenants: Iterable[str]) -> list[tuple[str, Line]]:
    found = posting.ask("rated_lines_compared", window.start, window.end, "\n".join(tenants))
    return [(side, _line(*columns)) for side, *columns in found]


def _line(*columns: Any) -> Line:
    *names, start, end, quantity, amount, currency = columns
    figures = (Decimal(quantity), Decimal(amount), currency)
    return Line(*names, _instant(start), _instant(end), *figures)  # type: ignore[call-arg]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _instant(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_STANDING = """
select distinct on (subscription_id) subscription_id
from staging.subscriptions
where
    tenant_id = $1::text
    and started_at::timestamptz < $3::timestamptz
    and coalesce(ended_at::timestamptz, 'infinity') > $2::timestamptz
order by subscription_id
"""

_CHANGE_PLAN = """
insert into staging.subscriptions
select changed.*
from (
    select to_jsonb(subscriptions) || jsonb_build_object('version', (version::integer + 1)::text, 'plan_id', $2::text)
        as content
    from staging.subscriptions
    where subscription_id = $1::text
    order by version::integer desc
    limit 1
) as newest
cross join lateral jsonb_populate_record(null::staging.subscriptions, newest.content) as changed
"""

_END_OF_PERIOD = """
select
    $1::timestamptz + coalesce(nullif(interval_count, '')::integer, 1) * case billing_interval
        when 'quarter' then interval '3 months'
        when 'half_year' then interval '6 months'
        else ('1 ' || billing_interval)::interval
    end
from staging.plans
where plan_id = $2::text
"""

_USE = """
insert into rollups.usage_hourly (
    tenant_id, metric, hour, dimensions, event_count, value_sum, value_moment, value_min, value_max, value_latest,
    latest_at, latest_fingerprint, event_digest, payload_digest
)
select
    $1::text,
    metric,
    $3::timestamptz,
    $4::jsonb,
    case aggregation when 'count' then $5::numeric::bigint else 1 end,
    $5::numeric,
    case aggregation when 'weighted_sum' then $5::numeric * extract(epoch from $3::timestamptz) end,
    $5::numeric,
    $5::numeric,
    $5::numeric,
    $3::timestamptz,
    gen_random_uuid(),
    1,
    1
from catalog.metrics
where metric = $2::text
"""
