"""The tutorial as a newcomer follows it: every command, in a copy of the project, and what each is said to print."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metering_pipeline.postgres import Database
from metering_pipeline.settings import PROJECT_ROOT
from tests.conftest import PIPELINE_LOGIN, url_of

PAGE = (PROJECT_ROOT / "docs" / "tutorial.md").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project: the tutorial changes its seeds."""
    for each in ("metering_pipeline", "dbt_project", "tests"):
        unmade = shutil.ignore_patterns("__pycache__", "target", "logs")
        shutil.copytree(PROJECT_ROOT / each, tmp_path / each, ignore=unmade)
    shutil.copy(PROJECT_ROOT / "dagster.yaml", tmp_path)
    return tmp_path


def words(text: str) -> str:
    return " ".join(re.sub("[─│]", " ", text).split())


def test_every_command_runs_and_prints_what_the_page_shows(
    checkout: Path, database: Database
) -> None:
    """On the tests' server: what a command does with a server of its own is tried elsewhere."""
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("METERING_")
    }
    environment |= {
        "PYTHONPATH": str(checkout),
        "METERING_DATABASE_URL": url_of(PIPELINE_LOGIN, database.url),
        "METERING_DAGSTER_DATABASE_URL": database.dagster_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.reader", str(PROJECT_ROOT / "docs" / "tutorial.md")],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    shown = re.findall(r"^```(sh|text)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    block = -1
    for language, text in shown:
        if language == "sh":
            block += 1
            continue
        for line in filter(None, map(words, text.splitlines())):
            assert line in words(printed[block]), printed[block]
    assert len(printed) == block + 1
    assert not (checkout / ".metering" / "tutorial").exists()
