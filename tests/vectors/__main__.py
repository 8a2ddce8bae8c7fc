"""``python -m tests.vectors PATH [PATH ...]``: try the rating cases of files or folders.

Prints what passed, what failed (expected and got) and what is not supported (the key, the operation or
the feature that is missing), with ids. Exit code 1 if a case failed.
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
    cases = read_cases(parser.parse_args(arguments).paths)
    for name in [name for name in os.environ if name.startswith(("METERING_", "DBT_", "PG"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="metering-vectors-") as home:
        os.environ["METERING_HOME"] = home
        from tests.soak.servers import own_server
        from tests.vectors.trying import on_server, try_cases

        with own_server(CARELESS) as place:
            outcomes = try_cases(cases, on_server(place.server))
    report(outcomes)
    return int(any(outcome.verdict == "failed" for outcome in outcomes))


CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def report(outcomes: Sequence[Outcome]) -> None:
    """One line a case that did not pass, the ids of those that did, and the counts."""
    for verdict in ("passed", "not supported", "failed"):
        found = [outcome for outcome in outcomes if outcome.verdict == verdict]
        print(f"{verdict}: {len(found)}")  # noqa: T201
        for each in found:
            print(f"  {each.case.id} ({each.case.portability})  {each.reason}".rstrip())  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
