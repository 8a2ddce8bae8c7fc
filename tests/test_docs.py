"""Docs say only what is true: worked examples are computed, commands exist, links lead somewhere."""

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.landing.store import land_hour
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import PROJECT_ROOT, Settings

README = PROJECT_ROOT / "README.md"
FOLDERS = ("benchmarks", "dbt_project", "metering_pipeline", "tests")
PAGES = [README, *sorted((PROJECT_ROOT / "docs").rglob("*.md"))]
PAGES += sorted(page for each in FOLDERS for page in (PROJECT_ROOT / each).rglob("README.md"))
GROUPS = {name for name, command in cli.commands.items() if isinstance(command, click.Group)}
FINGERPRINT_PAGE = (PROJECT_ROOT / "docs" / "fingerprint.md").read_text()


PREFIX = re.compile(r"^(?:\w+=\S+ +|docker compose exec (?:-T )?[\w-]+ +)+")
"""What may stand before a command: settings, and the container that it is given in."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def promised(page: str) -> list[str]:
    return re.findall(r"`([0-9a-f]{8}-[0-9a-f-]{27})`", page)


def test_python_examples_of_the_fingerprint() -> None:
    results = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        for code in blocks(FINGERPRINT_PAGE, "python")
    ]
    assert results == promised(FINGERPRINT_PAGE)


def test_sql_example_of_the_fingerprint(database: Database) -> None:
    (query,) = blocks(FINGERPRINT_PAGE, "sql")
    with database.connect() as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    assert str(row[0]) == promised(FINGERPRINT_PAGE)[0]


def test_shell_example_of_the_fingerprint() -> None:
    (command,) = blocks(FINGERPRINT_PAGE, "sh")
    output = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert output == promised(FINGERPRINT_PAGE)[0].replace("-", "")


def test_the_example_of_control_totals(settings: Settings, tmp_path: Path) -> None:
    """The manifest on the page is what its Python prints and its shell computes, and it lands without a problem."""
    page = (PROJECT_ROOT / "docs" / "control-totals.md").read_text()
    events, manifest = blocks(page, "json")
    (code,), (shell, *_) = blocks(page, "python"), blocks(page, "sh")
    (tmp_path / "gateway-1.ndjson").write_text(events)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(run.stdout) == json.loads(manifest)
    run = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    first, second, third = map(int, run.stdout.split())
    digests = [str(first + second), str(third)]
    assert [each["digest"] for each in json.loads(manifest)["totals"]] == digests
    assert f"{first}, {second} (together {digests[0]}) and {third}" in page

    hour = datetime(2026, 1, 31, 13, tzinfo=UTC)
    folder = Path(settings.landing_root) / "landed_hour=2026-01-31T13"
    folder.mkdir()
    (folder / "gateway-1.ndjson").write_text(events)
    (folder / "_manifest.json").write_text(manifest)
    database = open_database(settings)
    land_hour(database.url, settings, hour, hour)
    with database.connect() as connection:
        states = "select array_agg(state) from reconciliation.control_totals"
        assert connection.execute(states).fetchone() == (["identical", "identical"],)
        reasons = "select array_agg(reason) from reconciliation.manifest_problems"
        assert connection.execute(reasons).fetchone() == (["undeclared_source"],)


def table(page: str, head: str) -> list[list[str]]:
    """The rows of the table with that head, cells as text."""
    lines = page[page.index(f"\n{head}") + 1 :].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_contributions_add_up_to_hourly_usage() -> None:
    """The page's example, whose rows are those that the tutorial's reader gets."""
    page = (PROJECT_ROOT / "docs" / "late-data.md").read_text()
    usage: Counter[tuple[str, str]] = Counter()
    events: Counter[tuple[str, str]] = Counter()
    contributions = table(page, "| landed hour | hour |")
    for _, hour, paper, event_count, pages in contributions:
        usage[hour, paper] += int(pages)
        events[hour, paper] += int(event_count)
    hourly = [[*key, str(events[key]), str(usage[key])] for key in sorted(usage) if events[key]]
    assert table(page, "| hour | paper |") == hourly
    tutorial = (PROJECT_ROOT / "docs" / "tutorial.md").read_text()
    for landed, hour, paper, event_count, pages in contributions:
        cells = f'{landed}:00+00 | {hour}:00+00 | {{"paper": "{paper}"}} | {event_count} | {pages}'
        assert cells in re.sub(" +", " ", tutorial)


def test_due_is_rated_less_billed() -> None:
    rows = table(
        (PROJECT_ROOT / "docs" / "one-formula.md").read_text(), "| what happened | rated |"
    )
    assert len(rows) == 7
    assert [row for row in rows if Decimal(row[3]) != Decimal(row[1]) - Decimal(row[2])] == []


def named(page: Path) -> str:
    return str(page.relative_to(PROJECT_ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Whether an address elsewhere answers is not asked: there need not be a network."""
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    outside = [link for link in links if "://" in link]
    assert [
        link for link in outside if not re.fullmatch(r"https://[\w.-]+\.\w+(/\S*)?", link)
    ] == []
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_options_exist(page: Path) -> None:
    """Every `metering …` line of a code block parses: command and options are known to the CLI."""
    for block in blocks(page.read_text(), "sh"):
        for line in block.splitlines():
            words = PREFIX.sub("", line.split("#")[0]).split()
            if words[:1] == ["metering"]:
                options = [word for word in words if word.startswith("--")]
                path = words[1:3] if words[1] in GROUPS else words[1:2]
                shown = CliRunner().invoke(cli, [*path, "--help"])
                assert shown.exit_code == 0, line
                assert [option for option in options if option not in shown.output] == [], line


def test_soaks_exist() -> None:
    from tests.soak.__main__ import cli as soak

    (block,) = (each for each in blocks(README.read_text(), "sh") if "tests.soak" in each)
    for line in block.splitlines():
        *_, module, command = line.split("#")[0].split(" --")[0].split()
        options = re.findall(r"--\w+", line.split("#")[0])
        shown = CliRunner().invoke(soak, [command, "--help"])
        assert (module, shown.exit_code) == ("tests.soak", 0), line
        assert [option for option in options if option not in shown.output] == [], line


def test_make_targets_exist() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"make (\w+)(?=`|\s+#)", page.read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_settings_named_in_the_docs_exist() -> None:
    known = {"METERING_" + name.upper() for name in Settings.__dataclass_fields__}
    for page in PAGES:
        named = set(re.findall(r"\bMETERING_[A-Z_]+", page.read_text()))
        assert named <= known, page.name


def test_the_readmes_event_is_accepted() -> None:
    from datetime import UTC, date, datetime

    from metering_pipeline.landing.events import Event, Limits, parse

    (event,) = blocks(README.read_text(), "json")
    limits = Limits.of_hour(datetime(2026, 1, 31, 13, tzinfo=UTC), date(2020, 1, 1), 60)
    assert isinstance(parse(event.strip().encode(), limits), Event)


def test_what_runs_by_itself_is_on_the_page() -> None:
    """Each schedule and sensor, with the job that it starts."""
    from metering_pipeline.schedules import schedules
    from metering_pipeline.sensors import sensors

    rows = table((PROJECT_ROOT / "docs" / "ui.md").read_text(), "| | runs | when |")
    automation = [*schedules, *sensors]
    assert [row[0] for row in rows] == [
        f"{'sensor' if each in sensors else 'schedule'} `{each.name}`" for each in automation
    ]
    for each, row in zip(automation, rows, strict=True):
        assert row[1].startswith("the ") or f"job `{each.job_name}`" in row[1], each.name
