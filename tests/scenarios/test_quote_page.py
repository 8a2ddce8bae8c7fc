"""The page about quotes: its commands run on the sample catalog, and its figures are theirs."""

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.settings import PROJECT_ROOT
from tests.scenarios.conftest import Pipeline

PAGE = (PROJECT_ROOT / "docs" / "quote.md").read_text()
HOUR = datetime(2026, 1, 31, 13, tzinfo=UTC)


def commands() -> list[list[str]]:
    lines = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_pages_commands_and_figures(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-31T12:59:59Z",
        "correlation_id": "req-1",
        "properties": {"model": "small", "input_tokens": 2_000_000, "output_tokens": 0},
    }
    pipeline.drop(HOUR, "events.ndjson", [event])
    pipeline.set_clock(datetime(2026, 2, 6, tzinfo=UTC))
    pipeline.run(HOUR)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new-prices").mkdir()
    tiers = (PROJECT_ROOT / "dbt_project" / "seeds" / "charge_tiers.csv").read_text()
    dearer = tiers.replace("starter-usd-requests,1,1,,0.002,", "starter-usd-requests,1,1,,7,")
    assert dearer != tiers
    (tmp_path / "new-prices" / "charge_tiers.csv").write_text(dearer)
    pipeline.set_clock(datetime(2026, 1, 1, tzinfo=UTC))
    printed = []
    for command in commands():
        outcome = CliRunner().invoke(cli, command)
        assert outcome.exit_code == 0, (command, outcome.output, outcome.exception)
        printed.append(outcome.output)
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert [" ".join(line.split()) for line in shown.splitlines() if line.strip("─ ")] == [
        " ".join(line.split()) for line in printed[0].splitlines()[1:] if line.strip("─ ")
    ]
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    everyone = printed[commands().index(["quote", "--month", "2026-01", "--catalog", "new-prices"])]
    assert "+7.00 USD" in everyone
