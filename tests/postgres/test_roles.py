"""Roles: each may do what docs/security.md says, and nothing else. The whole pipeline runs under such a login in
tests/scenarios, where a tenant reads its rows, too."""

import itertools
import re
from collections.abc import Iterator, Mapping

import psycopg
import pytest
from psycopg import sql

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.postgres import Database, DatabaseError, open_database
from metering_pipeline.settings import PROJECT_ROOT, Settings
from tests.conftest import TEMPLATE, url_of

ROLES = ("landing", "transform", "issue", "analyst", "tenant")
SCHEMAS = ("landing", "ledger", "rollups", "rating", "invoices", "reconciliation", "catalog")
WORDS = {"read": "SELECT", "add": "INSERT", "change": "UPDATE", "remove": "DELETE"}
NEVER = ("TRUNCATE", "REFERENCES", "TRIGGER")
Rights = frozenset[str]

TABLES = """
select relnamespace::regnamespace::text, relname
from pg_class
where relnamespace::regnamespace::text = any(%s) and relkind in ('r', 'p') and not relispartition
order by 1, 2
"""
HELD = """
select privilege
from unnest(%(privileges)s::text[]) as privilege
where has_table_privilege(%(role)s, %(table)s, privilege)
union all
select lower(privilege) || ' ' || attname
from pg_attribute
cross join unnest(array['INSERT', 'UPDATE']) as privilege
where
    attrelid = %(table)s::regclass and attnum > 0
    and has_column_privilege(%(role)s, attrelid, attnum, privilege)
    and not has_table_privilege(%(role)s, attrelid, privilege)
"""


@pytest.fixture(scope="module")
def promised() -> Mapping[str, Mapping[str, Rights]]:
    """The page's table: what each role may do with a table, or with the other tables of a schema."""
    page = (PROJECT_ROOT / "docs" / "security.md").read_text()
    header, *lines = re.findall(r"^\| (?:table|`\w+\.).*$", page, re.MULTILINE)
    assert [cell.strip() for cell in header.split("|")[2:-1]] == [*ROLES]
    found = {}
    for line in lines:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        found[name.strip("`")] = dict(zip(ROLES, map(rights, cells), strict=True))
    return found


def rights(cell: str) -> Rights:
    """What a cell of the page says, as the database does."""
    words = [word.strip() for word in cell.split(",") if word.strip()]
    return frozenset(
        f"update {word.split('`')[1]}" if "`" in word else WORDS[word] for word in words
    )


@pytest.fixture
def schema(server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    """The database with the schema and nothing in it; the owner's connection, whose changes are undone."""
    with psycopg.connect(server.start().url(TEMPLATE)) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_page_says(
    schema: psycopg.Connection, promised: Mapping[str, Mapping[str, Rights]], role: str
) -> None:
    tables = schema.execute(TABLES, (list(SCHEMAS),)).fetchall()
    said, real = {}, {}
    for name in (f"{each}.{table}" for each, table in tables):
        group = name if name in promised else re.sub(r"\..*", ".*", name)
        said[name] = promised[group][role]
        privileges = [*WORDS.values(), *NEVER]
        asked = {"role": f"metering_{role}", "table": name, "privileges": privileges}
        real[name] = frozenset(privilege for (privilege,) in schema.execute(HELD, asked))
    assert real == said
    named = {name for name in promised if not name.endswith("*")}
    assert named <= set(real), "the page names tables that are not there"


def is_refused(schema: psycopg.Connection, statement: sql.Composable) -> bool:
    """Whether the statement is refused by privilege; by anything else is an error."""
    try:
        with schema.transaction():
            schema.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def attempts(schema: psycopg.Connection) -> Iterator[tuple[str, sql.Composed]]:
    """The statements that would change what must stay, or take a guard away."""
    harmful = (
        "update {table} set {column} = {column}",
        "delete from {table}",
        "truncate {table} cascade",
        "drop table {table} cascade",
        "alter table {table} add column more text",
        "alter table {table} disable trigger all",
        "alter table {table} disable row level security",
        "create trigger more before insert on {table} for each row execute function invoices.refuse_change()",
        "create rule more as on insert to {table} do instead nothing",
        "alter table {table} owner to current_user",
    )
    kept = [
        *(schema.execute(
            "select relnamespace::regnamespace::text, relname from pg_trigger inner join pg_class on tgrelid = pg_class.oid"
            " where tgname = 'append_only'"
        )),
        ("landing", "usage_events"), ("landing", "rejected_events"), ("landing", "erasures"),
        ("catalog", "archives"),
        ("reconciliation", "law_results"), ("catalog", "schema_files"),
    ]  # fmt: skip
    for table, harm in itertools.product(kept, harmful):
        [(column,)] = schema.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum = 2",
            (".".join(table),),
        )
        yield (
            f"{'.'.join(table)}: {harm}",
            sql.SQL(harm).format(table=sql.Identifier(*table), column=sql.Identifier(column)),
        )


