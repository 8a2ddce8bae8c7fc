"""Old days of landing go to Parquet and come back, row for row; no law, no figure and no event is lost by it."""

import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from metering_pipeline import settings
from metering_pipeline.archive import archive_day
from metering_pipeline.cli import cli
from metering_pipeline.dry_run import dry_run
from metering_pipeline.errors import ArchivedError, MeteringError
from metering_pipeline.landing.archives import Archive, ArchiveError, Archives, Stage
from metering_pipeline.partitions import Window
from metering_pipeline.reconciliation.rebuild import rebuild_ledger
from metering_pipeline.settings import HOUR, PROJECT_ROOT
from tests.scenarios.conftest import Pipeline, Worlds
from tests.scenarios.test_erasing import (
    ADA,
    LANDED,
    NOW,
    REQUESTS,
    check_all,
    erased,
    event,
    figures,
    holding,
    live,
    login,
)

DAY = LANDED.date()
LATER = NOW + timedelta(days=31)
ROWS = "select *, events::text from landing.usage_events as events order by landed_hour, file_id, line_number"
FOUND_IN_DATABASE = "select count(*) from landing.usage_events"


@pytest.fixture
def lived(
    pipeline: Pipeline, worlds: Worlds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Pipeline:
    """Some usage of one day, landed a month ago."""
    worlds("erasing", lambda: live(pipeline))
    monkeypatch.setenv("METERING_ARCHIVE_AFTER_DAYS", "30")
    monkeypatch.setenv("METERING_ARCHIVE_URL", str(tmp_path / "archive"))
    pipeline.execute("insert into catalog.settings values ('archive_after_days', '30') on conflict (name) do update set value = '30'")  # fmt: skip
    pipeline.set_clock(LATER)
    return pipeline


def archives(pipeline: Pipeline) -> Archives:
    return Archives(pipeline.database, settings.load())


def archived(pipeline: Pipeline) -> Archive:
    return archive_day(pipeline.database, archives(pipeline), Stage.LANDING, DAY, LATER)


def files(pipeline: Pipeline) -> list[Path]:
    root = Path(settings.load().archive_root)
    return sorted(path for path in root.rglob("*") if path.is_file())


def ledger_of(pipeline: Pipeline) -> list[list[tuple[Any, ...]]]:
    tables = ("usage_events", "duplicates", "conflicts", "voids", "withdrawn", "pending")
    return [pipeline.rows(f"select * from ledger.{each} order by 1, 2, 3, 4, 5") for each in tables]


def test_a_day_goes_and_comes_back_row_for_row(lived: Pipeline) -> None:
    lived.execute("update landing.usage_events set quantity = 1.000 where correlation_id = 'other'")
    lived.execute("update landing.usage_events set erased_payload_hash = md5('x')::uuid, properties = '{}' where correlation_id = 'gone-of-ada'")  # fmt: skip
    before, usage = lived.rows(ROWS), figures(lived)
    archive = archived(lived)
    assert (archive.row_count, len(before)) == (11, 11)
    assert lived.rows(FOUND_IN_DATABASE) == [(0,)]
    (file,) = files(lived)
    assert pq.read_table(file).num_rows == 11
    assert figures(lived) == usage
    archives(lived).attach([DAY], LATER)
    assert lived.rows(ROWS) == before
    assert files(lived) == []
    assert lived.rows("select day, attached_at is null from catalog.archives") == [(DAY, False)]
    assert lived.rows("select * from catalog.loose_archive_files") == []
    privileges = (
        "select has_table_privilege('metering_landing', 'landing.usage_events_20260105', 'insert')"
    )
    assert lived.rows(privileges) == [(False,)]


def test_what_is_kept_is_proved_and_the_rest_stays_proved(lived: Pipeline) -> None:
    proofs = "select count(*), bool_and(passed) from reconciliation.current_law_results where law in ('L1', 'L2', 'L3')"
    archived(lived)
    [(count, passed)] = lived.rows(proofs)
    assert passed
    lived.run_job("nightly")
    assert lived.rows(proofs)[0][0] >= count
    assert lived.rows(proofs)[0][1]
    check_all(lived)
    compared = rebuild_ledger(lived.database, None, None, LATER)
    assert (compared.days, compared.archived_days) == (0, 1)
    assert rebuild_ledger(lived.database, LANDED, LANDED + HOUR, LATER).archived_days == 1
    from metering_pipeline.transform.dbt import run_dbt

    run_dbt(lived.database, "run", ["files_to_landing", "landing_to_ledger", "copies_to_ledger", "landing_differences"])  # fmt: skip
    for view in ("files_to_landing", "landing_to_ledger", "copies_to_ledger", "landing_differences('2026-01-05T10:00Z')"):  # fmt: skip
        assert lived.rows(f"select * from reconciliation.{view}") == [], view
    lived.run_job("weekly")
    assert lived.rows("select * from reconciliation.rebuilt_days where day = %s", DAY) == []


def test_what_lands_on_an_archived_day_brings_it_back(lived: Pipeline) -> None:
    """Its events stay counted once: the ledger had them all the time."""
    archived(lived)
    ledger = ledger_of(lived)
    lived.run(LANDED, LANDED + HOUR)
    assert lived.rows(FOUND_IN_DATABASE) == [(0,)], "nothing new has come"
    assert ledger_of(lived) == ledger
    lived.drop(LANDED + 40 * 24 * HOUR, "copy.ndjson", [event("req-of-ada")])
    lived.set_clock(LANDED + 41 * 24 * HOUR)
    lived.run(LANDED + 40 * 24 * HOUR)
    assert lived.rows(FOUND_IN_DATABASE) == [(1,)], "another day's file needs nothing of it"
    lived.drop(LANDED, "b.ndjson", [event("stays", properties={"user": "nobody"}), event("void-of-ada")])  # fmt: skip
    lived.drop(LANDED + 2 * HOUR, "late.ndjson", [event("req-of-ada"), event("late")])
    with pytest.raises(
        ArchiveError, match="metering archive attach --stage landing 2026-01-05 first"
    ):
        dry_run(lived.database, settings.load(), Window(LANDED, LANDED + 3 * HOUR))
    assert lived.rows(FOUND_IN_DATABASE) == [(1,)]
    lived.run(LANDED, LANDED + 2 * HOUR)
    assert lived.rows(FOUND_IN_DATABASE) == [(1 + 11 + 2 + 2,)]
    counted = "select correlation_id, count(*) from ledger.usage_events group by 1 order by 1"
    once = ["late", "other", "req-of-ada", "stays", "twice-of-ada", "void-of-ada"]
    assert lived.rows(counted) == [(each, 1) for each in once]
    check_all(lived)


REFUSED = {
    "not older": "update catalog.settings set value = '32' where name = 'archive_after_days'",
    "not sealed": "update landing.hours set sealed = false where landed_hour = '2026-01-05T10:00Z'",
    "not posted": "update landing.hours set posted_at = null where landed_hour = '2026-01-05T11:00Z'",
    "owe usage": "insert into ledger.pending values ('2026-01-05T10:00Z', 'acme', 'api.request', '2026-01-05T09:00Z')",
    "a law fails": "delete from ledger.duplicates where ctid = (select min(ctid) from ledger.duplicates)",
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_a_day_that_must_stay_is_refused(lived: Pipeline, why: str) -> None:
    assert lived.execute(REFUSED[why]) == 1
    with pytest.raises(ArchiveError, match=f"2026-01-05 was not archived: .*{why}"):
        archived(lived)
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]
    assert files(lived) == [], "nothing is left of it where erasing would not look"


def test_a_day_that_changes_meanwhile_is_refused(lived: Pipeline) -> None:
    written = archives(lived).write(Stage.LANDING, DAY)
    lived.execute("update landing.usage_events set quantity = 1.0 where correlation_id = 'other'")
    with (
        pytest.raises(ArchiveError, match="its rows have changed"),
        lived.database.locked() as connection,
    ):
        archives(lived).take_out(connection, written, LATER)
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]


