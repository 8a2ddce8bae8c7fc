"""Payloads erased on somebody's behalf: what ``metering erase`` does and prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from rich.console import Console

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError, require_texts
from metering_pipeline.landing.archives import Archives, Stage
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.progress import step
from metering_pipeline.settings import Settings

TABLES = (
    "landing.usage_events", "landing.rejected_events", "ledger.usage_events", "ledger.duplicates",
    "ledger.conflicts", "ledger.voids", "ledger.withdrawn",
)  # fmt: skip
"""The tables that hold payloads."""

SHOWN = 20
"""Files whose lines are shown, and requests that have not landed."""


class ErasureError(MeteringError):
    """Nothing was erased; the message says why and what to do."""


@dataclass(frozen=True)
class Holder:
    """A file version of the landing root that has records of the requests, and in which lines: it is not changed."""

    file_key: str
    is_current: bool
    lines: list[int]


@dataclass(frozen=True)
class Erasure:
    """What an erasure came to.

    Figures: requests that were not erased before, and rows by table that lost something. Not landed: requests of
    which there is no record yet; what lands of them is erased as it lands. Attached: days that were archived.
    """

    figures: Mapping[str, int]
    holders: list[Holder]
    not_landed: list[str]
    attached: list[date]

    @property
    def is_new(self) -> bool:
        return any(self.figures.values())


def erase(
    database: Database,
    configured: Settings,
    tenant_id: str,
    requests: Sequence[str],
    by: str,
    why: str,
    keep: bool = True,
) -> Erasure:
    """Erase the payloads of a tenant's requests, given by their correlation ids, wherever the database has them.

    One transaction under the pipeline's locks; without ``keep`` it is undone. Archived days that have records of the
    requests are attached before. Where all was erased before nothing more is recorded. Raises ErasureError where
    none of the requests has landed, or where the ledger says something else than landing; ArchiveError.
    """
    require_texts(by=by, why=why)
    wanted = list(dict.fromkeys(requests))
    now = configured.now()
    attached = _attach(Archives(database, configured), tenant_id, wanted, now)
    with database.connect() as connection:
        connection.execute("set role metering_erase")
        figures = _erase(connection, tenant_id, wanted, by, why, now)
        holders, landed = _landed(connection, tenant_id, wanted)
        erasure = Erasure(
            figures, holders, [each for each in wanted if each not in landed], attached
        )
        if not landed and not figures["landing.rejected_events"]:
            raise ErasureError(
                f"Nothing of tenant {tenant_id!r} has landed with "
                f"{'this correlation id' if len(wanted) == 1 else 'any of these correlation ids'}: nothing was "
                "erased or recorded. Compare them with tenant_id and correlation_id of ledger.usage_events."
            )
        if not keep or not erasure.is_new:
            connection.rollback()
    return erasure


def _erase(
    connection: psycopg.Connection,
    tenant_id: str,
    requests: list[str],
    by: str,
    why: str,
    now: datetime,
) -> Mapping[str, int]:
    try:
        [(figures,)] = connection.execute(
            "select landing.erase_payloads(%s, %s, %s, %s, %s)", (tenant_id, requests, why, by, now)
        ).fetchall()
    except psycopg.errors.RaiseException as error:
        raise ErasureError(
            f"Nothing was erased: {error.diag.message_primary}. Mend it first (metering rebuild --stage ledger "
            "--repair): once the payloads are gone nobody can tell any more which is right."
        ) from None
    return dict(figures)


def _attach(archives: Archives, tenant_id: str, requests: list[str], now: datetime) -> list[date]:
    """The archived days of landing with records of the requests: they are in the database now and in no file, and
    with them the days of the ledger that have any."""
    days = [
        each.day
        for each in archives.in_force()
        if each.stage == Stage.LANDING and archives.records(each, tenant_id, requests)
    ]
    if days:
        archives.attach(days, now, Stage.LANDING)
    archives.remove_loose()
    return days


def _landed(
    connection: psycopg.Connection, tenant_id: str, requests: list[str]
) -> tuple[list[Holder], set[str]]:
    """The file versions with records of the requests, and those requests that have any."""
    found = connection.execute(
        """
        select
            files.file_key,
            files.superseded_by is null,
            array_agg(events.line_number order by events.line_number),
            array_agg(distinct events.correlation_id)
        from landing.usage_events as events
        inner join landing.files on events.file_id = files.file_id
        where events.tenant_id = %s and events.correlation_id = any(%s)
        group by files.file_id
        order by files.landed_hour, files.file_key, files.file_id
        """,
        (tenant_id, requests),
    ).fetchall()
    return (
        [Holder(key, is_current, lines) for key, is_current, lines, _ in found],
        {request for *_, landed in found for request in landed},
    )


def erase_and_print(
    console: Console, tenant_id: str, requests: Sequence[str], by: str, why: str, keep: bool
) -> None:
    """Erase, and print what was taken out, and where the payloads are still."""

    def say_plainly(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    configured = settings.load()
    database = open_database(configured, reading=True)
    with step(console, "Payloads erased" if keep else "Payloads erased, and that undone") as say:
        erasure = erase(database, configured, tenant_id, requests, by, why, keep)
        say(f"{erasure.figures['requests']:,} requests")
    if erasure.is_new:
        rows = ", ".join(
            f"{count:,} {'row' if count == 1 else 'rows'} of {table}"
            for table, count in ((table, erasure.figures[table]) for table in TABLES)
            if count
        )
        say_plainly(
            f"{'Erased' if keep else 'Would be erased'}: the payloads of {rows or 'no row'}."
        )
        say_plainly("Hashes, quantities and what metrics read are kept: no figure changes.")
    else:
        say_plainly("All of it was erased before: nothing was changed.")
    if erasure.attached:
        say_plainly(
            f"Attached for it, and archived again by metering archive write: {_some(erasure.attached, 'days')}."
        )
    if erasure.not_landed:
        say_plainly(
            "No event of these has landed; what lands of them is erased then: "
            f"{_some(erasure.not_landed, 'requests')}."
        )
    if erasure.holders:
        say_plainly(
            "Not erased: the landing root's files, which are yours. They hold these records:"
        )
        for each in erasure.holders[:SHOWN]:
            former = "" if each.is_current else " (a former version)"
            say_plainly(f"  {each.file_key}{former} line {_some(each.lines, 'lines')}")
        if len(erasure.holders) > SHOWN:
            say_plainly(f"  and {len(erasure.holders) - SHOWN:,} files more (docs/retention.md)")


def _some(items: Sequence[object], what: str) -> str:
    more = f" and {len(items) - SHOWN:,} {what} more" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more
