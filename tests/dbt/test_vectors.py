"""Rating cases, through the command that anybody can try a file of them with, and all of a folder at once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.settings import PROJECT_ROOT
from tests.vectors.cases import Outcome, read_cases
from tests.vectors.trying import on_server, try_cases

OTHERS = PROJECT_ROOT.parent / "shared" / "vectors"
OWN = PROJECT_ROOT / "tests" / "vectors" / "own"

NOT_SUPPORTED = {
    "a later copy of an event that replaces the earlier one": ("lago-store-sum-1386",),
    "a cycle by the calendar of more than one interval": ("fp-next-164",),
    "unknown operation invoice_lifecycle": ("lago-draft-advance-658",),
    "unknown operation progressive_billing": ("lago-prog-212",),
    "a collection window of a line's own": ("om-coll-309",),
    "the charge model graduated_package (tiers with block_size)": ("kb-all-202", "kb-all-228"),
    "the charge model volume_package (tiers with block_size)": ("kb-top-275", "kb-top-302"),
    "a price for several metrics together": (
        "kb-capacity-136",
        "kb-capacity-141",
        "kb-capacity-146",
    ),
}
"""What is missing, and the cases of other billing systems that ask for it; none of them is portable."""

Try = Callable[[Path], list[Outcome]]


@pytest.fixture
def try_folder(server: EmbeddedServer) -> Try:
    return lambda folder: try_cases(read_cases([folder]), on_server(server))


def reasons(outcomes: list[Outcome], verdict: str) -> dict[str, str]:
    return {each.case.id: each.reason for each in outcomes if each.verdict == verdict}


def test_other_billing_systems_agree(try_folder: Try) -> None:
    if not OTHERS.exists():
        pytest.skip(f"needs other billing systems' cases in {OTHERS}, which are not there")
    outcomes = try_folder(OTHERS)
    assert reasons(outcomes, "failed") == {}
    assert reasons(outcomes, "not supported") == {
        case: reason for reason, cases in NOT_SUPPORTED.items() for case in cases
    }
    assert all(
        each.case.portability == "mapped" for each in outcomes if each.verdict == "not supported"
    )


WRONG = [
    ("wrong-number", {"op": "round", "amount": "1.25", "currency": "JPY"}, {"rounded": "2"}),
    ("unknown-key", {"op": "round", "amount": "1", "currency": "USD", "mood": "glad"}, {}),
    (
        "unknown-key-within",
        {
            "currency": "USD",
            "quantity": "1",
            "price": {"model": "per_unit", "unit_amount": "1", "color": "red"},
        },
        {"total": "1"},
    ),
    ("unknown-operation", {"op": "divine"}, {}),
    ("unknown-result", {"op": "minor_units", "currency": "USD"}, {"weight": "1"}),
    ("unknown-model", {"currency": "USD", "quantity": "1", "price": {"model": "lunar"}}, {}),
    ("no-such-zone", {"op": "floor_day", "timestamp": "2027-01-01", "timezone": "Mars"}, {}),
]


def test_the_command_says_what_became_of_each_case(tmp_path: Path) -> None:
    """Own cases pass; what is wrong fails with both numbers; what is unknown is named, never passed over."""
    file = tmp_path / "wrong.json"
    file.write_text(
        json.dumps([{"id": i, "inputs": given, "expected": said} for i, given, said in WRONG])
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.vectors", str(OWN), str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT_ROOT,
    )
    own = len(read_cases([OWN]))
    lines = done.stdout.splitlines()
    assert f"passed: {own}" in lines, done.stdout + done.stderr
    reported = lines[lines.index("not supported: 5") :]
    assert [line.strip() for line in reported] == [
        "not supported: 5",
        "unknown-key (portable)  unknown key inputs.mood",
        "unknown-key-within (portable)  unknown key inputs.price.color",
        "unknown-operation (portable)  unknown operation divine",
        "unknown-result (portable)  expected.weight is not known",
        "unknown-model (portable)  the charge model lunar",
        "failed: 2",
        "wrong-number (portable)  rounded: expected 2, got 1",
        f"no-such-zone (portable)  the catalog refuses it: subscriptions case-{own + 6} 1: time_zone Mars "
        "write a time zone of the tz database, as Europe/Berlin or UTC",
    ]
    assert done.returncode == 1