# Cut off


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except (psycopg.Error, MeteringError) as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failed


def waiting(pipeline: Pipeline, statement: str) -> int:
    """The session that waits for a lock in a statement, once there is one."""
    asked = (
        "select pid from pg_stat_activity where wait_event_type = 'Lock'"
        " and datname = current_database() and position(%s in query) > 0"
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := pipeline.rows(asked, statement):
            return int(found[0][0])
        time.sleep(0.05)
    raise AssertionError(f"nobody waits in {statement}")


def kill(pipeline: Pipeline, statement: str) -> None:
    """End the session that waits for a lock in a statement."""
    pipeline.rows("select pg_terminate_backend(%s)", waiting(pipeline, statement))


def test_a_killed_archiving_leaves_the_day_where_it_was(lived: Pipeline) -> None:
    """Once after the file was written, once when the partition is taken out."""
    archives(lived).write(Stage.LANDING, DAY)
    with lived.database.connect() as reader:
        reader.execute("select 1 from landing.usage_events limit 1")
        thread, failed = in_thread(lambda: archived(lived))
        kill(lived, "catalog.archive_day")
        thread.join(30)
    assert len(failed) == 1
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]
    assert lived.rows("select * from catalog.archives") == []
    assert len(files(lived)) == 1
    erased(lived)
    assert files(lived) == [], "it is known, and was not to stay"
    archived(lived)
    assert len(files(lived)) == 1


