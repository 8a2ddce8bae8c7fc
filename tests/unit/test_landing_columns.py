"""What is decided by whole columns is decided as the exact rules do, or not at all."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering_pipeline.landing import columns, events
from metering_pipeline.landing.events import Event, Limits

LIMITS = Limits.of_hour(datetime(2026, 1, 31, 13, tzinfo=UTC), date(2020, 1, 1), 60)
GOOD: dict[str, Any] = {
    "tenant_id": "acme",
    "event_type": "api.request",
    "occurred_at": "2026-01-31T13:05:00Z",
    "correlation_id": "c1",
}
VALUES: Mapping[str, list[str]] = {
    "tenant_id": ['"acme"', '""', '"\x7f"', '"a\x85b"', '"né"', f'"{"a" * 256}"', "7", "null"],
    "event_type": ['"a:b"', f'"{"é" * 127}x"', f'"{"é" * 128}"', '"a\x01"'],
    "occurred_at": [
        '"2026-01-31T13:05:00.1234567+01:00"',
        '"2026-01-31T23:59:59.9999999-10:00"',
        '"2026-01-31t13:05:00z"',
        '"2026-01-31 13:05:00Z"',
        '"2026-01-31T13:05:00"',
        '"2026-01-31T13:05:60Z"',
        '"2026-02-30T13:05:00Z"',
        '"2126-01-31T13:05:00Z"',
        '"2026-01-31T13:05:00+24:00"',
        '"0000-01-31T13:05:00Z"',
    ],
    "correlation_id": ['"é\\u003a"', '"c:"', '"\U0001f600"', '"\u2028"'],
    "quantity": [
        "1.50", '"1e3"', '"2.5"', "1e6", "-0", "-0.0", "null", '"NaN"', '" 1"', '"+1"', '"1_0"', '""', "true",
        "9" * 20, "9" * 21, "0." + "1" * 18, "0." + "1" * 19, "1." + "0" * 19, "01", '"01"', "[1]", "-12.000",
    ],
    "properties": [
        '{"a":":","b":{"c":1,"c":2}}', '{"a":{"b":[1.0]}}', "{}", "[]", "null", f'{{"a":{"9" * 21}}}',
        f'{{"a":"{"9" * 21}"}}', '{"a":1e400}', '{"b":1,"a":"é"}', '{"a":1e2}', '{"\\u0000":1}',
        '{"a":' * 33 + "1" + "}" * 33, '{"a":' * 32 + "1" + "}" * 32, '{"a":1,\t"b" : [ 2 ]}', '{"a":0.10}',
    ],
    "void": ["true", "false", "0", '"true"'],
    "extra": ["1"],
}  # fmt: skip
ODD_FIELD = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.sampled_from(VALUES[name]).map(lambda value: f'"{name}":{value}')
)
GOOD_LINE = json.dumps(GOOD)


def with_fields(fields: list[str], replacing: bool) -> bytes:
    named = {field.split(":")[0] for field in fields}
    kept = [
        f'"{name}":"{value}"'
        for name, value in GOOD.items()
        if not (replacing and f'"{name}"' in named)
    ]
    return ("{" + ",".join(kept + fields) + "}").encode()


ODD_LINE = st.builds(with_fields, st.lists(ODD_FIELD, max_size=3), st.booleans())
BROKEN_LINE = st.sampled_from(
    [b"", b"{}", b"[]", b" " + GOOD_LINE.encode(), b"\xff", GOOD_LINE.encode() * 2]
) | st.integers(1, len(GOOD_LINE)).map(lambda length: GOOD_LINE[:length].encode())


def compare(lines: list[bytes], block: bytes) -> bool:
    """Compare with the exact rules, wherever the columns decide; whether they did."""
    decided = columns.of_lines(block, LIMITS)
    if decided is None:
        return False
    exact = [events.parse(line, LIMITS) for line in lines]
    accepted = [outcome for outcome, good in zip(exact, decided.good, strict=True) if good]
    assert rows_of(decided) == accepted
    return True


def rows_of(decided: columns.Columns) -> list[Event]:
    batch = pa.RecordBatch.from_arrays(decided.arrays, schema=columns.SCHEMA)
    rows = batch.filter(pa.array(decided.good)).to_pylist()
    return [Event(**row) for row in rows]


@settings(max_examples=60, deadline=None)
@given(st.lists(ODD_LINE, min_size=1, max_size=4), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_are_decided_as_by_the_exact_rules(lines: list[bytes], end: bytes) -> None:
    compare(lines, end.join(lines) + end)


@settings(max_examples=60, deadline=None)
@given(st.lists(ODD_LINE | BROKEN_LINE, min_size=1, max_size=4))
def test_broken_lines_are_never_taken_for_others(lines: list[bytes]) -> None:
    compare(lines, b"".join(line + b"\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in VALUES.items() for v in values]
)
def test_each_odd_value_among_good_lines(name: str, value: str) -> None:
    odd = with_fields([f'"{name}":{value}'], replacing=True)
    compare([GOOD_LINE.encode(), odd], GOOD_LINE.encode() + b"\n" + odd)


@pytest.mark.parametrize(
    "block",
    [
        '{"tenant_id":"a","event_type":\n"b","occurred_at":"2026-01-31T13:05:00Z","correlation_id":"c"}',
        f"{GOOD_LINE[:20]}\n{GOOD_LINE[20:]}{GOOD_LINE}",
        f"{GOOD_LINE}{GOOD_LINE}\n\n",
        f"\n{GOOD_LINE}",
    ],
)
def test_an_object_is_one_line_and_a_line_one_object(block: str) -> None:
    assert columns.of_lines(block.encode(), LIMITS) is None


def test_ordinary_lines_are_decided_at_once() -> None:
    ordinary = [
        {"quantity": "12.50", "properties": {"model": "é", "tokens": 3, "share": 0.10}},
        {"quantity": 3, "occurred_at": "2026-01-31T14:05:00.123456789+01:00"},
        {"properties": {"nested": {"list": [1, {"a": None}]}}, "void": True},
        {},
    ]
    lines = [json.dumps(GOOD | each, ensure_ascii=False).encode() for each in ordinary]
    assert compare(lines, b"\n".join(lines) + b"\n")
    decided = columns.of_lines(b"\n".join(lines), LIMITS)
    assert decided is not None
    assert decided.good.all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*(st.sampled_from(VALUES[name]) for name in ("quantity", "properties")))))
def test_tables_are_decided_as_by_the_exact_rules(odd: list[tuple[str, str]]) -> None:
    rows = [GOOD | {"quantity": q.strip('"'), "properties": p} for q, p in odd]
    table = pa.RecordBatch.from_pylist(
        rows, schema=pa.schema([(name, pa.string()) for name in (*GOOD, "quantity", "properties")])
    )
    decided = columns.of_table(table, LIMITS)
    if decided is None:
        return
    exact = [events.from_row(row, LIMITS) for row in rows]
    good = np.flatnonzero(decided.good)
    assert rows_of(decided) == [exact[place] for place in good]
