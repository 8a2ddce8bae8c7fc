"""The rules of an event, at each of their edges."""

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metering_pipeline.landing import events
from metering_pipeline.landing.events import Event, Limits, Rejection, parse
from metering_pipeline.landing.reasons import Reason, Refused
from metering_pipeline.settings import PROJECT_ROOT

HOUR = datetime(2026, 1, 31, 13, tzinfo=UTC)
LIMITS = Limits.of_hour(HOUR, date(2020, 1, 1), 60)
GOOD: dict[str, Any] = {
    "tenant_id": "acme",
    "event_type": "api.request",
    "occurred_at": "2026-01-31T13:05:00Z",
    "correlation_id": "req-1",
}
CLOUD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "//api",
    "type": "api.request",
    "subject": "acme",
    "time": "2026-01-31T13:05:00Z",
}
BASE = Event(
    "acme",
    "api.request",
    datetime(2026, 1, 31, 13, 5, tzinfo=UTC),
    "req-1",
    Decimal(1),
    "{}",
    False,
)


def line(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def with_text(name: str, text: str) -> bytes:
    """The good line with one more field, its value as literal JSON."""
    return f'{json.dumps(GOOD)[:-1]},"{name}":{text}}}'.encode()


def accepted(text: bytes) -> Event:
    outcome = parse(text, LIMITS)
    assert isinstance(outcome, Event), outcome
    return outcome


def rejected(text: bytes) -> Reason:
    outcome = parse(text, LIMITS)
    assert isinstance(outcome, Rejection), outcome
    assert outcome.detail
    return outcome.reason


def test_the_smallest_event() -> None:
    assert accepted(line()) == BASE


def test_all_fields() -> None:
    event = accepted(
        line(quantity=2.50, properties={"b": 1, "a": {"d": [1.0, True, None], "c": "é"}}, void=True)
    )
    assert event.quantity == Decimal("2.5")
    assert event.properties == '{"a":{"c":"é","d":[1,true,null]},"b":1}'
    assert event.void is True


@pytest.mark.parametrize("field", events.REQUIRED_FIELDS)
def test_required_fields(field: str) -> None:
    assert rejected(json.dumps({k: v for k, v in GOOD.items() if k != field}).encode()) == (
        Reason.MISSING_FIELD
    )
    assert rejected(line(**{field: None})) == Reason.MISSING_FIELD
    assert rejected(line(**{field: 7})) == Reason.WRONG_TYPE


@pytest.mark.parametrize("field", ["tenant_id", "event_type", "correlation_id"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 255, None),
        ("x" * 256, Reason.TEXT_TOO_LONG),
        ("é" * 127, None),
        ("é" * 128, Reason.TEXT_TOO_LONG),
        ("", Reason.EMPTY_TEXT),
        ("a\0b", Reason.CONTROL_CHARACTER),
        ("a\x1fb", Reason.CONTROL_CHARACTER),
        ("a\x7fb", Reason.CONTROL_CHARACTER),
        ("a\x85b", Reason.CONTROL_CHARACTER),
        ("a\x9f", Reason.CONTROL_CHARACTER),
        ("a\xa0b \u2028", None),
        ("with space: and colon\\", None),
    ],
)
def test_names(field: str, text: str, reason: Reason | None) -> None:
    for ascii_only in (True, False):
        written = json.dumps(GOOD | {field: text}, ensure_ascii=ascii_only).encode()
        if reason is None:
            assert getattr(accepted(written), field) == text
        else:
            assert rejected(written) == reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T13:05:00.1Z", datetime(2026, 1, 31, 13, 5, 0, 100_000, UTC)),
        ("2026-01-31T23:59:59.9999999+10:00", datetime(2026, 1, 31, 13, 59, 59, 999_999, UTC)),
        ("2026-01-31t13:05:00z", datetime(2026, 1, 31, 13, 5, tzinfo=UTC)),
        ("2026-01-31T18:35:00+05:30", datetime(2026, 1, 31, 13, 5, tzinfo=UTC)),
        ("2026-01-31T13:05:00-00:00", datetime(2026, 1, 31, 13, 5, tzinfo=UTC)),
        ("2020-01-01T00:00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2026-01-31T14:59:59.9999999Z", datetime(2026, 1, 31, 14, 59, 59, 999_999, UTC)),
        ("2026-01-31T15:00:00Z", Reason.IN_THE_FUTURE),
        ("2019-12-31T23:59:59.9999999Z", Reason.TOO_EARLY),
        ("2020-01-01T00:00:00+00:01", Reason.TOO_EARLY),
        ("2026-01-31T13:05:00", Reason.INVALID_TIME),
        ("2026-01-31 13:05:00Z", Reason.INVALID_TIME),
        ("2026-01-31T13:05Z", Reason.INVALID_TIME),
        ("20260131T130500Z", Reason.INVALID_TIME),
        ("2026-01-31T13:05:00,5Z", Reason.INVALID_TIME),
        ("2026-01-31T13:05:00.Z", Reason.INVALID_TIME),
        ("2026-01-31T13:05:60Z", Reason.INVALID_TIME),
        ("2026-01-31T24:00:00Z", Reason.INVALID_TIME),
        ("2026-01-31T13:05:00+24:00", Reason.INVALID_TIME),
        ("2026-01-31T13:05:00+0530", Reason.INVALID_TIME),
        ("2026-02-29T13:05:00Z", Reason.INVALID_TIME),
        ("0000-01-31T13:05:00Z", Reason.INVALID_TIME),
        ("0001-01-01T00:00:00+23:59", Reason.INVALID_TIME),
        ("\uff12026-01-31T13:05:00Z", Reason.INVALID_TIME),
        ("2026-01-31T13:05:00Z\n", Reason.INVALID_TIME),
        ("now", Reason.INVALID_TIME),
        ("", Reason.INVALID_TIME),
    ],
)
def test_times(text: str, expected: datetime | Reason) -> None:
    if isinstance(expected, datetime):
        assert accepted(line(occurred_at=text)).occurred_at == expected
    else:
        assert rejected(line(occurred_at=text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("1e6", "1000000"),
        ("1.50E+1", "15"),
        ("-2.5e-3", "-0.0025"),
        ("0e99999999999999999999999", "0"),
        ("1e0000000000000000000000001", "10"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
        ("99999999999999999999", "99999999999999999999"),
        ("1e19", "10000000000000000000"),
        ("1e20", Reason.NUMBER_OUT_OF_RANGE),
        ("100000000000000000000", Reason.NUMBER_OUT_OF_RANGE),
        ("-100000000000000000000.0", Reason.NUMBER_OUT_OF_RANGE),
        ("1e-18", "0.000000000000000001"),
        ("10e-19", "0.000000000000000001"),
        ("1e-19", Reason.NUMBER_OUT_OF_RANGE),
        ("0.1234567890123456789", Reason.NUMBER_OUT_OF_RANGE),
        ("0.1234567890123456780", "0.123456789012345678"),
        ("1e400", Reason.NUMBER_OUT_OF_RANGE),
        ("1e99999999999", Reason.NUMBER_OUT_OF_RANGE),
        ("9" * 5000, Reason.NUMBER_OUT_OF_RANGE),
        ("0." + "0" * 5000, "0"),
    ],
)
def test_quantities(text: str, expected: str | Reason) -> None:
    for written in (text, f'"{text}"'):
        if isinstance(expected, Reason):
            assert rejected(with_text("quantity", written)) == expected
        else:
            quantity = accepted(with_text("quantity", written)).quantity
            assert quantity == Decimal(expected)
            assert not quantity.is_signed() or quantity < 0
    # The same digits are the bound of numbers in the properties.
    if isinstance(expected, Reason):
        assert rejected(with_text("properties", f'{{"a":[{text}]}}')) == expected
        assert rejected(with_text("properties", f'{{"a":{text}}}')) == expected
    else:
        assert (
            accepted(with_text("properties", f'{{"a":{text}}}')).properties == f'{{"a":{expected}}}'
        )


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "", " 1", "1 ", "+1", ".5", "5.", "01", "1_0", "٣", "0x1"],
)
def test_texts_that_are_no_quantity(text: str) -> None:
    assert rejected(line(quantity=text)) == Reason.INVALID_NUMBER


