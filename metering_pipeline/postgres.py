"""The database: connections, the pipeline's transaction, and the schema that its tables have.

The schema is the numbered files of ``schema/``, applied once, in order, each in one transaction
together with its record in ``catalog.schema_files``.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from metering_pipeline.embedded_server import DatabaseError, EmbeddedServer, ServerAddress
from metering_pipeline.errors import ArchivedError, hiding_rows
from metering_pipeline.settings import PREFIX, Settings

__all__ = [
    "LANDED_LOCK",
    "LEDGER_LOCK",
    "LOOK_LOCK",
    "PIPELINE_LOCKS",
    "ROLLUPS_LOCK",
    "Database",
    "DatabaseError",
    "embedded_address",
    "embedded_server",
    "named_database",
    "open_database",
    "settings_in_database",
]

ROLLUPS_LOCK = 7304211
"""The advisory lock of every transaction that writes, from its first change of what others read to its end, but
of a landing and a posting of the ledger: they go on beside the models of the rollups, which take no other."""

LEDGER_LOCK = 7304214
"""The advisory lock of every transaction that writes but the models of the rollups."""

LANDED_LOCK = 7304212
"""The advisory lock over what has landed: exclusive for who changes it, shared for a posting of the ledger, which
so reads and hashes its batch while others write."""

PIPELINE_LOCKS = (LEDGER_LOCK, ROLLUPS_LOCK)
"""Whose transaction writes waits for these in this order, and before them for that of what has landed if it needs it,
or two would wait for each other. The macros of posting.sql have the same numbers."""

LOOK_LOCK = 7304213
"""The advisory lock of whoever looks at the pipeline (watch): two at once would tell everything twice."""

SCHEMA_FOLDER = Path(__file__).parent / "schema"
MINIMUM_VERSION = 160000
DATABASE_NAME = "metering"
DAGSTER_DATABASE_NAME = "dagster"
REACH_SECONDS = 10.0

PIPELINE_ROLE = "metering_pipeline"

ARCHIVED = "ML001"
"""The state of the error that archived days are needed (schema/012_archiving.sql)."""


class Connection(psycopg.Connection):
    """A connection whose errors quote no rows, and say what to do where the login may not do something, or where
    days that it needs are archived."""

    def wait(self, *arguments: Any, **options: Any) -> Any:
        """Every statement, copy and commit goes through here."""
        try:
            with hiding_rows(psycopg.Error):
                return super().wait(*arguments, **options)
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"The login may not do this: {error.diag.message_primary}. Grant it the role that it "
                f"needs: {PIPELINE_ROLE} runs the pipeline, metering_erase erases payloads, metering_archive "
                "archives, metering_analyst reads (docs/security.md)."
            ) from error
        except psycopg.DatabaseError as error:
            if error.sqlstate != ARCHIVED:
                raise
            raise ArchivedError(f"{error.diag.message_primary}") from None


@dataclass(frozen=True)
class Database:
    """Where the pipeline's tables and Dagster's storage are. The URLs hold passwords: not shown."""

    url: str = field(repr=False)
    dagster_url: str = field(repr=False)

    def connect(self, autocommit: bool = False) -> psycopg.Connection:
        """A new connection, its session in UTC. Raises DatabaseError."""
        try:
            return Connection.connect(
                self.url_with(timezone="UTC"), autocommit=autocommit, application_name="metering"
            )
        except psycopg.OperationalError as error:
            raise DatabaseError(f"The database cannot be reached: {error}") from error

    def url_with(self, **options: str) -> str:
        """The URL with further settings of the session, beside those that it has. Raises DatabaseError."""
        _url_parameters(self.url)  # psycopg's own error would quote an unreadable URL
        beginning, _, query = self.url.partition("?")
        parameters = dict(parse_qsl(query))
        given = [parameters.get("options", ""), *(f"-c {key}={options[key]}" for key in options)]
        parameters["options"] = " ".join(given).strip()
        return f"{beginning}?{urlencode(parameters, quote_via=quote)}"

    @contextmanager
    def locked(
        self, isolation: IsolationLevel | None = None, landed: bool = False
    ) -> Iterator[psycopg.Connection]:
        """One transaction under the pipeline's locks: committed at the end, rolled back on error.

        Landed: it changes what has landed, and waits for those who read it first. Above READ COMMITTED the
        snapshot is taken after the locks have been got, so that it shows what their last holders have done.
        """
        with self.connect(autocommit=True) as connection:
            if isolation is not None:
                connection.isolation_level = isolation
            if isolation not in (None, IsolationLevel.READ_COMMITTED):
                # A transaction's first statement fixes its snapshot, even while it waits for a
                # lock. So the session waits for the locks first; they end with the connection.
                for lock in PIPELINE_LOCKS:
                    connection.execute("select pg_advisory_lock(%s)", (lock,))
            with connection.transaction():
                for lock in (LANDED_LOCK, *PIPELINE_LOCKS) if landed else PIPELINE_LOCKS:
                    connection.execute("select pg_advisory_xact_lock(%s)", (lock,))
                yield connection

    def dbt_environment(self) -> dict[str, str]:
        """The environment variables that dbt_project/profiles.yml reads."""
        parameters = _url_parameters(self.url)
        environment = {
            "DBT_POSTGRES_HOST": parameters.get("host", "127.0.0.1"),
            "DBT_POSTGRES_PORT": parameters.get("port", "5432"),
            "DBT_POSTGRES_USER": parameters.get("user", "metering"),
            "DBT_ENV_SECRET_PASSWORD": parameters.get("password", ""),
            "DBT_POSTGRES_NAME": parameters.get("dbname", DATABASE_NAME),
        }
        if "sslmode" in parameters:
            environment["PGSSLMODE"] = parameters["sslmode"]
        return environment

    def client_environment(self) -> dict[str, str]:
        """The environment variables by which psql and its like find the database: no password on their command line."""
        return {
            each.envvar.decode(): each.val.decode()
            for each in Conninfo.parse(self.url.encode())
            if each.val is not None and each.envvar is not None
        }


def embedded_server(settings: Settings) -> EmbeddedServer:
    """The server under the home, running or not."""
    return EmbeddedServer(settings.home)


def embedded_address(settings: Settings) -> ServerAddress:
    """The embedded server, started if need be, its databases as they are. Raises DatabaseError."""
    return _reach(embedded_server(settings))


def database_name(settings: Settings) -> str:
    """The name of the pipeline's database, known without connecting to it."""
    if settings.database_url is None:
        return DATABASE_NAME
    parameters = _url_parameters(_sqlalchemy_url(settings.database_url))
    return str(parameters.get("dbname", DATABASE_NAME))