def test_who_reads_is_waited_for(lived: Pipeline) -> None:
    """The pipeline's locks are given back meanwhile: landing may be waiting for one."""
    with lived.database.connect() as reader:
        reader.execute("select 1 from landing.usage_events limit 1")
        thread, failed = in_thread(lambda: archived(lived))
        waiting(lived, "catalog.archive_day")
        with lived.database.connect() as other:
            other.execute("set lock_timeout = '20s'")
            other.execute("select pg_advisory_xact_lock(7304211)")
        assert thread.is_alive()
        reader.rollback()
        thread.join(30)
    assert failed == []
    assert lived.rows(FOUND_IN_DATABASE) == [(0,)]


def test_a_killed_attaching_leaves_the_day_archived(lived: Pipeline) -> None:
    archived(lived)
    with lived.database.connect() as blocker:
        blocker.execute("lock table landing.usage_events in share update exclusive mode")
        thread, failed = in_thread(lambda: archives(lived).attach([DAY], LATER))
        kill(lived, "catalog.attach_archived_day")
        thread.join(30)
    assert len(failed) == 1
    assert [each.day for each in archives(lived).in_force()] == [DAY]
    assert [each.row_count for each in archives(lived).attach([DAY], LATER)] == [11]
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]


def test_a_file_that_was_left_over_goes_with_the_next_work(
    lived: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived(lived)
    with monkeypatch.context() as cut_off:
        cut_off.setattr(Archives, "remove_loose", lambda self, wait: None)
        archives(lived).attach([DAY], LATER)
    assert len(files(lived)) == 1
    erased(lived)
    assert files(lived) == []


def test_a_file_that_was_changed_is_not_attached(lived: Pipeline) -> None:
    archived(lived)
    (file,) = files(lived)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    with pytest.raises(ArchiveError, match="has not the SHA-256 that was recorded"):
        archives(lived).attach([DAY], LATER)
    file.unlink()
    with pytest.raises(ArchiveError, match="cannot be read or written: check METERING_ARCHIVE_URL"):
        archives(lived).attach([DAY], LATER)
    file.write_bytes(content)
    archives(lived).attach([DAY], LATER)
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]


def test_rows_that_were_not_archived_are_not_attached(lived: Pipeline) -> None:
    archived(lived)
    lived.execute("update catalog.archives set content_digest = content_digest + 1")
    with pytest.raises(ArchiveError, match="its rows are not those that were archived"):
        archives(lived).attach([DAY], LATER)
    assert lived.rows(FOUND_IN_DATABASE) == [(0,)]
    assert len(files(lived)) == 1


# Erased in archives too


