"""A person's payloads are erased: nothing of them is left in the database or comes back, and no figure changes."""

import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from metering_pipeline import settings
from metering_pipeline.cli import cli
from metering_pipeline.erase import Erasure, ErasureError, erase
from metering_pipeline.errors import MeteringError
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.laws import LAWS, evaluate
from metering_pipeline.reconciliation.rebuild import rebuild_ledger
from metering_pipeline.reconciliation.rebuild_landing import rebuild_landing
from metering_pipeline.settings import HOUR, PROJECT_ROOT
from metering_pipeline.transform.rebuild import rebuild_rollups
from tests.conftest import url_of
from tests.scenarios.conftest import Pipeline, Worlds

LANDED = datetime(2026, 1, 5, 10, tzinfo=UTC)
NOW = LANDED + timedelta(hours=3)
ADA = "Ada Lovelace"
REQUESTS = [
    "req-of-ada",
    "twice-of-ada",
    "void-of-ada",
    "gone-of-ada",
    "//gw of-ada",
    "späť/of-ada",
]
"""All that Ada has asked, by the correlation ids."""


def event(request: str, **more: Any) -> dict[str, Any]:
    properties = {"model": "small", "input_tokens": 812, "output_tokens": 40, "user": ADA}
    return {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-05T09:59:59.25Z",
        "correlation_id": request,
        "properties": properties | more.pop("properties", {}),
        **more,
    }


GONE = event("gone-of-ada")
UNTIMED = {**event("späť/of-ada"), "occurred_at": "some day"}
IN_CLOUD = {
    "specversion": "1.0", "subject": "acme", "type": "api.request", "time": "some day", "source": "//gw",
    "id": "of-ada", "data": {"user": ADA},
}  # fmt: skip
CHARLES = "Charles Babbage"


def live(pipeline: Pipeline) -> None:
    """Every table that holds payloads has one of Ada's and one of Charles's."""
    pipeline.set_clock(NOW)
    charles = event("of-charles", properties={"user": CHARLES}, quantity="many")
    first = [
        event("req-of-ada"), event("twice-of-ada"), event("twice-of-ada"),
        event("req-of-ada", properties={"note": ADA}), event("void-of-ada"),
        event("other", properties={"user": CHARLES}), UNTIMED, IN_CLOUD, charles,
    ]  # fmt: skip
    pipeline.drop(LANDED, "a.ndjson", first)
    pipeline.drop(LANDED, "b.ndjson", [GONE, event("stays", properties={"user": "nobody"})])
    pipeline.run(LANDED)
    pipeline.drop(LANDED, "b.ndjson", [event("stays", properties={"user": "nobody"})])
    pipeline.drop(LANDED + HOUR, "c.ndjson", [event("void-of-ada", void=True), event("twice-of-ada")])  # fmt: skip
    pipeline.run(LANDED, LANDED + HOUR)


@pytest.fixture
def lived(pipeline: Pipeline, worlds: Worlds) -> Pipeline:
    worlds("erasing", lambda: live(pipeline))
    pipeline.set_clock(NOW)
    return pipeline


def erased(pipeline: Pipeline, *requests: str, **more: Any) -> Erasure:
    wanted = requests or REQUESTS
    return erase(pipeline.database, settings.load(), "acme", wanted, "dpo", "asked", **more)


def holding(pipeline: Pipeline, words: str = ADA) -> set[str]:
    """The tables in whose rows the words stand, as text or as bytes."""
    found = set()
    with pipeline.database.connect() as connection:
        tables = connection.execute(
            "select relnamespace::regnamespace::text, relname from pg_class"
            " where relkind in ('r', 'p') and not relispartition"
            " and relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"
        ).fetchall()
        for table in tables:
            asked = sql.SQL(
                "select 1 from {} as kept where position(%s in row_to_json(kept)::text) > 0"
                " or position(%s in row_to_json(kept)::text) > 0 limit 1"
            ).format(sql.Identifier(*table))
            if connection.execute(asked, (words, words.encode().hex())).fetchone():
                found.add(".".join(table))
    return found


def figures(pipeline: Pipeline) -> dict[str, list[tuple[Any, ...]]]:
    """All that is counted and charged."""
    tables = (
        "rollups.usage_contributions", "rollups.usage_hourly", "rollups.usage_daily", "rating.rated_lines",
        "rollups.unreadable_values", "rollups.unmetered_events",
    )  # fmt: skip
    return {table: pipeline.rows(f"select * from {table} order by 1, 2, 3, 4, 5") for table in tables}  # fmt: skip