def _url_parameters(url: str) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError:  # its message and cause would quote the URL
        raise DatabaseError(
            "METERING_DATABASE_URL cannot be read. "
            "Write postgresql://user:password@host:port/database."
        ) from None


def named_database(settings: Settings) -> Database | None:
    """The database that METERING_DATABASE_URL names, whether or not it is there. Raises DatabaseError."""
    if settings.database_url is None:
        return None
    url = _sqlalchemy_url(settings.database_url)
    return Database(url=url, dagster_url=_dagster_url(settings) or url)


def open_database(settings: Settings, reading: bool = False) -> Database:
    """The database, reachable, with the newest schema and the present settings in it.

    Who only reads leaves the settings in force: a shell without them must not change a run's.
    Cheap when nothing is to be done; safe when several processes do it at once.
    Raises DatabaseError.
    """
    if named := named_database(settings):
        _bring_up(named, settings, reading)
        return named
    address = embedded_address(settings)
    owner = Database(
        url=address.url(DATABASE_NAME),
        dagster_url=_dagster_url(settings) or address.url(DAGSTER_DATABASE_NAME),
    )
    _bring_up(owner, settings, reading)
    # The embedded server has one login, its superuser. The pipeline puts its rights off.
    return replace(owner, url=owner.url_with(role=PIPELINE_ROLE))


