"""The sensor that watches, on real runs and Dagster's own record, and the runbooks: each trouble is made, and mended
by the page's own commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.errors import MeteringError
from metering_pipeline.settings import HOUR, PROJECT_ROOT
from tests.scenarios.conftest import Pipeline, Worlds

RUNBOOKS = PROJECT_ROOT / "docs" / "runbooks"
FIRST = datetime(2026, 1, 31, 5, tzinfo=UTC)
"""The hour that was run; the pages say that the next one was missed."""
NOW = datetime(2026, 1, 31, 10, 20, tzinfo=UTC)
EVENT = {
    "tenant_id": "acme",
    "event_type": "api.request",
    "occurred_at": "2026-01-31T04:59:59Z",
    "properties": {"model": "small", "input_tokens": 8, "output_tokens": 4},
}
WATCH = ("not_watched", "automation_off")
"""What a test without a daemon always finds."""


@pytest.fixture(scope="module")
def record(server: EmbeddedServer) -> Iterator[str]:
    """The URL of a database for Dagster's own record: an ephemeral one has no ticks."""
    url = server.start().url("dagster_watch")
    with psycopg.connect(server.start().url("postgres"), autocommit=True) as connection:
        connection.execute("create database dagster_watch")
        yield url
        connection.execute("drop database dagster_watch with (force)")


