"""The event path keeps to what tables distributed by tenant accept (Citus), as docs/capacity.md says: no
distributed database is here to ask, so the compiled models and the tables' own keys are looked at."""

import json
from collections.abc import Iterable

import psycopg
import pytest
import sqlglot
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest
from sqlglot import exp

EVENT_PATH = ("path:models/ledger", "path:models/rollups")
HOUR = {"event_time_start": "2026-01-01 00:00:00", "event_time_end": "2026-01-01 01:00:00"}
REFUSED = (exp.Merge, exp.GroupingSets, exp.Cube, exp.Rollup)
UNSTABLE = (exp.CurrentTimestamp, exp.CurrentDate, exp.TimestampTrunc, exp.DateTrunc)
"""What may say another thing on another node, in a statement that writes."""
ON_EVERY_NODE = {"catalog", "landing", "reconciliation", "invoices"}
"""Schemas of which only landing.usage_events is distributed: the rest is small, and copied or asked for."""
FILES = {"superseded"}
"""Temporary lists of files, without a tenant."""
DETERMINE_TENANT = {"fingerprint", "line_number"}
"""Columns that belong to one tenant's event only: a key with one of them says the same with tenant_id in it."""

TABLES = """
select table_schema, table_name
from information_schema.columns
where
    column_name = 'tenant_id'
    and (table_schema in ('ledger', 'rollups') or (table_schema, table_name) = ('landing', 'usage_events'))
    and table_name !~ '_[0-9]{8}$'
"""
KEYS = """
select
    format('%I.%I', pg_namespace.nspname, pg_class.relname),
    array_agg(pg_attribute.attname::text)
from pg_index
inner join pg_class on pg_class.oid = pg_index.indrelid
inner join pg_namespace on pg_namespace.oid = pg_class.relnamespace
cross join unnest(pg_index.indkey::smallint[]) with ordinality as places (place, number)
inner join pg_attribute on pg_attribute.attrelid = pg_class.oid and pg_attribute.attnum = places.place
where
    pg_index.indisunique
    and places.number <= pg_index.indnkeyatts
    and (pg_namespace.nspname, pg_class.relname) in ({tables})
group by pg_index.indexrelid, pg_namespace.nspname, pg_class.relname
""".replace("{tables}", TABLES)
NUMBERED_OR_TRIGGERED = """
select format('%I.%I', table_schema, table_name), column_name::text
from information_schema.columns
where (table_schema, table_name) in ({tables}) and (is_identity = 'YES' or column_default like 'nextval%%')
union all
select format('%I.%I', event_object_schema, event_object_table), trigger_name::text
from information_schema.triggers
where (event_object_schema, event_object_table) in ({tables})
""".replace("{tables}", TABLES)

Level = exp.Select | exp.Delete | exp.Update


@pytest.fixture(scope="module")
def models(parsed_project: tuple[Manifest, tuple[str, ...]]) -> dict[str, list[exp.Expression]]:
    """The statements of each model of the event path, parsed."""
    manifest, flags = parsed_project
    hour = ("--vars", json.dumps(HOUR), "--no-introspect", "--no-populate-cache")
    outcome = dbtRunner(manifest=manifest).invoke(
        ["--quiet", "compile", "--select", *EVENT_PATH, *hour, *flags]
    )
    assert outcome.success, outcome.exception
    compiled = {each.node.name: each.node.compiled_code for each in outcome.result}  # type: ignore[union-attr]
    assert {"usage_events", "usage_contributions", "usage_hourly", "usage_daily"} <= compiled.keys()
    return {name: statements(text) for name, text in compiled.items()}


def statements(text: str) -> list[exp.Expression]:
    parsed = sqlglot.parse(text.replace(" on commit drop", ""), read="postgres")
    return [each for each in parsed if each is not None]


@pytest.fixture
def distributed(connection: psycopg.Connection) -> set[tuple[str, str]]:
    return {(str(schema), str(table)) for schema, table in connection.execute(TABLES).fetchall()}