@pytest.mark.parametrize("value", [None, True, [], {}])
def test_types_that_are_no_quantity(value: object) -> None:
    assert rejected(line(quantity=value)) == Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", Reason.INVALID_JSON),
        (b"{", Reason.INVALID_JSON),
        (b"{} {}", Reason.INVALID_JSON),
        (b"\xef\xbb\xbf{}", Reason.INVALID_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b"1", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'{"quantity":NaN}', Reason.INVALID_JSON),
        (b'{"a":"\xff"}', Reason.INVALID_UTF8),
        (b"\xff", Reason.INVALID_UTF8),
        (b'{"a":"\xed\xa0\x80"}', Reason.INVALID_UTF8),
        (b"[" * 100_000, Reason.TOO_DEEP),
        (b"x" * (events.MAX_LINE_BYTES + 1), Reason.LINE_TOO_LONG),
        (line(quantty=3), Reason.UNKNOWN_FIELD),
        (line(void=1), Reason.WRONG_TYPE),
        (line(void="true"), Reason.WRONG_TYPE),
        (line(void=None), Reason.WRONG_TYPE),
        (line(properties=None), Reason.WRONG_TYPE),
        (line(properties=[]), Reason.WRONG_TYPE),
        (line(properties={"a": "\0"}), Reason.NUL_CHARACTER),
        (line(properties={"\0": 1}), Reason.NUL_CHARACTER),
        (line(properties={"a": [{"b\0": 1}]}), Reason.NUL_CHARACTER),
        (with_text("properties", '{"a":"\\ud800"}'), Reason.LONE_SURROGATE),
        (with_text("properties", '{"\\udc00":1}'), Reason.LONE_SURROGATE),
        (with_text("properties", '{"a":1,"a":1}'), Reason.DUPLICATE_KEY),
        (with_text("properties", '{"a":1,"\\u0061":2}'), Reason.DUPLICATE_KEY),
        (with_text("properties", '{"a":1,"a":"\\u003a"}'), Reason.DUPLICATE_KEY),
        (with_text("properties", '{"a":[{"b":{"c":1,"c":":"}}]}'), Reason.DUPLICATE_KEY),
        (with_text("tenant_id", '"acme"'), Reason.DUPLICATE_KEY),
        (with_text("tenant_id", '"other"'), Reason.DUPLICATE_KEY),
        (with_text("properties", '{"a":' * 32 + "1" + "}" * 32), None),
        (with_text("properties", '{"a":' * 33 + "1" + "}" * 33), Reason.TOO_DEEP),
        (with_text("properties", '{"a":' + "[" * 31 + "]" * 31 + "}"), None),
        (with_text("properties", '{"a":' + "[" * 32 + "]" * 32 + "}"), Reason.TOO_DEEP),
        (line(properties={"a": "\x7f\x85\\u0000"}), None),
        (b" \t" + line() + b"\r", None),
    ],
)
def test_lines(text: bytes, reason: Reason | None) -> None:
    if reason is None:
        accepted(text)
    else:
        assert rejected(text) == reason


