"""The command line as its users have it: a process, its exit code, and what it prints."""

import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.cli.group import console
from metering_pipeline.settings import PROJECT_ROOT
from tests.scenarios.conftest import Pipeline

HOUR = datetime(2026, 1, 31, 13, tzinfo=UTC)


def metering(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from metering_pipeline.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


@pytest.fixture
def dagster_storage(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", pipeline.database.dagster_url)
    return pipeline


def test_run_preview_issue_state_and_status(dagster_storage: Pipeline, tmp_path: Path) -> None:
    pipeline = dagster_storage
    event = {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-31T12:59:59.25Z",
        "correlation_id": "req-1",
        "properties": {"model": "small", "input_tokens": 812, "output_tokens": 40},
    }
    pipeline.drop(HOUR, "events.ndjson", [event, event, {"tenant_id": "acme"}])
    pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))

    ran = metering("run", "--hour", "2026-01-31T13")
    assert ran.returncode == 0, ran.stderr
    assert "1 landing hour, landing to drafts" in ran.stdout
    assert pipeline.rows("select count(*) from ledger.usage_events") == [(1,)]
    assert pipeline.rows("select reason from landing.rejected_events") == [("missing_field",)]

    switch = "update invoices.issuing_switch set stopped = %s, changed_by = 'ana', reason = 'audit'"
    pipeline.execute(switch, True)
    preview = metering("issue", "--date", "2026-02-05", "--preview")
    assert preview.returncode == 0, preview.stderr
    assert "Would be issued" in preview.stdout
    assert "Issuing was stopped by ana" in preview.stdout
    pipeline.execute(switch, False)
    assert pipeline.rows("select count(*) from invoices.issued_invoices") == [(0,)]

    issued = metering("issue", "--date", "2026-02-05")
    assert issued.returncode == 0, issued.stderr
    assert "US-000001" in issued.stdout

    stated = metering("statement", "US-000001", METERING_HOME=str(tmp_path))
    assert stated.returncode == 0, stated.stderr
    page, pdf = sorted((tmp_path / "statements").iterdir())
    assert stated.stdout.split() == [str(page), str(pdf)]
    assert "Invoice US-000001" in page.read_text()
    assert pdf.read_bytes().startswith(b"%PDF-")
    every = metering("statement", "--all", "--date", "2026-02-05", METERING_HOME=str(tmp_path))
    assert every.returncode == 0, every.stderr
    count = len(list((tmp_path / "statements").glob("*.pdf")))
    assert f"{count} statements in {tmp_path / 'statements'}" in every.stdout
    only = metering("statement", "US-000001", "--pdf", str(tmp_path / "one.pdf"))
    assert only.stdout.split() == [str(tmp_path / "one.pdf")]
    unknown = metering("statement", "US-1")
    assert unknown.returncode == 1
    assert "No document 'US-1' was issued." in unknown.stderr

    status = metering("status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert "1 duplicates" in status.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["run"], {}, "Give --hour, or --from and --to."),
        (["run", "--hour", "yesterday"], {}, "write an hour in UTC as 2026-01-31T13"),
        (["run", "--from", "2026-01-02T00", "--to", "2026-01-01T00"], {}, "--to is before --from."),
        (["issue"], {}, "Give one of --date, --approve, --hold, --release, --stop, --resume."),
        (["statement"], {}, "Give a document's number, or --all and --date."),
        (["statement", "US-000001", "--all"], {}, "Give a document's number, or --all and --date."),
        (["issue", "--stop"], {}, "Say who decides and why"),
        (["db", "url"], {"METERING_LOKBACK_HOURS": "3"}, "METERING_LOKBACK_HOURS is not a setting"),
        (["db", "url"], {"METERING_GRACE_HOURS": "soon"}, "METERING_GRACE_HOURS='soon'"),
        (["db", "url"], {"METERING_DATABASE_URL": "mysql://x"}, "begins with postgresql://"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    failed = metering(*arguments, **environment)
    assert failed.returncode != 0
    assert message in " ".join((failed.stdout + failed.stderr).split())
    assert "Traceback" not in failed.stderr


def test_a_day_that_has_not_ended_is_refused(dagster_storage: Pipeline) -> None:
    dagster_storage.set_clock(datetime(2026, 2, 5, 12, tzinfo=UTC))
    refused = metering("issue", "--date", "2026-02-05")
    assert refused.returncode == 1
    assert "2026-02-05" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_generate_writes_a_landing_root(tmp_path: Path) -> None:
    made = metering("generate", "--root", str(tmp_path / "root"), "--days", "2", "--events", "500")
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "root").glob("landed_hour=*/*"))) > 2


def commands_of(page: str) -> list[list[str]]:
    """The commands of a page's code blocks, in their order."""
    text = (PROJECT_ROOT / "docs" / page).read_text()
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line]


def test_the_page_for_finance_is_true(
    dagster_storage: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of docs/invoices.md, in its order and in this process; the credits come before issuing."""
    monkeypatch.setenv("METERING_APPROVAL", "required")
    monkeypatch.setattr(console, "width", 200)
    pipeline = dagster_storage
    event = {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-31T12:59:59Z",
        "correlation_id": "req-1",
        "properties": {"model": "small", "input_tokens": 81200000, "output_tokens": 4000000},
    }
    pipeline.drop(HOUR, "events.ndjson", [event])
    pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))
    pipeline.run(HOUR)
    commands = commands_of("invoices.md")
    assert len(commands) == 14
    credit = [each for each in commands if each[0] == "credit"]
    shown = {}
    for command in credit + [each for each in commands if each[0] != "credit"]:
        ran = CliRunner().invoke(cli, command)
        assert ran.exit_code == 0, (command, ran.stdout, ran.stderr)
        shown[" ".join(command[:2] + [each for each in command if each.startswith("--")][:2])] = (
            ran.stdout
        )
    assert "CR-000001" in shown["credit list --tenant"]
    assert pipeline.rows(
        "select document_kind, refers_to, decided_by from invoices.issued_invoices"
        " where refers_to is not null order by 1"
    ) == [("void", "US-000001", "ana"), ("write_off", "US-000002", "ana")]  # fmt: skip
    assert pipeline.rows("select distinct held_since is null from invoices.held_invoices") == []
    monkeypatch.delenv("METERING_APPROVAL")
    again = ("invoice", "void", "US-000001", "--by", "ana", "--why", "again")
    refused = metering(*again)
    assert refused.stderr.startswith("error: METERING_APPROVAL is required in this database")
    refused = metering(*again, METERING_APPROVAL="none")
    assert (refused.returncode, "has a void already" in refused.stderr) == (1, True)
    refused = metering(
        "credit", "grant", "acme", "1,5", "--currency", "USD", "--by", "a", "--why", "b"
    )
    assert "write an amount with a point" in refused.stderr