def test_every_statement_is_understood(models: dict[str, list[exp.Expression]]) -> None:
    for name, parsed in models.items():
        assert parsed, name
        assert not [each.sql() for each in parsed if isinstance(each, exp.Command)], name


def test_no_statement_is_of_a_kind_that_is_refused(
    models: dict[str, list[exp.Expression]],
) -> None:
    for name, parsed in models.items():
        for each in parsed:
            assert not list(each.find_all(*REFUSED)), name
            assert not [one for one in each.find_all(exp.With) if one.args.get("recursive")], name
            if not isinstance(each, exp.Query):
                assert not [found.sql() for found in each.find_all(*UNSTABLE)], name


def test_every_join_of_distributed_tables_is_by_tenant(
    models: dict[str, list[exp.Expression]], distributed: set[tuple[str, str]]
) -> None:
    joins = 0
    by_something_else: list[str] = []
    for name, parsed in models.items():
        for level in levels(parsed):
            if joins_distributed(level, distributed):
                joins += 1
                if "tenant_id" not in conditions(level):
                    by_something_else.append(f"{name}: {level.sql('postgres')}")
    assert by_something_else == []
    assert joins > 30


def levels(parsed: Iterable[exp.Expression]) -> Iterable[Level]:
    for each in parsed:
        yield from each.find_all(exp.Select, exp.Delete, exp.Update)


def joins_distributed(level: Level, distributed: set[tuple[str, str]]) -> bool:
    """Whether a table that is distributed meets another one, or rows made of one, on this level of a statement;
    the level around an EXISTS included."""
    read = sources(level)
    tables = [each for each in read if isinstance(each, exp.Table)]
    cut = [each for each in tables if (each.db, each.name) in distributed]
    made = [
        each
        for each in read
        if each not in cut
        and not isinstance(each, exp.Lateral | exp.Unnest)
        and not everywhere(each)
    ]
    within = level.find_ancestor(exp.Exists)
    around = within.parent_select if within is not None else None
    meets_around = around is not None and any(
        not isinstance(each, exp.Unnest) and not everywhere(each) for each in sources(around)
    )
    return bool(cut) and len(cut) + len(made) + meets_around > 1


def sources(level: Level) -> list[exp.Expression]:
    """What a level of a statement reads or writes: tables, subqueries, function calls."""
    found: list[exp.Expression] = []
    target = [] if isinstance(level, exp.Select) else [level.this]
    for key in ("from_", "using", "joins"):
        given = level.args.get(key) or []
        found += given if isinstance(given, list) else [given]
    return target + [each.this if isinstance(each, exp.From | exp.Join) else each for each in found]


def everywhere(source: exp.Expression) -> bool:
    return isinstance(source, exp.Table) and (source.db in ON_EVERY_NODE or source.name in FILES)


def conditions(level: Level) -> str:
    given = [level.args.get("where"), *(level.args.get("joins") or [])]
    return " ".join(each.sql() for each in given if each is not None)


def test_every_key_can_take_the_tenant(connection: psycopg.Connection) -> None:
    keys = connection.execute(KEYS.encode()).fetchall()
    assert ("ledger.usage_events", ["occurred_at", "fingerprint"]) in keys
    for table, columns in keys:
        assert {"tenant_id", *DETERMINE_TENANT} & set(columns), f"{table}: {columns}"


def test_no_distributed_table_numbers_its_rows_or_has_a_trigger(
    connection: psycopg.Connection,
) -> None:
    assert connection.execute(NUMBERED_OR_TRIGGERED.encode(), None).fetchall() == []


@pytest.mark.parametrize(
    "text",
    [
        "select 1 from ledger.voids inner join ledger.usage_events as events using (fingerprint)",
        "delete from ledger.voids using batch where batch.fingerprint = voids.fingerprint",
        "select 1 from batch where exists (select 1 from ledger.voids where voids.fingerprint = batch.fingerprint)",
    ],
)
def test_a_join_by_something_else_is_seen(text: str, distributed: set[tuple[str, str]]) -> None:
    seen = [each for each in levels(statements(text)) if joins_distributed(each, distributed)]
    assert len(seen) == 1
    assert "tenant_id" not in conditions(seen[0])