def _bring_up(database: Database, settings: Settings, reading: bool) -> None:
    try:
        with database.connect(autocommit=True) as connection:
            _check_version(connection)
            if _missing_files(connection, SCHEMA_FOLDER):
                _require_owner(connection)
                apply_schema(database)
            _write_settings(connection, settings, only_new=reading)
    except psycopg.Error as error:
        raise DatabaseError(f"The database's schema could not be brought up: {error}") from error


def _require_owner(connection: psycopg.Connection) -> None:
    """Raises DatabaseError for a login that may not bring up the schema."""
    row = connection.execute(
        """
        select coalesce(
            (select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = 'catalog'),
            has_database_privilege(current_database(), 'create')
        )
        """
    ).fetchone()
    if row != (True,):
        raise DatabaseError(
            "The database's schema is not that of this version, and this login does not own it. Bring it up "
            "with the owner's: METERING_DATABASE_URL=<the owner's URL> metering db start (docs/security.md)."
        )


def apply_schema(database: Database, folder: Path = SCHEMA_FOLDER) -> list[str]:
    """Apply the folder's files that the database lacks; their names.

    Raises DatabaseError when an applied file was changed or the database is newer than the folder,
    and psycopg.Error for faulty SQL; what was applied before that stays.
    """
    applied: list[str] = []
    with database.locked() as connection:
        connection.execute(_SCHEMA_RECORD)
    while True:
        with database.locked() as connection:
            missing = _missing_files(connection, folder)
            if not missing:
                return applied
            content = missing[0].read_bytes()
            connection.execute(content)
            connection.execute(
                "insert into catalog.schema_files (file_name, content_sha256, applied_at)"
                " values (%s, %s, now())",
                (missing[0].name, hashlib.sha256(content).hexdigest()),
            )
            applied.append(missing[0].name)


_SCHEMA_RECORD = """
create schema if not exists catalog;
create table if not exists catalog.schema_files (
    file_name text primary key,
    content_sha256 text not null,
    applied_at timestamptz not null
)
"""


def _missing_files(connection: psycopg.Connection, folder: Path) -> list[Path]:
    files = sorted(folder.glob("[0-9]*.sql"))
    recorded: list[tuple[str, str]] = []
    if connection.execute("select to_regclass('catalog.schema_files')").fetchone() != (None,):
        recorded = connection.execute(
            'select file_name, content_sha256 from catalog.schema_files order by file_name collate "C"'
        ).fetchall()
    names = [name for name, _ in recorded]
    expected = [file.name for file in files]
    if names[: len(expected)] == expected and len(names) > len(expected):
        raise DatabaseError(
            f"The database's schema is newer than this version of the pipeline, which has no "
            f"{', '.join(names[len(expected) :])}. Nothing was done. Run the version that brought it up, or a "
            "newer one; back to this one lead only backups from before the upgrade (docs/deploy.md)."
        )
    if names != expected[: len(names)]:
        differing = next(pair for pair in zip(names, expected, strict=False) if pair[0] != pair[1])
        raise DatabaseError(
            f"The database's schema is of another line of versions: where it has {differing[0]}, {folder} has "
            f"{differing[1]}. Nothing was done. New files are numbered after those applied."
        )
    for file, (name, content_sha256) in zip(files, recorded, strict=False):
        if hashlib.sha256(file.read_bytes()).hexdigest() != content_sha256:
            raise DatabaseError(
                f"{name} has changed since it was applied. Put it back as it was and write the "
                "change into a new numbered file. (A database without data worth keeping: drop it.)"
            )
    return files[len(names) :]


def _check_version(connection: psycopg.Connection) -> None:
    if connection.info.server_version < MINIMUM_VERSION:
        raise DatabaseError(
            f"The server is PostgreSQL {connection.info.server_version // 10000}; "
            f"needed is {MINIMUM_VERSION // 10000} or newer."
        )