def check_all(pipeline: Pipeline) -> None:
    """Every law holds, and every stage is what the one before it says, row for row."""
    start, end = LANDED - 2 * HOUR, LANDED + 24 * HOUR
    with pipeline.database.connect(autocommit=True) as connection:
        for law in LAWS:
            red = [each for each in evaluate(connection, law, start, end, NOW) if not each.passed]
            assert red == []
    landing = rebuild_landing(pipeline.database, str(pipeline.root), start, end)
    assert (landing.samples, landing.remarks, landing.gone) == ([], [], [])
    assert rebuild_ledger(pipeline.database, None, None, NOW).differing == 0
    rollups = rebuild_rollups(pipeline.database, None, None, keep=False)
    assert rollups is not None
    assert rollups.changes.differing == 0


PAYLOADS = {
    "landing.usage_events", "landing.rejected_events", "ledger.usage_events", "ledger.duplicates",
    "ledger.conflicts", "ledger.voids", "ledger.withdrawn",
}  # fmt: skip


def test_nothing_of_the_payloads_is_left_and_no_figure_changes(lived: Pipeline) -> None:
    assert holding(lived) == PAYLOADS
    before = figures(lived)
    hashes = "select fingerprint, payload_hash, quantity, landed_hour, line_number from ledger.usage_events order by 1"
    hashed = lived.rows(hashes)
    erasure = erased(lived)
    assert erasure.figures == {
        "requests": 6, "landing.usage_events": 8, "landing.rejected_events": 2, "ledger.usage_events": 3,
        "ledger.duplicates": 2, "ledger.conflicts": 1, "ledger.voids": 1, "ledger.withdrawn": 1,
    }  # fmt: skip
    assert holding(lived) == set()
    assert holding(lived, CHARLES) >= {"landing.rejected_events", "ledger.usage_events"}
    assert (figures(lived), lived.rows(hashes)) == (before, hashed)
    check_all(lived)
    counted = (
        "select sum((figures ->> 'erased_payloads')::integer) from reconciliation.current_law_results"
        " where law = 'L3' and tenant_id is null"
    )
    assert lived.rows(counted) == [(7,)], "of current file versions"
    kept = lived.rows(
        "select properties from ledger.usage_events where correlation_id = 'req-of-ada'"
    )
    assert kept == [({"model": "small", "input_tokens": 812, "output_tokens": 40},)]
    recorded = lived.rows("select tenant_id, erased_by, why, figures from landing.erasures")
    assert recorded == [("acme", "dpo", "asked", erasure.figures)]


def test_what_still_holds_them_is_named(lived: Pipeline) -> None:
    erasure = erased(lived)
    folder = f"landed_hour={LANDED:%Y-%m-%dT%H}"
    assert [(each.file_key, each.is_current, each.lines) for each in erasure.holders] == [
        (f"{folder}/a.ndjson", True, [1, 2, 3, 4, 5]),
        (f"{folder}/b.ndjson", False, [1]),
        (f"landed_hour={LANDED + HOUR:%Y-%m-%dT%H}/c.ndjson", True, [1, 2]),
    ]
    assert erasure.not_landed == ["//gw of-ada", "späť/of-ada"]


def test_what_lands_later_is_erased_as_it_lands(lived: Pipeline) -> None:
    """In another file, in a former version that comes back, in a record that is rejected, and as a first copy."""
    erased(lived, *REQUESTS, "later-of-ada")
    b = lived.root / f"landed_hour={LANDED:%Y-%m-%dT%H}" / "b.ndjson"
    b.write_text("".join(json.dumps(each) + "\n" for each in [GONE, UNTIMED, event("more")]))
    again = [event("req-of-ada"), event("twice-of-ada", properties={"note": ADA}), event("later-of-ada")]  # fmt: skip
    lived.drop(LANDED + HOUR, "d.ndjson", again)
    lived.run(LANDED, LANDED + HOUR)
    for table in PAYLOADS - {"landing.usage_events", "ledger.usage_events"}:
        assert table not in holding(lived), table
    ada = "select count(*) from {} where correlation_id <> 'more' and properties::text ~ 'Ada'"
    for table in ("landing.usage_events", "ledger.usage_events"):
        assert lived.rows(ada.format(table)) == [(0,)], table
    assert lived.rows("select count(*) from ledger.usage_events where correlation_id = 'gone-of-ada'") == [(1,)]  # fmt: skip
    copies = "select count(*) from ledger.{} where correlation_id ~ 'of-ada' and file_id = (select max(file_id) from landing.files)"
    assert [lived.rows(copies.format(each)) for each in ("duplicates", "conflicts")] == [[(1,)]] * 2
    check_all(lived)


def test_mending_landing_does_not_bring_them_back(lived: Pipeline) -> None:
    erased(lived)
    lived.execute(
        "delete from landing.usage_events where correlation_id in ('req-of-ada', 'other')"
    )
    lived.execute("delete from landing.rejected_events where raw_line is null")
    mended = rebuild_landing(
        lived.database, str(lived.root), LANDED, LANDED + 2 * HOUR, repair=True
    )
    assert (mended.missing, mended.modified, len(mended.repaired)) == (5, 0, 1)
    lived.run(LANDED)
    assert holding(lived) == set()
    check_all(lived)