def test_erasing_reaches_archives(lived: Pipeline) -> None:
    archived(lived)
    assert erased(lived, *REQUESTS).attached == [DAY]
    assert holding(lived) == set()
    archived(lived)
    (file,) = files(lived)
    assert ADA not in str(pq.read_table(file).to_pylist())
    assert erased(lived, "req-of-ada").attached == [DAY], "to see that nothing more is to be erased"
    check_all(lived)


def test_who_erases_may_attach_for_it(lived: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    archived(lived)
    with login(lived, "eraser", "metering_erase", monkeypatch):
        who = ("--by", "dpo", "--why", "asked")
        done = CliRunner().invoke(cli, ["erase", "--tenant", "acme", "--correlation-id", "req-of-ada", *who])  # fmt: skip
        assert "Attached for it, and archived again by metering archive write: 2026-01-05." in done.output  # fmt: skip
    assert files(lived) == []


def test_an_archive_without_them_stays(lived: Pipeline) -> None:
    archived(lived)
    lived.drop(LANDED + 40 * 24 * HOUR, "copy.ndjson", [event("of-another-day")])
    lived.set_clock(LANDED + 41 * 24 * HOUR)
    lived.run(LANDED + 40 * 24 * HOUR)
    assert erased(lived, "of-another-day").attached == []
    assert len(files(lived)) == 1


# The command


@pytest.fixture
def command(lived: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """metering, under a login that may archive and otherwise lands."""
    with login(lived, "keeper", "metering_archive, metering_pipeline", monkeypatch):
        yield lambda *arguments: CliRunner().invoke(cli, arguments)


def test_the_pages_commands_run(lived: Pipeline, command: Callable[..., Result]) -> None:
    page = (PROJECT_ROOT / "docs" / "retention.md").read_text()
    (block,) = (each for each in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "metering archive" in each)  # fmt: skip
    lines = [shlex.split(line.split("#")[0])[1:] for line in block.splitlines()]
    wrote, listed, attached = (command(*line) for line in lines)
    assert (wrote.exit_code, listed.exit_code, attached.exit_code) == (0, 0, 0), wrote.output
    assert "Archived: 1 of 1 days of landing." in wrote.output
    assert "Ledger of 2026-01-05 stays: a draft that is not issued charges for it." in wrote.output
    assert "Archived: 0 of 1 days of ledger." in wrote.output
    assert re.search(r"2026-01-05 +landing +11 rows +[\d,]+ bytes  landing/usage_events/2026-01-05-", listed.output)  # fmt: skip
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]
    assert "Archived days: 0." in command("archive", "list").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["archive", "attach", "2026-01-06"], "2026-01-06 is not archived. metering archive list"),
        (["archive", "attach", "yesterday"], "write a date as 2026-01-31"),
        (["archive", "attach"], "Missing argument"),
    ],
)
def test_what_cannot_be_attached_is_named(
    command: Callable[..., Result], arguments: list[str], message: str
) -> None:
    refused = command(*arguments)
    assert refused.exit_code != 0
    assert message in refused.output + str(refused.exception)


def test_nothing_is_archived_unless_it_is_set(
    lived: Pipeline, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METERING_ARCHIVE_AFTER_DAYS")
    assert "METERING_ARCHIVE_AFTER_DAYS is 0: nothing is archived." in command("archive", "write").output  # fmt: skip
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]


def test_the_pipeline_itself_takes_nothing_out(
    lived: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = CliRunner().invoke(cli, ["archive", "write"])
    assert "metering_archive archives" in str(refused.exception)
    assert lived.rows(FOUND_IN_DATABASE) == [(11,)]


def test_no_partition_takes_an_archived_days_place(lived: Pipeline) -> None:
    archived(lived)
    make: Any = "select catalog.ensure_day_partitions('landing', 'usage_events', %s)"
    with (
        lived.database.connect() as connection,
        pytest.raises(ArchivedError, match="metering archive attach --stage landing 2026-01-05"),
    ):
        connection.execute(make, ([DAY, date(2026, 1, 7)],))
