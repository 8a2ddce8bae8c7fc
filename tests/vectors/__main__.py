"""``python -m tests.vectors PATH [PATH ...]``: try the rating cases of files or folders.

Prints what passed, what failed (expected and got) and what is not supported (the key, the operation or
the feature that is missing), with ids, then what is no case at all (file and place), and the counts. Exit
code 1 if a case failed or something could not be read.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.vectors.cases import Outcome, read_cases


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vectors", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    reading = read_cases(parser.parse_args(arguments).paths)
    for name in [name for name in os.environ if name.startswith(("METERING_", "DBT_", "PG"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="metering-vectors-") as home:
        os.environ["METERING_HOME"] = home
        from tests.soak.servers import own_server
        from tests.vectors.trying import on_server, try_cases

        with own_server(CARELESS) as place:
            outcomes = try_cases(reading.cases, on_server(place.server))
    return report(outcomes, reading.problems)


CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def report(outcomes: Sequence[Outcome], problems: Sequence[str]) -> int:
    """Print one line a case, by what became of it, what is no case, and the counts; the exit code."""
    counts: list[str] = []
    for verdict in ("passed", "not supported", "failed"):
        found = [outcome for outcome in outcomes if outcome.verdict == verdict]
        lines = [
            f"{each.case.id} ({each.case.portability})  {' '.join(each.reason.split())}"
            for each in found
        ]
        counts.append(say(verdict, lines))
    if problems:
        counts.append(say("not read", problems))
    print(f"{len(outcomes)} cases: {', '.join(counts)}")  # noqa: T201
    return int(bool(problems) or any(outcome.verdict == "failed" for outcome in outcomes))


def say(what: str, lines: Sequence[str]) -> str:
    """Print the lines under a heading; their count in words."""
    print(f"{what}: {len(lines)}")  # noqa: T201
    for line in lines:
        print(f"  {line}".rstrip())  # noqa: T201
    return f"{len(lines)} {what}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