@pytest.mark.parametrize(
    "role", ["landing", "transform", "issue", "pipeline", "analyst", "archive", "erase", "tenant"]
)
def test_what_is_kept_for_good_is_refused_by_privilege(
    schema: psycopg.Connection, role: str
) -> None:
    """Not by a trigger only: the code says so."""
    tried = list(attempts(schema))
    assert len(tried) > 100
    for name, statement in tried:
        with schema.transaction(force_rollback=True):
            schema.execute(sql.SQL("set local role {}").format(sql.Identifier(f"metering_{role}")))
            assert is_refused(schema, statement), f"metering_{role} may {name}"


@pytest.mark.parametrize("role", ["analyst", "erase", "tenant"])
def test_who_reads_writes_nothing(schema: psycopg.Connection, role: str) -> None:
    statements = [
        *(sql.SQL("create table {}.more ()").format(sql.Identifier(each)) for each in SCHEMAS),
        sql.SQL("create schema more"),
        sql.SQL("create temporary table more ()"),
        sql.SQL("select nextval('invoices.credit_numbers')"),
        sql.SQL("select catalog.ensure_day_partitions('ledger', 'usage_events', '{2026-01-01}')"),
        sql.SQL("select catalog.renew_statistics('ledger.pending')"),
        sql.SQL("select catalog.make_rebuild_schema()"),
        sql.SQL("select landing.erase_landed('-infinity', 'infinity')"),
        sql.SQL("select landing.expire_rejected(now())"),
        sql.SQL("set local role metering_pipeline"),
    ]
    # a superuser's session may take any role: only a login of its own cannot
    with schema.transaction(force_rollback=True):
        schema.execute("create role reader login")
        schema.execute(sql.SQL("grant {} to reader").format(sql.Identifier(f"metering_{role}")))
        schema.execute("set local session authorization reader")
        for statement in statements:
            assert is_refused(schema, statement), statement.as_string(schema)


KEEPING = {
    "erase": "select landing.erase_payloads('acme', '{x}', 'asked', 'dpo', now())",
    "archive": "select catalog.archive_day('landing', '2026-01-05', 'file', 0, 0, 0, 'sha', now())",
}


@pytest.mark.parametrize("own", KEEPING)
@pytest.mark.parametrize(
    "role", ["landing", "transform", "issue", "pipeline", "analyst", "archive", "erase", "tenant"]
)
def test_only_who_may_erase_or_archive_does(
    schema: psycopg.Connection, role: str, own: str
) -> None:
    with schema.transaction(force_rollback=True):
        schema.execute(sql.SQL("set local role {}").format(sql.Identifier(f"metering_{role}")))
        try:
            assert is_refused(schema, sql.SQL(KEEPING[own])) is (role != own)
        except psycopg.errors.RaiseException:
            assert role == own, "refused by what it says, not by privilege"


def test_a_role_that_transforms_makes_views_and_no_schema(schema: psycopg.Connection) -> None:
    with schema.transaction(force_rollback=True):
        schema.execute("set local role metering_transform")
        schema.execute("create view rollups.more as select * from rollups.usage_daily")
        for role, relation in itertools.product(("analyst", "tenant"), ("rollups.more",)):
            asked = "select has_table_privilege(%s, %s, 'select')"
            assert schema.execute(asked, (f"metering_{role}", relation)).fetchone() == (True,)
        for statement in ("create schema more", "create view catalog.more as select 1"):
            assert is_refused(schema, sql.SQL(statement)), statement