def test_a_cloud_event_is_the_same_event() -> None:
    cloud = CLOUD | {
        "data": {"quantity": "2.50", "model": "small", "n": 1.0},
        "void": True,
        "datacontenttype": "application/json",
        "traceparent": "00-ab",
        "sampledrate": 30,
    }
    canonical = line(
        correlation_id="//api 1", quantity=2.5, properties={"n": 1, "model": "small"}, void=True
    )
    assert accepted(json.dumps(cloud).encode()) == accepted(canonical)
    assert accepted(json.dumps(dict(reversed(cloud.items()))).encode()) == accepted(canonical)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": None, "void": None, "dataschema": None}, None),
        ({"id": "with space:"}, None),
        ({"specversion": "0.3"}, Reason.INVALID_CLOUDEVENT),
        ({"specversion": 1.0}, Reason.INVALID_CLOUDEVENT),
        ({"source": "a b"}, Reason.INVALID_CLOUDEVENT),
        ({"data_base64": "e30="}, Reason.INVALID_CLOUDEVENT),
        ({"extension": {"a": 1}}, Reason.INVALID_CLOUDEVENT),
        ({"subject": None}, Reason.MISSING_FIELD),
        ({"subject": ""}, Reason.EMPTY_TEXT),
        ({"id": None}, Reason.MISSING_FIELD),
        ({"time": None}, Reason.MISSING_FIELD),
        ({"time": "yesterday"}, Reason.INVALID_TIME),
        ({"source": "s" * 200, "id": "i" * 54}, None),
        ({"source": "s" * 200, "id": "i" * 55}, Reason.TEXT_TOO_LONG),
        ({"data": []}, Reason.WRONG_TYPE),
        ({"data": {"quantity": None}}, Reason.WRONG_TYPE),
        ({"data": {"quantity": "many"}}, Reason.INVALID_NUMBER),
        ({"data": {"a": "\0"}}, Reason.NUL_CHARACTER),
        ({"void": "true"}, Reason.WRONG_TYPE),
        ({"bignumber": 10**30}, None),
    ],
)
def test_cloud_events(changes: dict[str, Any], reason: Reason | None) -> None:
    text = json.dumps(CLOUD | changes).encode()
    if reason is None:
        accepted(text)
    else:
        assert rejected(text) == reason


