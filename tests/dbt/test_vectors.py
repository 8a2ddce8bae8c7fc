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
    "unknown operation invoice_lifecycle": ("lago-draft-advance-658",),
    "unknown operation progressive_billing": ("lago-prog-212",),
    "a collection window of a line's own": ("om-coll-309",),
    "tiers of blocks of several sizes": ("kb-all-202", "kb-all-228", "kb-top-275"),
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
    return lambda path: try_cases(read_cases([path]).cases, on_server(server))


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


ROUND: dict[str, object] = {"op": "round", "amount": "1", "currency": "USD"}
UNIT: dict[str, object] = {"model": "per_unit", "unit_amount": "1"}

WRONG: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    ("unknown-key", {**ROUND, "mood": "glad"}, {"rounded": "1"}, "unknown key inputs.mood"),
    (
        "unknown-key-within",
        {"currency": "USD", "quantity": "1", "price": {**UNIT, "color": "red"}},
        {"total": "1"},
        "unknown key inputs.price.color",
    ),
    ("unknown-operation", {"op": "divine"}, {"told": "1"}, "unknown operation divine"),
    ("unknown-result", ROUND, {"weight": "1"}, "expected.weight is not known"),
    (
        "unknown-result-within",
        {
            "currency": "USD",
            "price": UNIT,
            "snapshots": [{"cumulative_quantity": "1", "final": True}],
        },
        {"increments": [{"amount": "1", "weight": "1"}]},
        "expected.increments.weight is not known",
    ),
    (
        "unknown-model",
        {"currency": "USD", "quantity": "1", "price": {"model": "lunar"}},
        {"total": "1"},
        "the charge model lunar",
    ),
    (
        "price-in-words",
        {"currency": "USD", "quantity": "1", "price": "cheap"},
        {"total": "1"},
        "inputs.price is no object",
    ),
    (
        "no-quantity",
        {"currency": "USD", "quantity": "NaN", "price": UNIT},
        {"total": "1"},
        "'NaN' is no number",
    ),
    (
        "other-currency",
        {**ROUND, "currency": "XTS"},
        {"rounded": "1"},
        "the currency XTS is not in the catalog",
    ),
    (
        "no-such-day",
        {"op": "floor_day", "timestamp": "2027-13-45", "timezone": "UTC"},
        {"result": "2027-01-01"},
        "'2027-13-45' is no instant",
    ),
    (
        "odd-window",
        {"op": "finalization_time", "collection_window": "P1M", "lines": []},
        {"finalize_at": None},
        "a collection window P1M that is not of whole hours",
    ),
    ("nothing-expected", ROUND, {}, "expects nothing"),
]
"""Cases that nobody can answer, and why."""

DIFFERING: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    (
        "wrong-number",
        {**ROUND, "amount": "1.25", "currency": "JPY"},
        {"rounded": "2"},
        "rounded: expected 2, got 1",
    ),
    (
        "what-is-not-stated-is-nothing",
        {"currency": "USD", "quantity": "1", "price": {**UNIT, "minimum_amount": "5"}},
        {"amount": "1"},
        "charges_total: expected 0, got 4.00",
    ),
    ("no-error", ROUND, {"error": True}, "expected {error: True}, got {rounded: 1.00}"),
    (
        "no-such-zone",
        {"op": "floor_day", "timestamp": "2027-01-01", "timezone": "Mars"},
        {"result": "2027-01-01"},
        "the catalog refuses it: subscriptions case-{number} 1: time_zone Mars "
        "write a time zone of the tz database, as Europe/Berlin or UTC",
    ),
    (
        "term-of-a-number",
        {
            "currency": "USD",
            "quantity": "1",
            "price": {"model": "flat", "amount": "1", "payment_term": 5},
        },
        {"total": "1"},
        "no answer: AttributeError(\"'int' object has no attribute 'removeprefix'\")",
    ),
]
"""Cases that the models answer otherwise, and what is said of it."""


def test_the_command_says_what_became_of_each_case(tmp_path: Path) -> None:
    """Own cases pass; what differs fails with both numbers; what is unknown is named, never passed over."""
    cases = [*WRONG, *DIFFERING]
    file = tmp_path / "wrong.json"
    file.write_text(
        json.dumps([{"id": i, "inputs": given, "expected": said} for i, given, said, _ in cases])
    )
    torn = tmp_path / "torn.json"
    torn.write_text('[{"id": "torn"')
    done = subprocess.run(
        [sys.executable, "-m", "tests.vectors", str(OWN), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT_ROOT,
    )
    own = len(read_cases([OWN]).cases)
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"passed: {own}" in lines, done.stdout + done.stderr
    reasons = [
        f"{name} (portable)  {reason}".replace("{number}", str(own + number))
        for number, (name, _, _, reason) in enumerate(cases)
    ]
    assert lines[lines.index(f"not supported: {len(WRONG)}") :] == [
        f"not supported: {len(WRONG)}",
        *reasons[: len(WRONG)],
        f"failed: {len(DIFFERING)}",
        *reasons[len(WRONG) :],
        "not read: 1",
        f"{torn}: Expecting ',' delimiter: line 1 column 15 (char 14)",
        f"{own + len(cases)} cases: {own} passed, {len(WRONG)} not supported, "
        f"{len(DIFFERING)} failed, 1 not read",
    ]
    assert done.returncode == 1


def test_one_case_that_breaks_the_models_stops_no_other(tmp_path: Path, try_folder: Try) -> None:
    """A value that no landing would take breaks the ledger for all of its world: it is found by halves."""
    period = ["2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z"]
    cases = [
        {
            "id": value,
            "inputs": {
                "aggregation": "sum",
                "period": period,
                "events": [{"timestamp": period[0], "value": value}],
            },
            "expected": {"value": value},
        }
        for value in ("3", "a\0b")
    ]
    file = tmp_path / "breaks.json"
    file.write_text(json.dumps(cases))
    outcomes = try_folder(file)
    assert [each.verdict for each in outcomes] == ["passed", "failed"]
    assert "the models broke" in outcomes[1].reason


def test_what_is_no_case_is_named_with_its_place(tmp_path: Path) -> None:
    """The others of the file, and of the other files, are read."""
    contents = {
        "a": '[7, {"inputs": {}}, {"id": "x", "inputs": []}, {"id": "y", "inputs": {}, "expected": {}}]',
        "b": '{"id": "z"}',
        "c": "[",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "d.json").write_bytes(b"\xff")
    empty = tmp_path / "empty"
    empty.mkdir()
    reading = read_cases([tmp_path, empty, tmp_path / "gone.json"])
    assert [case.id for case in reading.cases] == ["y"]
    assert [problem.removeprefix(f"{tmp_path}/") for problem in reading.problems] == [
        "a.json: case 1 is no object",
        "a.json: case 2 has no id",
        "a.json: case 3 (x) has no inputs and no expected",
        "b.json: is no list of cases",
        "c.json: Expecting value: line 1 column 2 (char 1)",
        "d.json: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        "empty: holds no file *.json",
        f"gone.json: [Errno 2] No such file or directory: '{tmp_path}/gone.json'",
    ]
