"""The runbooks, followed step by step on one running system: their commands run, and print what the pages quote."""

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.cli.group import console
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.errors import MeteringError
from metering_pipeline.generate import generate
from metering_pipeline.postgres import embedded_address
from metering_pipeline.settings import PROJECT_ROOT, load

FOLDER = PROJECT_ROOT / "docs" / "runbooks"
CLOCK = datetime(2026, 2, 6, tzinfo=UTC)
BLOCK = re.compile(r"^( *)```(sh|sql|text)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BORDERS = re.compile(r"[│┃┌┐└┘├┤─━┏┓┗┛╇╈┡┩]")


@dataclass
class Running:
    """A home on which people work: files land, commands are given, and things happen to it."""

    place: Path
    environment: pytest.MonkeyPatch

    @property
    def landing(self) -> Path:
        return self.place / "home" / "landing"

    def drop(self, hour: str, name: str, events: Iterable[Mapping[str, Any]]) -> None:
        folder = self.landing / f"landed_hour={hour}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("".join(json.dumps(event) + "\n" for event in events))

    def as_owner(self, statement: str) -> None:
        """Something that no role of the pipeline may do."""
        with psycopg.connect(embedded_address(load()).url("metering")) as connection:
            assert connection.execute(statement.encode()).rowcount == 1

    def follow(self, page: str) -> None:
        """Each block of the page in its order: commands and queries are run, and print what is quoted below them."""
        printed = ""
        for indent, kind, content in BLOCK.findall((FOLDER / page).read_text()):
            text = textwrap.dedent(content) if indent else content
            if kind == "text":
                for line in text.splitlines():
                    assert quoted(line).search(plain(printed)), (page, line, printed)
            else:
                printed = self.query(text) if kind == "sql" else self.commands(page, text)

    def commands(self, page: str, text: str) -> str:
        return "".join(self.command(page, line) for line in text.splitlines())

    def command(self, page: str, line: str) -> str:
        words = shlex.split(line, comments=True)
        if words[0] != "metering":
            subprocess.run(["bash", "-euc", line], cwd=self.place, check=True)
            return ""
        # in this process: a start of Dagster and dbt costs more than what is tried here
        ended = CliRunner().invoke(cli, words[1:])
        problem = str(ended.exception) if isinstance(ended.exception, MeteringError) else ""
        expected = 1 if "# exit code 1" in line else 0
        assert (ended.exit_code, problem) == (expected, ""), (
            page,
            line,
            ended.output,
            ended.exc_info,
        )
        AFTER.get(line, nothing)(self)
        return ended.output

    def query(self, text: str) -> str:
        with psycopg.connect(f"{embedded_address(load()).url('metering')}") as connection:
            connection.execute("set role metering_analyst")
            return "".join(f"{row}\n" for row in connection.execute(text.encode()))


def plain(printed: str) -> str:
    return " ".join(BORDERS.sub(" ", printed).split())


def quoted(line: str) -> re.Pattern[str]:
    """A quoted line; … stands for whatever is different each time."""
    return re.compile(re.escape(plain(line)).replace("…", ".+"))


def request(number: str, tokens: int, at: str = "2026-01-31T15:30:00Z") -> Mapping[str, Any]:
    return {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": at,
        "correlation_id": f"runbook-{number}",
        "properties": {"model": "small", "input_tokens": tokens, "output_tokens": 0},
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Three days of January as sample usage, landed, and a file in which a producer counted in thousands."""
    place = Path(tempfile.mkdtemp(prefix="metering-runbooks-"))
    place.chmod(0o755)
    width = console.width
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("METERING_HOME", str(place / "home"))
        environment.setenv("METERING_CLOCK", CLOCK.isoformat())
        environment.setenv("METERING_FIRST_HOUR", "2026-01-01T00")
        environment.chdir(place)
        console.width = 160
        running = Running(place, environment)
        try:
            generate(running.landing, date(2026, 1, 29), days=3, events=1500, seed=1)
            wrong = [request(f"meter-{number}", 9_000_000) for number in range(3)]
            running.drop("2026-01-31T16", "meter-7.ndjson", wrong)
            running.command("", "metering run --from 2026-01-29T00 --to 2026-01-31T23")
            yield running
        finally:
            console.width = width
            for home in place.iterdir():
                EmbeddedServer(home).stop()
            shutil.rmtree(place)


def late(running: Running) -> None:
    backlog = [request(f"late-{hour}", 5000, f"2026-01-30T{hour:02}:10:00Z") for hour in (9, 10)]
    running.drop("2026-02-05T10", "backlog.ndjson", backlog)


def storm(running: Running) -> None:
    folder = running.landing / "landed_hour=2026-02-05T11"
    folder.mkdir()
    for path in (running.landing / "landed_hour=2026-01-31T15").glob("events-*"):
        shutil.copyfile(path, folder / f"again-{path.name}")


def corrected(running: Running) -> None:
    (running.place / "corrected").mkdir()
    right = "".join(json.dumps(request(f"meter-{number}", 9000)) + "\n" for number in range(3))
    (running.place / "corrected" / "meter-7.ndjson").write_text(right)


def forgotten(running: Running) -> None:
    events = [request("forgotten", 700, "2026-01-30T14:00:00Z")]
    running.drop("2026-01-30T15", "events-9.ndjson", events)


def damage(running: Running) -> None:
    running.as_owner(
        "delete from rollups.usage_hourly where (tenant_id, hour, metric, dimensions) = ("
        " select tenant_id, hour, metric, dimensions from rollups.usage_hourly"
        " where tenant_id = 'acme' and hour = '2026-01-31T15:00Z' order by metric limit 1)"
    )


def unknown_to_the_backup(running: Running) -> None:
    running.drop("2026-02-05T12", "events.ndjson", [request("newer", 600, "2026-02-05T11:40:00Z")])


def nothing(_: Running) -> None:
    """An ordinary day."""


HAPPENS: Mapping[str, Callable[[Running], None]] = {
    "late-data.md": late,
    "duplicate-storm.md": storm,
    "wrong-quantities.md": corrected,
    "re-land-a-day.md": forgotten,
    "law-failed.md": damage,
}
AFTER = {"metering db backup backups/2026-02-06": unknown_to_the_backup}
LISTED = re.findall(r"^\|.*\]\(([\w-]+\.md)\)", (FOLDER / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", *LISTED])
def test_a_runbook_is_followed(running: Running, page: str) -> None:
    """They come one after the other, half an hour apart: each begins where the one before it has ended."""
    clock = CLOCK + timedelta(minutes=30) * (LISTED.index(page) + 1 if page in LISTED else 0)
    running.environment.setenv("METERING_CLOCK", clock.isoformat())
    HAPPENS.get(page, nothing)(running)
    running.follow(page)
