"""From which columns a column comes, as the ymls say it (``config.meta.lineage``).

It is written down and not read from the SQL: the models that matter most are scripts of many statements, of which
no parser makes a lineage. A test compares the names with the tables.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

SAME_NAME = "*"
"""In place of a column: whatever has no entry of its own comes from the column of that name there, if there is one."""

Tables = Mapping[tuple[str, ...], Mapping[str, Any]]
"""What dbt knows of a table, by schema and name."""


def tables_of(manifest: Mapping[str, Any]) -> Tables:
    """Every model, seed and table of the manifest."""
    nodes: Iterable[Mapping[str, Any]] = [
        *manifest["nodes"].values(),
        *manifest["sources"].values(),
    ]
    return {
        (node["schema"], node["name"]): node
        for node in nodes
        if node["resource_type"] in ("model", "seed", "source")
    }


def origins_of(tables: Tables, key: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """By column, the columns that it comes from, as schema.table.column; nothing where nothing is written down."""
    lineage = tables[key]["config"]["meta"].get("lineage", {})
    source = lineage.get(SAME_NAME)
    there = tables[tuple(source.split("."))]["columns"] if source else {}
    same = {name: [f"{source}.{name}"] for name in tables[key]["columns"] if name in there}
    return {**same, **{name: origins for name, origins in lineage.items() if name != SAME_NAME}}


def described(tables: Tables, key: tuple[str, ...]) -> Mapping[str, str]:
    """By column, what it is and, after an arrow, where it comes from."""
    origins = origins_of(tables, key)
    return {
        name: " ← ".join([column["description"], *_in_words(name, origins.get(name, []))])
        for name, column in tables[key]["columns"].items()
    }


def _in_words(column: str, origins: Sequence[str]) -> Iterator[str]:
    """As ``catalog.metrics (unit), ledger.usage_events (quantity, properties)``; the table alone for the same name."""
    parts = [origin.rpartition(".") for origin in origins]
    tables = {
        table: [name for *_, name in columns]
        for table, columns in groupby(parts, lambda part: part[0])
    }
    if tables:
        yield ", ".join(
            table if names == [column] else f"{table} ({', '.join(names)})"
            for table, names in tables.items()
        )