def test_duplicate_keys_of_a_cloud_event() -> None:
    text = json.dumps(CLOUD)[:-1]
    assert rejected(f'{text},"id":"2"}}'.encode()) == Reason.DUPLICATE_KEY
    assert rejected(f'{text},"ext":1,"ext":2}}'.encode()) == Reason.DUPLICATE_KEY
    assert rejected(f'{text},"ext":1e999,"ext":2}}'.encode()) == Reason.DUPLICATE_KEY
    assert rejected(f'{text},"data":{{"a":1,"a":2}}}}'.encode()) == Reason.DUPLICATE_KEY


def test_the_detail_names_the_field() -> None:
    outcome = parse(line(properties={"usage": [{"tokens": 10**20}]}), LIMITS)
    assert isinstance(outcome, Rejection)
    assert outcome.detail.startswith("properties.usage[0].tokens: ")


def test_rows() -> None:
    row: dict[str, object] = dict(GOOD) | {"quantity": None, "properties": None, "void": None}
    assert events.from_row(row, LIMITS) == BASE
    cases: list[tuple[dict[str, object], Reason]] = [
        ({"quantity": 0.5}, Reason.INEXACT_NUMBER),
        ({"quantity": Decimal("1e-19")}, Reason.NUMBER_OUT_OF_RANGE),
        ({"properties": "[1]"}, Reason.WRONG_TYPE),
        ({"properties": '{"a":1,"a":2}'}, Reason.DUPLICATE_KEY),
        ({"tenant_id": b"\xff"}, Reason.INVALID_UTF8),
        ({"tenant_id": None}, Reason.MISSING_FIELD),
        ({"void": "yes"}, Reason.WRONG_TYPE),
        ({"occurred_at": "2026-01-31"}, Reason.INVALID_TIME),
        ({"occurred_at": datetime(2027, 1, 1, tzinfo=UTC)}, Reason.IN_THE_FUTURE),
    ]
    for changes, reason in cases:
        outcome = events.from_row(row | changes, LIMITS)
        assert isinstance(outcome, Rejection)
        assert outcome.reason == reason


def test_every_reason_is_explained() -> None:
    readme = (Path(events.__file__).parent / "README.md").read_text()
    assert [reason for reason in Reason if f"`{reason}`" not in readme] == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**21), 10**21)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def oracle(value: object) -> str:
    """Canonical text by another way: Python's JSON reader and Decimal."""
    if isinstance(value, dict):
        items = sorted(value.items(), key=lambda item: item[0].encode())
        return "{" + ",".join(f"{oracle(key)}:{oracle(each)}" for key, each in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(oracle, value)) + "]"
    if isinstance(value, Decimal):
        digits = value.normalize()
        exponent = digits.as_tuple().exponent
        assert isinstance(exponent, int)
        if digits and (digits.adjusted() >= 20 or exponent < -18):
            raise OverflowError
        return format(digits, "f") if digits else "0"
    if isinstance(value, str) and "\0" in value:
        raise OverflowError
    return json.dumps(value, ensure_ascii=False)


def decimal(literal: str) -> Decimal:
    """Exactly, whatever the context."""
    return Decimal(literal)


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4), st.booleans())
def test_canonical_text_equals_an_independent_one(
    properties: dict[str, object], ascii_only: bool
) -> None:
    text = json.dumps(properties, ensure_ascii=ascii_only)
    expected: str | None
    try:
        expected = oracle(json.loads(text, parse_int=decimal, parse_float=decimal))
    except OverflowError:
        expected = None
    if expected is None:
        with pytest.raises(Refused, match=r"number_out_of_range|nul_character"):
            events.properties_text(text)
        return
    assert events.properties_text(text) == expected
    assert events.properties_text(expected) == expected
    assert events.properties_text(json.dumps(dict(reversed(properties.items())))) == expected
    # A line says the same as the text alone.
    assert accepted(with_text("properties", text)).properties == expected


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b'{"specversion":"1.0","a":{"b":[]}}')
def test_any_line_is_decided(text: bytes) -> None:
    assert isinstance(parse(text, LIMITS), Rejection)


PAGE = (PROJECT_ROOT / "docs" / "events.md").read_text()


def test_the_page_for_producers_says_what_is_done() -> None:
    [examples] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert len([accepted(text.encode()) for text in examples.splitlines()]) == 3
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| `(\w+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 9
    for taken, canonical_form, refused, reason in rows:
        if ":" in taken:
            assert accepted(line(occurred_at=taken)).occurred_at.isoformat() == canonical_form
            assert rejected(line(occurred_at=refused)) == reason
        else:
            assert format(accepted(with_text("quantity", taken)).quantity, "f") == canonical_form
            assert rejected(with_text("quantity", refused)) == reason