def test_a_changed_payload_is_still_found(lived: Pipeline) -> None:
    """That it was erased excuses nothing else."""
    erased(lived)
    lived.execute(
        "update landing.usage_events set erased_payload_hash = md5('x')::uuid"
        " where correlation_id = 'twice-of-ada' and line_number = 3"
    )
    with lived.database.connect(autocommit=True) as connection:
        red = evaluate(connection, "L3", LANDED, LANDED + HOUR, NOW)
    assert {each.tenant_id for each in red if not each.passed} == {None, "acme"}
    landing = rebuild_landing(lived.database, str(lived.root), LANDED, LANDED + HOUR)
    assert [each.differing_columns for each in landing.samples] == [["properties"]]
    ledger = rebuild_ledger(lived.database, None, None, NOW)
    assert {each.table for each in ledger.tables if each.differing} == {"duplicates", "conflicts"}


def test_a_ledger_that_says_something_else_is_not_emptied(lived: Pipeline) -> None:
    lived.execute(
        "update ledger.usage_events set payload_hash = md5('x')::uuid where correlation_id = 'req-of-ada'"
    )
    with pytest.raises(ErasureError, match=r"says something else than what landed in 1 of these.*rebuild --stage ledger"):  # fmt: skip
        erased(lived)
    assert holding(lived) == PAYLOADS
    assert lived.rows("select count(*) from landing.erasures") == [(0,)]


