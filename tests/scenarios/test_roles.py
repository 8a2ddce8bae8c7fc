"""A pipeline that owns nothing does all its work, and a tenant's login sees its own rows in whatever it may read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from metering_pipeline import postgres
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.partitions import Window
from metering_pipeline.settings import HOUR
from tests.conftest import PIPELINE_LOGIN, url_of
from tests.scenarios.conftest import Pipeline
from tests.scenarios.test_command_line import metering_here

LANDED = datetime(2026, 1, 31, 13, tzinfo=UTC)
TENANTS = ("acme", "birch-labs")
LOGINS = ("an_analyst", "acme_login", "a_service", "nobodys_login")


MANIFEST = {
    "source": "gateway",
    "landed_hour": "2026-01-31T14",
    "files": [{"name": "late.ndjson"}],
    "totals": [{"event_type": "api.request", "events": 15, "quantity": 15}],
}


def events(tenant: str, number: int) -> list[Mapping[str, object]]:
    """Usage that is billed, a duplicate, a conflict and a void of it."""

    def event(correlation: str, tokens: int, **more: object) -> Mapping[str, object]:
        properties = {"model": "small", "input_tokens": tokens, "output_tokens": 40}
        return {
            "tenant_id": tenant,
            "event_type": "api.request",
            "occurred_at": "2026-01-31T12:59:59.25Z",
            "correlation_id": f"{tenant}-{correlation}",
            "properties": properties,
            **more,
        }

    billed = [event(f"billed-{each}", 900_000) for each in range(number)]
    return [*billed, billed[0], event("billed-0", 7), event("void", 3), event("void", 3, void=True)]


@dataclass(frozen=True)
class Lived:
    """A database in which the pipeline has lived a month, and connections of logins to it."""

    database: postgres.Database

    @contextmanager
    def session(self, login: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(url_of(login, self.database.url), autocommit=True) as connection:
            yield connection


@pytest.fixture(scope="module")
def lived(
    server: EmbeddedServer, catalog_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lived]:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(f"create database metering template {catalog_template} strategy wal_log")
        for login, role in zip(LOGINS, ("analyst", "tenant", "tenant", "tenant"), strict=True):
            connection.execute(
                f"create role {login} login password '{login}' in role metering_{role}"
            )
    database = postgres.Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    root: Path = tmp_path_factory.mktemp("roles")
    with (
        pytest.MonkeyPatch.context() as environment,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        environment.setenv("METERING_DATABASE_URL", url_of(PIPELINE_LOGIN, database.url))
        environment.setenv("METERING_DAGSTER_DATABASE_URL", database.dagster_url)
        environment.setenv("METERING_LANDING_URL", str(root))
        pipeline = Pipeline(root, database, environment, instance)
        for number, tenant in enumerate(TENANTS, start=1):
            pipeline.drop(LANDED, f"{tenant}.ndjson", events(tenant, number))
        pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))
        with database.connect() as connection:
            connection.execute(
                "insert into catalog.tenant_logins values ('acme_login', 'acme'), ('a_service', null)"
            )
        for tenant in TENANTS:
            by = ("--currency", "USD", "--by", "ana", "--why", "sold")
            granted = metering_here("credit", "grant", tenant, "5", *by)
            assert granted.returncode == 0, granted.stderr
        pipeline.run(LANDED)
        pipeline.issue(date(2026, 2, 5))
        pipeline.drop(LANDED + HOUR, "late.ndjson", events("acme", 3) + events("birch-labs", 3))
        pipeline.drop(LANDED + HOUR, "_manifest.json", [MANIFEST])
        pipeline.run(LANDED + HOUR)
        pipeline.run_job("weekly")
        with database.connect() as connection:
            connection.execute(
                "insert into catalog.sources values"
                " ('gateway', '*', '{acme}', true, 0, '2026-01-01', null, 'A gateway.')"
            )
        yield Lived(database)
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database metering with (force)")
        for login in LOGINS:
            connection.execute(f"drop role {login}")


def test_the_pipeline_ran_as_a_login_that_owns_nothing(lived: Lived) -> None:
    with lived.database.connect() as connection:
        assert connection.execute(
            "select count(*) from pg_class where relowner = %s::regrole", (PIPELINE_LOGIN,)
        ).fetchone() == (0,)
        assert connection.execute(
            "select count(*) > 2 from invoices.issued_invoices"
        ).fetchone() == (True,)
        assert connection.execute("select state from reconciliation.control_totals").fetchall() == [
            ("missing",)
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["rebuild", "--stage", "ledger"],
        ["rebuild", "--stage", "rollups"],
        ["rebuild", "--stage", "landing", "--from", "2026-01-31T13", "--to", "2026-01-31T14"],
        ["run", "--hour", "2026-01-31T14", "--dry-run"],
        ["waive", "gateway", "--hour", "2026-01-31T14", "--by", "ana", "--why", "asked"],
        ["prove"],
    ],
    ids=" ".join,
)
def test_such_a_login_does_whatever_the_command_line_does(
    lived: Lived, arguments: list[str]
) -> None:
    done = metering_here(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_such_a_login_keeps_what_a_provider_says(lived: Lived, tmp_path: Path) -> None:
    figures = tmp_path / "usage.csv"
    figures.write_text(
        "tenant_id,metric,period_start,period_end,value\n"
        "acme,requests,2026-01-31T12:00:00Z,2026-01-31T13:00:00Z,1000\n"
    )
    differing = metering_here("reconcile", "--source", f"csv:{figures}")
    assert differing.returncode == 1, differing.stdout + differing.stderr
    with lived.database.connect() as connection:
        kept = connection.execute("select tenant_id, value from reconciliation.provider_usage")
        assert kept.fetchall() == [("acme", 1000)]


def test_an_analyst_reads_the_status_and_runs_nothing(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_DATABASE_URL", url_of("an_analyst", lived.database.url))
    status = metering_here("status")
    assert status.returncode == 0, status.stdout + status.stderr
    refused = metering_here("issue", "--stop", "--by", "ana", "--why", "curious")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "permission denied" in refused.stderr


RELATIONS = """
select pg_class.oid::regclass::text, relkind
from pg_class
where relkind in ('r', 'p', 'v') and not relispartition
    and relnamespace::regnamespace::text = any(
        '{landing,ledger,rollups,rating,invoices,reconciliation,catalog,staging}'
    )
    and has_schema_privilege(relnamespace, 'usage') and has_table_privilege(oid, 'select')
