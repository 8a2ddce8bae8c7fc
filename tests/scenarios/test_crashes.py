"""A small soak of kills, as ``python -m tests.soak`` runs it in large: it forks its workers from a process
without threads and connections, which a process that runs tests is not."""

import os
import re
import subprocess
import sys

from metering_pipeline.settings import PROJECT_ROOT

SOAK = [sys.executable, "-m", "tests.soak"]
SMALL = ["kills", "--count", "6", "--command-line", "0", "server-kills", "--count", "2"]


def test_kills_at_random_moments_lose_and_double_nothing() -> None:
    """Each soak compares every table with the oracle, and fails if one differs."""
    done = subprocess.run(
        [*SOAK, *SMALL],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env={name: value for name, value in os.environ.items() if name != "METERING_HOME"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = dict(re.findall(r"(\d+) kills of the (\S+)", done.stdout))
    counted = {what: int(count) for count, what in kills.items()}
    assert counted["pipeline's"] >= 6
    assert counted["PostgreSQL"] >= 2