def test_a_killed_erasure_leaves_nothing_behind_and_is_repeated(lived: Pipeline) -> None:
    """It has emptied landing and most of the ledger, and waits for the last table."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            erased(lived)
        except (psycopg.Error, MeteringError) as error:
            failed.append(error)

    with lived.database.connect() as blocker, lived.database.connect(autocommit=True) as killer:
        blocker.execute("lock table ledger.withdrawn")
        eraser = threading.Thread(target=run)
        eraser.start()
        waiting = (
            "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
            " and query ~ 'erase_payloads' and datname = current_database()"
        )
        deadline = time.monotonic() + 30
        while not killer.execute(waiting).fetchall() and time.monotonic() < deadline:
            time.sleep(0.05)
        eraser.join(30)
    assert len(failed) == 1
    assert holding(lived) == PAYLOADS
    assert erased(lived).figures["ledger.withdrawn"] == 1
    assert holding(lived) == set()


# The command


Command = Callable[..., Result]


@contextmanager
def login(
    pipeline: Pipeline, name: str, roles: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Commands are run under a login of these roles."""
    with pipeline.database.connect() as connection:
        connection.execute(
            sql.SQL("create role {} login password {} in role {}").format(
                sql.Identifier(name), sql.Literal(name), sql.SQL(roles)
            )
        )
    monkeypatch.setenv("METERING_DATABASE_URL", url_of(name, pipeline.database.url))
    yield
    with pipeline.database.connect() as connection:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def command(lived: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """metering erase, under a login that may erase and otherwise look."""

    def run(*arguments: str) -> Result:
        usual = ("--tenant", "acme", "--by", "dpo", "--why", "asked")
        return CliRunner().invoke(cli, ["erase", *usual, *arguments])

    with login(lived, "dpo_login", "metering_erase", monkeypatch):
        yield run


def test_the_pages_commands_and_queries_run(
    lived: Pipeline, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (PROJECT_ROOT / "docs" / "retention.md").read_text()
    monkeypatch.chdir(tmp_path)
    Path("requests.txt").write_text("\n".join(REQUESTS) + "\n\n")
    _, commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    shown, one, all_of_them = (
        command(*shlex.split(line)[2:]).output for line in commands.splitlines()
    )
    assert "Would be erased: the payloads of 2 rows of landing.usage_events" in shown
    assert "Erased: the payloads of 2 rows of landing.usage_events" in one
    assert (
        "Erased: the payloads of 6 rows of landing.usage_events, 2 rows of landing.rej"
        in all_of_them
    )
    assert "what lands of them is erased then: //gw of-ada, späť/of-ada" in all_of_them
    assert "a.ndjson line 1, 2, 3, 4, 5" in all_of_them
    assert "b.ndjson (a former version) line 1" in all_of_them
    assert holding(lived) == set()
    asked, recorded, held, role = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(lived.rows(asked)) == 1  # nothing is archived: it refuses nothing
    assert [(each[1:3], each[4]) for each in lived.rows(recorded)] == [
        (("acme", "dpo"), "request 2026-17")
    ] * 2
    assert [request for _, _, request, is_current in lived.rows(held) if not is_current] == [
        "gone-of-ada"
    ]
    with lived.database.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute(role.encode())


def test_what_was_erased_before_is_left_alone(lived: Pipeline, command: Command) -> None:
    for says in ("Erased: the payloads of 2 rows", "All of it was erased before: nothing was changed."):  # fmt: skip
        assert says in command("--correlation-id", "req-of-ada").output
    assert lived.rows("select count(*) from landing.erasures") == [(1,)]
    explained = CliRunner().invoke(cli, ["explain", "--tenant", "acme", "--event", "req-of-ada"])
    assert "Its payload was erased on 2026-01-05 by dpo (asked)" in explained.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Whose payloads?"),
        (["--correlation-id", "req-of-adam"], "Nothing of tenant 'acme' has landed with this correlation id"),
        (["--correlation-id", "req-of-ada", "--why", " "], "why must not be empty"),
        (["--from-file", "/nowhere"], "does not exist"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_erased_is_named(
    lived: Pipeline, command: Command, arguments: list[str], message: str
) -> None:
    refused = command(*arguments)
    assert refused.exit_code != 0
    assert message in refused.output + str(refused.exception)
    assert lived.rows("select count(*) from landing.erased_requests") == [(0,)]


def test_the_pipeline_itself_may_not_erase(lived: Pipeline) -> None:
    refused = CliRunner().invoke(
        cli,
        ["erase", "--tenant", "acme", "--correlation-id", "x", "--by", "me", "--why", "curious"],
    )
    assert "metering_erase erases payloads" in str(refused.exception)


# Rejected records


def test_old_bytes_of_rejected_records_go(lived: Pipeline) -> None:
    """After METERING_REJECTED_DAYS only file, line and reason are left."""
    kept = "select reason, raw_line is null from landing.rejected_events order by line_number"
    reasons = ["invalid_time", "invalid_time", "invalid_number"]
    assert lived.rows(kept) == [(reason, False) for reason in reasons]
    lived.set_clock(NOW + timedelta(days=30))
    lived.run(LANDED + 2 * HOUR)
    assert not any(is_gone for _, is_gone in lived.rows(kept)), "the last instant"
    lived.set_clock(NOW + timedelta(days=30, seconds=1))
    lived.run(LANDED + 2 * HOUR)
    assert lived.rows(kept) == [(reason, True) for reason in reasons]
    check_all(lived)


def test_a_clock_ahead_does_not_empty_new_records(lived: Pipeline) -> None:
    lived.execute("update landing.files set landed_at = now()")
    with lived.database.connect() as connection:
        asked = "select landing.expire_rejected(now() + interval '1 year')"
        assert connection.execute(asked).fetchone() == (0,)


WRITTEN = {
    '{"correlation_id":"a/\\"ž🙂-42"': True,
    '{"correlation_id":"a\\/\\"ž🙂-42"': True,
    '{"correlation_id":"a/\\"\\u017E\\uD83D\\uDE42-42"': True,
    '{"correlation_id":"a/\\"\\u017e\\ud83d\\ude42-42"': True,
    'x,"a/""ž🙂-42",y': True,
    '{"correlation_id":"a/\\"ž🙂-4"': False,
    '{"tenant_id":"acme","correlation_id":"7"': True,
    '{"tenant_id":"other","correlation_id":"7"': False,
    '{"subject":"acme","source":"gw","id":"31-415926"': True,
    '{"subject":"other","source":"gw","id":"31-415926"': False,
}
"""Torn lines, and whether one of the ids below is in them: of short ids and CloudEvents only with the tenant."""


def test_an_id_is_found_however_it_is_written(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(
            "insert into landing.erasures values (default, 'acme', 'w', 'b', now(), '{}')"
        )
        connection.execute(
            "insert into landing.erased_requests select 'acme', id, erasure_id"
            " from landing.erasures, unnest(%s::text[]) as id",
            (['a/"ž🙂-42', "7", "gw 31-415926"],),
        )
        connection.execute(
            "insert into landing.files (file_key, landed_hour, content_sha256, size_bytes, accepted_count,"
            " rejected_count, earliest_event_date, future_tolerance_minutes, landed_at, modified_at)"
            " values ('f', %s, 'x', 1, 0, 1, '2020-01-01', 60, now(), now())",
            (LANDED,),
        )
        for number, line in enumerate(WRITTEN):
            connection.execute(
                "insert into landing.rejected_events select %s, file_id, %s, 'invalid_json', 'torn', %s"
                " from landing.files",
                (LANDED, number, line.encode()),
            )
        asked = "select line_number from landing.rejected_of_erased('-infinity', 'infinity')"
        found = {number for (number,) in connection.execute(asked)}
    assert [number in found for number in range(len(WRITTEN))] == [*WRITTEN.values()]