order by 1
"""
SHARED = {"landing.hours", "catalog.metrics"}
CLOSED = {"rollups.late_arrivals", "rollups.lateness", "rollups.recent_delays"}
"""Views that a tenant may ask and that read what it may not."""


def readable(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute(RELATIONS).fetchall())


def tenants_in(connection: psycopg.Connection, relation: str) -> set[str]:
    """The tenants of whom a relation says something: any value of any row that tells one."""
    found = connection.execute(
        sql.SQL("select row_to_json(asked)::text from {} as asked").format(
            sql.Identifier(*relation.split("."))
        )
    ).fetchall()
    return {tenant for (row,) in found for tenant in TENANTS if tenant in row}


def test_a_tenant_sees_its_rows_only_in_every_relation_that_it_may_read(lived: Lived) -> None:
    with lived.session("acme_login") as connection, lived.database.connect(True) as owner:
        relations = readable(connection)
        seen = {}
        for relation in relations.keys() - SHARED:
            try:
                seen[relation] = tenants_in(connection, relation)
            except psycopg.errors.InsufficientPrivilege:
                seen[relation] = set()
        there = {relation for relation in seen if tenants_in(owner, relation) == {*TENANTS}}
    assert {"acme"} == set.union(*seen.values())
    # and it is not by chance: both tenants have rows in these, of which it sees its own
    assert {each for each in there if seen[each] != {"acme"}} - CLOSED == set()
    assert len(there) > 15
    assert {"rollups.usage_realtime", "rollups.tenant_usage_daily"} <= there


def test_rows_that_name_no_tenant_are_those_of_its_documents(lived: Lived) -> None:
    with lived.session("acme_login") as tenant, lived.database.connect(True) as owner:
        for table in (
            "issued_usage",
            "issued_tier_slices",
            "coupon_entries",
            "issued_invoice_taxes",
        ):
            asked = sql.SQL(
                "select count(*), count(*) filter (where tenant_id = 'acme') from {} as part"
                " left join invoices.issued_invoices as documents using (invoice_number)"
            ).format(sql.Identifier("invoices", table))
            [(count, own)] = tenant.execute(asked)
            [(every, wanted)] = owner.execute(asked)
            assert (count, own) == (wanted, wanted)
            assert table not in ("issued_usage", "issued_tier_slices") or 0 < wanted < every


def test_functions_ask_for_the_callers_rows(lived: Lived) -> None:
    window = Window(LANDED - HOUR, LANDED)
    for login, tenants in (("acme_login", ["acme"]), ("an_analyst", [*TENANTS])):
        with lived.session(login) as connection:
            found = connection.execute(BETWEEN, (window.start, window.end)).fetchall()
        assert sorted(tenant for (tenant,) in found) == tenants


BETWEEN = """
select distinct asked.tenant_id
from unnest(array['acme', 'birch-labs']) as asked (tenant_id)
cross join catalog.metrics
cross join lateral rollups.usage_between(asked.tenant_id, metrics.metric, %s, %s) as usage
"""


def test_no_setting_widens_what_a_login_sees(lived: Lived) -> None:
    count = "select array_agg(distinct tenant_id) from rollups.usage_hourly"
    with lived.session("acme_login") as connection:
        connection.execute("set metering.tenant_id = 'birch-labs'")
        connection.execute("set role metering_tenant")
        assert connection.execute(count).fetchone() == (["acme"],)
        connection.execute("set row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(count)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from ledger.usage_events_20260131")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into catalog.tenant_logins values (session_user, 'birch-labs')"
            )


def test_a_trusted_service_names_the_tenant_and_a_login_without_one_sees_nothing(
    lived: Lived,
) -> None:
    asked = "select array_agg(distinct tenant_id) from invoices.issued_invoices"
    with lived.session("a_service") as connection:
        assert connection.execute(asked).fetchone() == (None,)
        for tenant in TENANTS:
            connection.execute("select set_config('metering.tenant_id', %s, false)", (tenant,))
            assert connection.execute(asked).fetchone() == ([tenant],)
    with lived.session("nobodys_login") as connection:
        connection.execute("set metering.tenant_id = 'acme'")
        assert connection.execute(asked).fetchone() == (None,)


def test_every_view_asks_for_the_readers_rights(lived: Lived) -> None:
    with lived.database.connect() as connection:
        views = connection.execute(
            """
            select pg_class.oid::regclass::text, coalesce('security_invoker=true' = any(reloptions), false)
            from pg_class
            where relkind in ('v', 'm') and relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
            """
        ).fetchall()
    assert len(views) > 15
    assert [view for view, invoker in views if not invoker] == []


def test_an_analyst_reads_every_relation_but_who_reads_for_which_tenant(lived: Lived) -> None:
    with lived.session("an_analyst") as connection, lived.database.connect() as owner:
        assert readable(owner).keys() - readable(connection).keys() == {"catalog.tenant_logins"}
        for relation in readable(connection):
            connection.execute(
                sql.SQL("select from {} limit 1").format(sql.Identifier(*relation.split(".")))
            )