def settings_in_database(settings: Settings) -> dict[str, str]:
    """The settings that SQL must know, as ``catalog.settings`` holds them."""
    return {
        "lookback_hours": str(settings.lookback_hours),
        "grace_hours": str(settings.grace_hours),
        "settle_minutes": str(settings.settle_minutes),
        "landing_rescan_hours": str(settings.landing_rescan_hours),
        "rejected_days": str(settings.rejected_days),
        "archive_after_days": str(settings.archive_after_days),
        "final_days": str(settings.final_days),
        "approval": settings.approval,
        "provider_usage": settings.provider_usage or "",
        "provider_threshold_percent": str(settings.provider_threshold_percent),
        "provider_gate": settings.provider_gate,
        "first_hour": settings.first_hour.isoformat(),
        "earliest_event_date": settings.earliest_event_date.isoformat(),
        "future_tolerance_minutes": str(settings.future_tolerance_minutes),
    }


GUARDS = ("approval", "provider_gate")
"""Settings that hold invoices back. A shell that lacks one must not take it away in silence."""


def _write_settings(connection: psycopg.Connection, settings: Settings, only_new: bool) -> None:
    wanted = settings_in_database(settings)
    present: dict[str, str] = dict(
        connection.execute("select name, value from catalog.settings").fetchall()
    )
    if not only_new:
        _keep_guards(wanted, present)
    for name, value in wanted.items():
        if name not in present or (present[name] != value and not only_new):
            connection.execute(
                "insert into catalog.settings (name, value) values (%s, %s)"
                " on conflict (name) do update set value = excluded.value",
                (name, value),
            )


def _keep_guards(wanted: Mapping[str, str], present: Mapping[str, str]) -> None:
    by_default = settings_in_database(Settings())
    for name in GUARDS:
        variable = PREFIX + name.upper()
        in_force = present.get(name, wanted[name])
        if variable not in os.environ and wanted[name] == by_default[name] != in_force:
            raise DatabaseError(
                f"{variable} is {in_force} in this database, and not set here. Set it to {in_force}, or to"
                f" {wanted[name]} if invoices shall no longer be held by it."
            )


def _reach(server: EmbeddedServer) -> ServerAddress:
    """The address of the server, which answers and has both databases.

    For a moment after a kill or at a stop, a server seems to be there and does not answer.
    """
    deadline = time.monotonic() + REACH_SECONDS
    while True:
        address = server.start()
        try:
            _make_databases(address)
        except DatabaseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return address


def _make_databases(address: ServerAddress) -> None:
    """The pipeline's own database and Dagster's, if they are not there."""
    wanted = [DATABASE_NAME, DAGSTER_DATABASE_NAME]
    count = "select count(*) from pg_database where datname = any(%s)"
    with Database(address.url("postgres"), "").connect(autocommit=True) as connection:
        if connection.execute(count, (wanted,)).fetchone() == (len(wanted),):
            return
        connection.execute("select pg_advisory_lock(%s)", (LEDGER_LOCK,))
        rows = connection.execute("select datname from pg_database").fetchall()
        for name in wanted:
            if (name,) not in rows:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        # Dagster's record of runs may lose its last moments in a crash: the ledger knows better.
        connection.execute(
            sql.SQL("alter database {} set synchronous_commit = off").format(
                sql.Identifier(DAGSTER_DATABASE_NAME)
            )
        )


def _dagster_url(settings: Settings) -> str | None:
    if settings.dagster_database_url is None:
        return None
    return _sqlalchemy_url(settings.dagster_database_url)


def _sqlalchemy_url(url: str) -> str:
    """The URL as libpq and SQLAlchemy both read it. Raises DatabaseError for another kind."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise DatabaseError(
            "A database's URL begins with postgresql://, as "
            "postgresql://user:password@host:port/database."
        )
    return f"postgresql://{rest}"
