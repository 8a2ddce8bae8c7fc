"""Usage from a table or view of the company's own, in the same database."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
from psycopg import sql

from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.providers.usage import (
    Names,
    ProviderError,
    ProviderUsage,
    Span,
    refuse,
    within,
)

WHO = ("tenant_id", "customer")
COLUMNS = {
    "metric": ("text", "character varying"),
    "period_start": ("timestamp with time zone",),
    "period_end": ("timestamp with time zone",),
    "value": ("numeric", "bigint", "integer", "smallint"),
}


class OwnTable:
    """A table or view with tenant_id or customer, metric, period_start, period_end and an exact value."""

    tells_all = False

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.schema, point, self.table = name.partition(".")
        self.source = f"table:{name}"
        if not (self.schema and point and self.table):
            raise ProviderError(f"{self.source}: name it with its schema, as table:billing.usage.")

    def usage(self, span: Span | None, names: Names) -> Iterator[ProviderUsage]:
        """Every row of the span. Raises ProviderError for columns that are not there or not exact, and for
        rows that lack something."""
        with self.database.connect() as connection:
            connection.read_only = True
            who = self._checked_columns(connection)
            query = sql.SQL(
                "select {}::text, metric::text, period_start, period_end, value::numeric from {} order by 1, 2, 3"
            ).format(sql.Identifier(who), sql.Identifier(self.schema, self.table))
            try:
                found = connection.execute(query).fetchall()
            except psycopg.Error as error:
                raise ProviderError(f"{self.source} cannot be read: {error}") from error
        problems: list[str] = []
        rows = [row for each in found if (row := self._row(who, each, problems))]
        refuse(problems, f"of {self.source} cannot be used")
        return (row for row in rows if within(span, row))

    def _checked_columns(self, connection: psycopg.Connection) -> str:
        """The column that says who. Raises ProviderError."""
        found: dict[str, str] = dict(
            connection.execute(
                """
                select attname, format_type(atttypid, null)
                from pg_attribute
                where attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and attnum > 0 and not attisdropped
                """,
                (self.schema, self.table),
            ).fetchall()
        )
        if not found:
            raise ProviderError(
                f"{self.source}: there is no such table or view in this database, or the pipeline's user may not "
                "look into its schema."
            )
        wrong = [
            f"{name} is {found[name]}, not {types[0]}" if name in found else f"{name} is not there"
            for name, types in COLUMNS.items()
            if found.get(name) not in types
        ]
        who = next((each for each in WHO if each in found), None)
        if who is None or wrong:
            raise ProviderError(
                f"{self.source}: "
                + "; ".join(wrong + ([] if who else ["tenant_id or customer is not there"]))
                + ". A view can name and cast its columns as they must be."
            )
        return who

    def _row(
        self,
        who: str,
        cells: tuple[str | None, str | None, datetime | None, datetime | None, Decimal | None],
        problems: list[str],
    ) -> ProviderUsage | None:
        customer, metric, start, end, value = cells
        place = f"{self.source} {customer} {metric} {start.isoformat() if start else '?'}"
        if not customer or not metric or start is None or end is None or value is None:
            empty = [
                name
                for name, cell in zip((who, *COLUMNS), cells, strict=True)
                if cell is None or cell == ""
            ]
            problems.append(f"{place}: {', '.join(empty)} is empty")
            return None
        if start >= end or not value.is_finite():
            problems.append(f"{place}: needs an end after its start, and a number")
            return None
        return ProviderUsage(
            customer, metric, start.astimezone(UTC), end.astimezone(UTC), value, place
        )
