"""The command line as its users have it: a process, its exit code, and what it prints."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli, main
from metering_pipeline.cli.group import console
from metering_pipeline.errors import MeteringError
from metering_pipeline.postgres import DatabaseError
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


def metering_here(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in this process: a start of Dagster and dbt costs more than most of what is tried with them."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as problems,
        pytest.MonkeyPatch.context() as given,
    ):
        given.setattr(sys, "argv", ["metering", *arguments])
        for name, value in environment.items():
            given.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    code = int(ended.value.code or 0)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), problems.getvalue())


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
    preview = metering_here("issue", "--date", "2026-02-05", "--preview")
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
    every = metering_here("statement", "--all", "--date", "2026-02-05", METERING_HOME=str(tmp_path))
    assert every.returncode == 0, every.stderr
    count = len(list((tmp_path / "statements").glob("*.pdf")))
    assert f"{count} statements in {tmp_path / 'statements'}" in every.stdout
    only = metering_here("statement", "US-000001", "--pdf", str(tmp_path / "one.pdf"))
    assert only.stdout.split() == [str(tmp_path / "one.pdf")]
    unknown = metering_here("statement", "US-1")
    assert unknown.returncode == 1
    assert "No document 'US-1' was issued." in unknown.stderr

    status = metering_here("status")
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
        (["db", "url"], {"METERING_CLOCK": "9999-12-31T23:00:00Z"}, "write a year from 1970"),
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


@pytest.mark.parametrize("option", [[], ["--preview"]])
def test_a_billing_date_that_cannot_be_issued_is_one_line(
    pipeline: Pipeline, option: list[str]
) -> None:
    """Before any run is started: Dagster's storage is not even there."""
    pipeline.set_clock(datetime(2026, 2, 5, 12, tzinfo=UTC))
    early = CliRunner().invoke(cli, ["issue", "--date", "2030-01-01", *option])
    assert isinstance(early.exception, MeteringError)
    assert str(early.exception) == (
        "Billing date 2030-01-01 ends at 2030-01-02T00:00Z; it is 2026-02-05T12:00Z. "
        "Issue it then, or an earlier date now."
    )


def test_a_billing_date_before_the_newest_one_is_one_line(pipeline: Pipeline) -> None:
    pipeline.drop(HOUR, "events.ndjson", [])
    pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))
    pipeline.run(HOUR)
    pipeline.issue(date(2026, 2, 5))
    assert pipeline.rows("select distinct billing_date from invoices.issued_invoices") == [
        (date(2026, 2, 5),)
    ]
    late = CliRunner().invoke(cli, ["issue", "--date", "2026-02-04"])
    assert isinstance(late.exception, MeteringError)
    assert str(late.exception).startswith(
        "Documents were issued for 2026-02-05; 2026-02-04 precedes it. "
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("issue --date 2025-11-30", "The first billing date is 2025-12-01"),
        ("run --hour 2025-11-30T23", "The first landing hour is 2025-12-01T00"),
        ("run --hour 2026-02-05T13", "2026-02-05T13 has not begun"),
        *(
            (f"rebuild --stage {stage} --from {first} --to {last}", message)
            for stage in ("landing", "ledger", "rollups")
            for first, last, message in (
                ("2026-01-02T00", "2026-01-01T00", "--to is before --from."),
                ("2025-11-30T22", "2025-11-30T23", "The first landing hour is 2025-12-01T00"),
                ("2026-02-05T13", "2026-02-05T23", "2026-02-05T13 has not begun"),
            )
        ),
        ("explain US-000001 1 --since 2026-02-05T13", "2026-02-05T13 has not begun"),
        *(
            (line, "write a year from 1970 to 2999")
            for line in (
                "issue --date 9999-12-31",
                "run --hour 9999-12-31T23",
                "explain --window 9999-12",
                "explain --window 0001-01-01",
                "explain --tenant acme --event x --at 0001-01-01T00:00:00+01:00",
                "explain --tenant acme --event x --to 9999-12-31",
                "quote --tenant acme --month 9999-12",
                "generate --first-day 9999-12-31",
            )
        ),
    ],
)
def test_a_date_that_cannot_be_is_refused(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a database: nothing was asked of it."""
    monkeypatch.setenv("METERING_CLOCK", "2026-02-05T12:00:00Z")
    monkeypatch.setenv("METERING_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    refused = CliRunner().invoke(cli, shlex.split(line))
    assert refused.exit_code == 2, refused.exception
    assert message in refused.stderr


def test_what_is_rebuilt_may_reach_beyond_what_has_landed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the window of a law does, which a check says to rebuild: it gets as far as the database."""
    monkeypatch.setenv("METERING_CLOCK", "2026-02-05T12:00:00Z")
    monkeypatch.setenv("METERING_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    line = "rebuild --stage ledger --from 2025-11-30T00 --to 2026-02-05T23"
    assert isinstance(CliRunner().invoke(cli, line.split()).exception, DatabaseError)


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