# Rows


def test_what_a_tenant_may_read_is_confined_to_its_rows(schema: psycopg.Connection) -> None:
    """Every table with a tenant, or of a document, that metering_tenant reads has both policies."""
    rows = schema.execute(
        """
        select
            pg_class.oid::regclass::text,
            relrowsecurity and not relforcerowsecurity,
            array(
                select concat_ws(' ', polname, polroles::regrole[]::text, pg_get_expr(polqual, polrelid) like '%%readable_tenants()%%')
                from pg_policy where polrelid = pg_class.oid order by 1
            )
        from pg_class
        where
            relnamespace::regnamespace::text = any(%s) and relkind in ('r', 'p')
            and has_table_privilege('metering_tenant', oid, 'select')
        """,
        (list(SCHEMAS),),
    ).fetchall()
    shared = {"landing.hours", "catalog.metrics"}
    assert {name for name, *_ in rows} > shared
    by_document = {f"invoices.{name}" for name in (
        "issued_usage", "issued_tier_slices", "issued_invoice_taxes", "coupon_entries",
    )}  # fmt: skip
    for name, secured, policies in rows:
        of_tenant = "f" if name in by_document else "t"
        expected = [f"own_rows {{metering_tenant}} {of_tenant}", "whole_table {metering_analyst} f"]
        assert (name, secured, policies) == (
            (name, False, []) if name in shared else (name, True, expected)
        )


# Bringing up the schema


def test_who_is_not_the_owner_is_told_what_to_do(
    server: EmbeddedServer, database: Database
) -> None:
    with database.connect() as connection:
        connection.execute("delete from catalog.schema_files where file_name > '008'")
        connection.execute("create role stranger login password 'stranger'")
    try:
        for login, message in (
            ("pipeline_login", "with the owner's: METERING_DATABASE_URL"),
            ("stranger", "permission denied for schema catalog. Grant it the role that it needs"),
        ):
            url = url_of(login, database.url)
            with pytest.raises(DatabaseError, match=message) as refused:
                open_database(Settings(database_url=url))
            assert f":{login}@" not in str(refused.value)
    finally:
        with psycopg.connect(server.start().url("postgres")) as connection:
            connection.execute("drop role stranger")


def test_an_owner_that_is_no_superuser_brings_up_the_schema(server: EmbeddedServer) -> None:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("create role an_owner login createrole password 'an_owner'")
        connection.execute("create database owned owner an_owner")
        for role in ("landing", "transform", "issue", "pipeline", "analyst", "tenant"):
            connection.execute(f"grant metering_{role} to an_owner with admin option")
        try:
            open_database(Settings(database_url=url_of("an_owner", address.url("owned"))))
            theirs = Settings(database_url=url_of("pipeline_login", address.url("owned")))
            with open_database(theirs).connect() as pipeline:
                pipeline.execute(
                    "select catalog.ensure_day_partitions('ledger', 'usage_events', '{2026-01-01}')"
                )
                pipeline.execute("select catalog.renew_statistics('rating.rated_lines')")
                pipeline.execute("select catalog.make_rebuild_schema()")
                pipeline.execute("create unlogged table ledger_rebuilt.copies ()")
                pipeline.execute("create temporary table batch ()")
        finally:
            connection.execute("drop database if exists owned with (force)")
            connection.execute("drop role an_owner")


def test_the_pages_statements_run(schema: psycopg.Connection) -> None:
    """Every one of docs/security.md, as the owner; then the tenant's login may ask."""
    page = (PROJECT_ROOT / "docs" / "security.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    with schema.transaction(force_rollback=True):
        for block in blocks:
            schema.execute(block)
        for login, tenants in (("acme_portal", ["acme"]), ("portal", ["acme"]), ("ana", None)):
            schema.execute(
                sql.SQL("set local session authorization {}").format(sql.Identifier(login))
            )
            if tenants:
                asked = "select catalog.readable_tenants()"
                assert schema.execute(asked).fetchone() == (tenants,)
            schema.execute("select from rollups.usage_daily")
            schema.execute("reset session authorization")