@pytest.fixture
def stalled(
    pipeline: Pipeline, record: str, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """One hour was run when it had closed; four hours later nothing more was, and files wait."""
    from metering_pipeline.execution import dagster_instance

    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", record)
    monkeypatch.setenv("METERING_FIRST_HOUR", "2026-01-29T00")

    def make() -> None:
        pipeline.drop(FIRST, "a.ndjson", [EVENT | {"correlation_id": "first"}])
        pipeline.set_clock(FIRST + HOUR + timedelta(minutes=12))
        pipeline.run(FIRST)
        for hour in range(1, 5):
            pipeline.drop(FIRST + hour * HOUR, "a.ndjson", [EVENT | {"correlation_id": f"{hour}"}])

    worlds("stalled", make)
    pipeline.set_clock(NOW)
    with dagster_instance() as instance:
        instance.wipe()
        yield replace(pipeline, instance=instance)


def look(pipeline: Pipeline) -> dg.SensorResult | dg.SkipReason:
    from metering_pipeline.definitions import defs
    from metering_pipeline.sensors import watch

    context = dg.build_sensor_context(
        instance=pipeline.instance, repository_def=defs.get_repository_def()
    )
    result = watch(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def wrong(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """The grave troubles that stand, as kept."""
    return pipeline.rows(
        """
        select kind, subject
        from reconciliation.troubles
        where ended_at is null and grave_at <= (select looked_at from reconciliation.watch) and kind <> all (%s)
        order by kind, subject
        """,
        list(WATCH),
    )


def command(line: str) -> str:
    """What a command prints; it must succeed."""
    outcome = CliRunner().invoke(cli, shlex.split(line, comments=True)[1:])
    assert outcome.exit_code == 0, (line, outcome.output, outcome.exception)
    return outcome.output


def follow(name: str, pipeline: Pipeline) -> None:
    """Run every command and every query of a runbook, in order."""
    page = (RUNBOOKS / f"{name}.md").read_text()
    steps = re.findall(r"^ *```(sh|sql)\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    assert steps
    for language, text in steps:
        if language == "sql":
            pipeline.rows(text.replace("%", "%%"))
            continue
        for line in text.splitlines():
            command(line.strip())


def said() -> str:
    return " ".join(command("metering status").split())


def noticed(name: str, kind: str) -> re.Pattern[str]:
    """The line by which the runbook says that its trouble is noticed; its figures and the run's id are an example."""
    page = (RUNBOOKS / f"{name}.md").read_text()
    (line,) = re.findall(rf"^{kind} .*$", page, re.MULTILINE)
    text = re.sub(r"\([0-9a-f]{8}\)", "(0)", line)
    return re.compile(re.sub(r"\d[\d,.]*", r"[0-9a-f,.]+", re.escape(text)))


def test_a_schedule_that_missed(stalled: Pipeline) -> None:
    missed = "schedule_missed every_hour: no landing hour after 2026-01-31T05 was run"
    assert missed in said()
    assert noticed("schedule-missed", "schedule_missed").search(said())
    result = look(stalled)
    assert isinstance(result, dg.SensorResult)
    (event,) = result.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.passed, event.check_name) == (False, "nothing_is_wrong")
    assert missed in str(event.description)
    assert wrong(stalled) == [("schedule_missed", "every_hour")]
    assert isinstance(look(stalled), dg.SkipReason), "nothing has changed"

    follow("schedule-missed", stalled)
    assert "schedule_missed" not in said()
    look(stalled)
    assert wrong(stalled) == []
    assert stalled.rows("select count(*) from ledger.usage_events") == [(5,)]
    costs = stalled.rows(
        "select distinct stage from reconciliation.step_costs where succeeded and seconds > 0 and cpu_seconds > 0 order by 1"
    )
    stages = ["invoices", "landing", "ledger", "rating", "reconciliation", "rollups"]
    assert [stage for (stage,) in costs] == stages


def test_a_run_that_failed(stalled: Pipeline) -> None:
    """Of one hour, while others succeed: it is told until that hour is run."""
    from metering_pipeline.execution import run_hours

    hour = FIRST + 3 * HOUR
    stalled.run(FIRST + HOUR, hour - HOUR)
    stalled.execute(
        "alter table landing.usage_events add constraint broken check (correlation_id <> '3')"
    )
    with pytest.raises(MeteringError):
        run_hours(stalled.instance, hour, hour)
    stalled.run(FIRST + 4 * HOUR)
    look(stalled)
    assert wrong(stalled) == [("hour_not_sealed", "landing.hours"), ("run_failed", "hourly")]
    assert stalled.rows(
        "select detail ~ '2026-01-31T08' from reconciliation.troubles where kind = 'run_failed'"
    ) == [(True,)]
    assert noticed("sensor-failed", "run_failed").search(said())
    failed = "select stage, succeeded from reconciliation.step_costs where not succeeded"
    assert stalled.rows(failed) == [("landing", False)]

    stalled.execute("alter table landing.usage_events drop constraint broken")
    follow("sensor-failed", stalled)
    look(stalled)
    assert wrong(stalled) == []


def test_a_check_that_fails(stalled: Pipeline) -> None:
    """As an error, a draft that somebody edited; it is told until the check is well."""
    line = "update invoices.draft_invoice_lines set quantity = quantity + 1, amount = amount + 1"
    assert stalled.execute(line) > 0
    with pytest.raises(MeteringError):
        stalled.run(FIRST + HOUR)
    look(stalled)
    check = "invoices/draft_invoices draft_invoices_are_the_sum_of_their_lines"
    assert ("check_failed", check) in wrong(stalled)


def test_a_disk_nearly_full(stalled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_DISK_FREE_PERCENT", "100")
    look(stalled)
    assert ("disk_full", "home") in wrong(stalled)
    assert noticed("disk-full", "disk_full").search(said())
    follow("disk-full", stalled)
    monkeypatch.delenv("METERING_DISK_FREE_PERCENT")
    look(stalled)
    assert wrong(stalled) == []


def test_a_queue_that_grows_and_invoices_that_are_held(
    stalled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that nobody works off, for three hours; the page's run works it off."""
    stalled.execute(
        "insert into ledger.pending values ('2026-01-31 05:00Z', 'acme', 'api.request', '2026-01-31 04:00Z')"
    )
    look(stalled)
    assert ("queue_growing", "ledger.pending") not in wrong(stalled)
    stalled.set_clock(NOW + 3 * HOUR)
    look(stalled)
    assert ("queue_growing", "ledger.pending") in wrong(stalled)
    assert "queue_growing ledger.pending: 1 rows" in said()
    assert noticed("queue-growing", "queue_growing").search(said())
    follow("queue-growing", stalled)
    assert "queue_growing" not in said()
    look(stalled)
    assert ("queue_growing", "ledger.pending") not in wrong(stalled)


def test_the_page_about_watching(
    stalled: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands and queries run; what is served the tests of PostgreSQL try."""
    monkeypatch.chdir(tmp_path)
    page = (PROJECT_ROOT / "docs" / "watch.md").read_text()
    shell, _ = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for line in shell.splitlines() if "--serve" not in line]
    *_, metrics = [command(line) for line in lines]
    assert "metering_run_until_timestamp_seconds" in metrics
    assert (tmp_path / "status.html").read_text().startswith("<!DOCTYPE html>")
    figures, costs = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(stalled.rows(figures)) > 30
    stalled.rows(costs)


def test_a_page_that_cannot_be_written_is_one_line(stalled: Pipeline, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(cli, ["status", "--html", str(tmp_path / "none" / "page.html")])
    assert isinstance(outcome.exception, MeteringError)
    assert str(outcome.exception).endswith(
        "page.html cannot be written: No such file or directory."
    )


def test_metrics_of_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed, an error and nothing else."""
    monkeypatch.setenv(
        "METERING_DATABASE_URL", "postgresql://pipeline:top-secret@127.0.0.1:9/metering"
    )
    outcome = CliRunner().invoke(cli, ["metrics"])
    assert isinstance(outcome.exception, MeteringError)
    assert str(outcome.exception).startswith("The figures cannot be read: ")
    assert "top-secret" not in str(outcome.exception)
    assert outcome.stdout == ""
