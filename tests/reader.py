"""A reader who types what a page says, in the project's folder, from the first command to the last.

``python -m tests.reader docs/tutorial.md`` prints, as JSON, the text that each ``sh`` block of the page gave. What is no
command of ours is bash's; ours are called in this one process, since each process of their own would start Dagster and
dbt anew.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

import metering_pipeline.partitions  # noqa: F401  (read before the page sets a clock: partitions end there)
from metering_pipeline.cli import cli

LEFT_OUT = ("make install", ". .venv/bin/activate", "metering db stop", "git checkout ")
"""What is done before a test begins, or what only a clone or a server of its own can do."""
OWN_PROCESS = "metering db psql"
MAIN = [sys.executable, "-c", "from metering_pipeline.cli import main; main()"]


def blocks(page: str, language: str = "sh") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def statements(block: str) -> Iterator[str]:
    """The block's commands of ours one by one, and what lies between them as one script."""
    script: list[str] = []
    for line in block.splitlines():
        if line.startswith(LEFT_OUT):
            continue
        if line.startswith("metering "):
            yield "\n".join(script)
            yield line
            script = []
        else:
            script.append(line)
    yield "\n".join(script)


def type_in(statement: str) -> str:
    """Run it; what it printed. Raises AssertionError if it fails."""
    if statement.startswith(OWN_PROCESS):
        command = [*MAIN, *shlex.split(statement)[1:]]
    elif statement.startswith("metering "):
        outcome = CliRunner().invoke(cli, shlex.split(statement, comments=True)[1:])
        assert outcome.exit_code == 0, (statement, outcome.output, outcome.exception)
        return outcome.output
    else:
        command = ["bash", "-e", "-c", f"{statement}\nprintf '\\0%s\\0' \"$PWD\"; env -0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (statement, done.stdout, done.stderr)
    printed, *state = done.stdout.split("\0")
    if state:  # bash has said where it ended, and with which environment
        os.chdir(state[0])
        os.environ.update(line.split("=", 1) for line in state[1:] if "=" in line)
    return printed


def read(page: str) -> list[str]:
    return ["".join(map(type_in, filter(None, statements(each)))) for each in blocks(page)]


if __name__ == "__main__":
    json.dump(read(Path(sys.argv[1]).read_text()), sys.stdout)
