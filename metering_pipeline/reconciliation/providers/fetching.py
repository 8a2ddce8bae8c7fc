"""Fetching a provider's usage and keeping it: one transaction a fetch, rows that are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.providers.csv_files import CsvFiles
from metering_pipeline.reconciliation.providers.own_table import OwnTable
from metering_pipeline.reconciliation.providers.stripe_meters import StripeMeters
from metering_pipeline.reconciliation.providers.usage import (
    Names,
    Provider,
    ProviderError,
    ProviderUsage,
    Span,
    refuse,
    require_apart,
)
from metering_pipeline.reconciliation.statements import rows, statement
from metering_pipeline.settings import Settings, hour_of

PACKAGE = "metering_pipeline.reconciliation"
COMPARABLE = ("count", "sum", "min", "max", "latest")
"""Aggregations of which the hours say what a whole period comes to."""


@dataclass(frozen=True)
class Fetch:
    """What was kept: its number, the source, the span, and how many values."""

    fetch_id: int
    source: str
    span: Span
    values: int


def provider(settings: Settings, database: Database, source: str) -> Provider:
    """The provider that a source names: csv:PATH, stripe or table:SCHEMA.NAME. Raises ProviderError."""
    kind, _, place = source.partition(":")
    if kind == "csv" and place:
        return CsvFiles(Path(place))
    if source == "stripe":
        return StripeMeters(settings)
    if kind == "table" and place:
        return OwnTable(database, place)
    raise ProviderError(
        f"{source!r} is no source of usage: write csv:PATH, stripe or table:SCHEMA.NAME."
    )


def usual_span(source: str, now: datetime) -> Span | None:
    """What is asked for when nobody says: Stripe from the start of last month to the last midnight (UTC), the
    others whatever they have."""
    if source != "stripe":
        return None
    midnight = hour_of(now).replace(hour=0)
    last_of_month = midnight.replace(day=1) - timedelta(days=1)
    return Span(last_of_month.replace(day=1), midnight)


def fetch(database: Database, source: Provider, span: Span | None, by: str, now: datetime) -> Fetch:
    """Fetch what the provider says of a span, check it, and keep it. Raises ProviderError; then nothing is.

    Customers and meters are mapped by the catalog as it is now; a name that it does not map is a tenant or
    metric of ours, or nobody's and nothing's.
    """
    with database.connect() as connection:
        (known,) = rows(connection, PACKAGE, "provider_names")
    if not known.comparable:
        raise ProviderError(
            "There is no usage to compare with yet: run the pipeline (metering run)."
        )
    names = Names(known.tenants, known.metrics)
    found = [
        each
        for each in source.usage(span, names)
        if names.tenants.get(each.customer, "") is not None
        and names.metrics.get(each.meter, "") is not None
    ]
    require_apart(found)
    if not found and not source.tells_all:
        raise ProviderError(f"{source.source} has no usage{f' of {span}' if span else ''}.")
    whole = span or Span(min(each.starts_at for each in found), max(each.ends_at for each in found))
    with database.connect() as connection, connection.transaction():
        parameters = {
            "source": source.source,
            "starts_at": whole.start,
            "ends_at": whole.end,
            "is_exact": span is not None,
            "metrics": sorted(_metrics(source, names, found)),
            "fetched_at": now,
            "fetched_by": by,
        }
        (kept,) = rows(connection, PACKAGE, "keep_provider_fetch", parameters)
        _keep(connection, kept.fetch_id, found)
    return Fetch(kept.fetch_id, source.source, whole, len(found))


def _metrics(source: Provider, names: Names, found: Sequence[ProviderUsage]) -> set[str]:
    """Our names of what is compared, a metric of which nothing was told included if the source tells all."""
    told = {names.metrics.get(each.meter) or each.meter for each in found}
    mapped = {each for each in names.metrics.values() if each is not None}
    return told | mapped if source.tells_all else told


def _keep(connection: psycopg.Connection, fetch_id: int, found: Sequence[ProviderUsage]) -> None:
    """Keep the values of a fetch. Raises ProviderError for a metric that cannot be compared so."""
    with connection.cursor() as cursor:
        cursor.execute(statement(PACKAGE, "stage_provider_usage"))
        with cursor.copy(statement(PACKAGE, "copy_provider_usage")) as copy:
            for each in found:
                copy.write_row(
                    (
                        each.customer,
                        each.meter,
                        each.starts_at,
                        each.ends_at,
                        each.value,
                        each.place,
                    )
                )
        cursor.execute(statement(PACKAGE, "keep_provider_usage"), {"fetch_id": fetch_id})
    refuse(
        [
            f"{row.metric} is a {row.aggregation}: its periods are not what their hours come to"
            for row in rows(connection, PACKAGE, "provider_metrics", {"fetch_id": fetch_id})
            if row.aggregation not in COMPARABLE
        ],
        "of a metric cannot be compared",
    )
