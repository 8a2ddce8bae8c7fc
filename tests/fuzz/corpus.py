"""Hostile input, seeded: odd and broken lines and files among good ones, the same for each seed.

What becomes of them is not said here: that is the oracle's.
"""

# ruff: noqa: RUF001 - characters that look like others are meant

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.oracle import Accepted, Instant

HOUR = datetime(2026, 1, 31, 13, tzinfo=UTC)
COLUMNS = (
    *("tenant_id", "event_type", "occurred_at", "correlation_id"),
    *("quantity", "properties", "void"),
)
MEBIBYTE = 1 << 20


class File(NamedTuple):
    """A file to land. ``rows`` are a Parquet file's cells, as the oracle takes them."""

    name: str
    content: bytes
    rows: Sequence[Mapping[str, object]] = ()
    readable: bool = True


# Values, as JSON writes them

TEXTS = [
    *(
        "a",
        "acme",
        "with space",
        " lead",
        "trail ",
        "  ",
        "a:b",
        "a,b",
        '"',
        "\\",
        "a\\u0000",
        "{}",
    ),
    *("null", "true", "0", "-1", "NaN", "é", "e\u0301", "\u00a0", "\u2028", "\u2029", "\ufeff"),
    *(
        "\ufffd",
        "\uffff",
        "\ue000",
        "😀",
        "👨\u200d👩\u200d👧",
        "\U0010ffff",
        "\u202eabc",
        "ﬁ",
        "ß",
        "İ",
    ),
    *("x" * 254, "x" * 255, "x" * 256, "x" * 257, "é" * 127, "é" * 127 + "x", "é" * 128),
    *(
        "€" * 85,
        "€" * 85 + "x",
        "😀" * 63 + "abc",
        "😀" * 64,
        "x" * 5000,
        "x" * 255 + " ",
        "é" * 255,
    ),
    "",
    *(f"a{chr(code)}b" for code in [*range(0, 33), *range(126, 162), 0x2028, 0xFFFE]),
    *("\0", "\x7f", "\x80", "\x9f", "a\n", "\ta", "a\r"),
]
TIMES = [
    *("2026-01-31T13:05:00Z", "2026-01-31t13:05:00z", "2026-01-31T13:05:00.Z"),
    *("2026-01-31 13:05:00Z", "2026-01-31_13:05:00Z", "2026-01-31T13:05:00", "2026-01-31"),
    *("2026-01-31T13:05Z", "2026-01-31T13Z", "20260131T130500Z", "2026-031T13:05:00Z"),
    *("2026-W05-6T13:05:00Z", "2026-1-31T13:05:00Z", "26-01-31T13:05:00Z", "+2026-01-31T13:05:00Z"),
    *("2026-01-31T13:05:00,5Z", "2026-01-31T13:05:00.5", "2026-01-31T13:05:00.5 Z"),
    *(" 2026-01-31T13:05:00Z", "2026-01-31T13:05:00Z ", "2026-01-31T13:05:00Z\n", "\t", "", "now"),
    *("2026-01-31T13:05:00ZZ", "2026-01-31T13:05:00z+00:00", "2026-01-31T13:05:00UTC"),
    *("2026-01-31T13:05:00+00:00Z", "2026-01-31T13:05:00[UTC]", "1769864700", "1769864700.25"),
    *(
        "2026-01-31T24:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T13:60:00Z",
        "2026-01-31T13:05:61Z",
    ),
    *(
        "2026-01-31T12:59:60Z",
        "2025-12-31T23:59:60Z",
        "2016-12-31T23:59:60Z",
        "2026-01-30T23:59:60.5Z",
    ),
    *(
        "2026-02-29T00:00:00Z",
        "2025-02-30T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-00-10T00:00:00Z",
    ),
    *(
        "2026-13-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2025-11-31T00:00:00Z",
        "2024-02-29T12:00:00Z",
    ),
    *(
        "2100-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0000-02-30T00:00:00Z",
    ),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "0001-01-01T00:00:00.0000001-23:59"),
    *("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59.9999999Z"),
    *("10000-01-01T00:00:00Z", "1969-12-31T23:59:59.9999999Z", "1970-01-01T00:00:00Z"),
    *("1678-01-01T00:00:00Z", "2262-04-11T23:47:16.854775808Z", "2554-07-21T23:34:33Z"),
    *("2019-12-31T23:59:59Z", "2019-12-31T23:59:59.999999Z", "2019-12-31T23:59:59.9999999Z"),
    *("2020-01-01T00:00:00Z", "2020-01-01T00:00:00.0000009Z", "2020-01-01T00:00:00+00:01"),
    *(
        "2019-12-31T23:59:00-00:01",
        "2019-12-31T23:58:59.9999999-00:01",
        "2020-01-01T05:30:00+05:30",
    ),
    *("2026-01-31T14:59:59.999999Z", "2026-01-31T14:59:59.9999999Z", "2026-01-31T15:00:00Z"),
    *("2026-01-31T15:00:00.0000001Z", "2026-01-31T14:59:59.99999999999999999999Z"),
    *("2026-01-31T15:00:00+00:01", "2026-01-31T14:59:00-00:01", "2026-01-31T20:30:00+05:30"),
    *("2026-01-31T13:05:00+05:30", "2026-01-31T13:05:00-00:00", "2026-01-31T13:05:00+00:00"),
    *("2026-01-31T13:05:00+14:00", "2026-01-31T01:05:00-12:00", "2026-01-31T13:05:00+23:59"),
    *("2026-01-30T13:05:00-23:59", "2026-01-31T13:05:00+24:00", "2026-01-31T13:05:00+05:60"),
    *("2026-01-31T13:05:00+0530", "2026-01-31T13:05:00+05", "2026-01-31T13:05:00+5:30"),
    *(
        "2026-01-31T13:05:00+05:30:00",
        "2026-01-31T13:05:00\u221205:30",
        "2026-01-31T13:05:00 05:30",
    ),
    *("２026-01-31T13:05:00Z", "2026-01-31T13:05:0٣Z", "2026-01-31T13:05:00.１Z"),
    *("2026‐01‐31T13:05:00Z", "2026-01-31T13:05:00.0000001Z", "2026-01-30T23:59:59.9999999Z"),
    *(f"2026-01-31T13:05:00.{'123456789' * 30}"[: 20 + digits] + "Z" for digits in range(1, 13)),
    *("2026-01-31T13:05:00." + "0" * 5000 + "1Z", "2026-01-31T00:59:59.9999995+01:00"),
    *(
        "2026-01-31T13:05:00.000000Z",
        "2026-01-31T13:05:00.1000000000z",
        "2026-01-31T13:05:00.05+00:00",
    ),
]
NUMBERS = [
    *("0", "-0", "0.0", "-0.0", "-0e5", "0e99999999999999999999", "1", "-1", "1.0", "1.50", "-2.5"),
    *("1e6", "1E6", "1E+2", "1e+0", "1e-0", "1E-2", "1e00", "1e05", "1e-005", "12.50e1", "1.5e-3"),
    *("1e-18", "1e-19", "10e-19", "9.9e-18", "1.0e-18", "1.5e-18", "0.000000000000000001"),
    *("0.0000000000000000001", "0.0000000000000000010", "1e19", "1e20", "9e19", "99e18", "99e19"),
    *("1e400", "1e-400", "-1e400", "1e308", "1e309", "5e-324", "1e999999999999", "1e-999999999999"),
    *(
        "1e2147483648",
        "1e9223372036854775808",
        "0.1e20",
        "0.1e21",
        "0.01e22",
        "0.00001e24",
        "1e0000019",
    ),
    *("9007199254740993", "-9007199254740993", "9223372036854775807", "9223372036854775808"),
    *(
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
    ),
    *(
        "99999999999999999999",
        "100000000000000000000",
        "-99999999999999999999",
        "-100000000000000000000",
    ),
    *("99999999999999999999.999999999999999999", "-99999999999999999999.999999999999999999"),
    *("99999999999999999999.9999999999999999999", "12345678901234567890.123456789012345678"),
    *(
        "12345678901234567890.1234567890123456780000",
        "123456789012345678901.5",
        "0.1234567890123456789",
    ),
    *("1234567890123456789012345678901234567.8", "12345678901234567890123456789012345678"),
    *("0.1", "0.2", "0.30000000000000004", "1.1", "2.675", "1.005", "123456789.123456789", "1e-7"),
    *(
        "1." + "0" * 30,
        "1." + "0" * 19 + "1",
        "1" + "0" * 19 + ".0",
        "1" + "0" * 20 + ".0",
        "0." + "0" * 4000,
    ),
    *(
        "9" * 19,
        "9" * 39,
        "9" * 5000,
        "-" + "9" * 5000,
        "9" * 4299,
        "9" * 4301,
        "1" * 21,
        "0." + "1" * 5000,
    ),
    *(
        "1" + "0" * 5000 + "e-5000",
        "0." + "0" * 5000 + "1e5001",
        "1.5" + "0" * 400 + "e1",
        "1e1",
        "1E1",
    ),
    *(
        "123456789012345678.5",
        "1234567890123456.75",
        "-0.000",
        "-0.10",
        "100",
        "1200.00",
        "1e2",
        "10e1",
    ),
]
NO_NUMBERS = [
    *(
        "+1",
        ".5",
        "5.",
        "01",
        "-01",
        "00",
        "-",
        "--1",
        "1e",
        "1e+",
        "1.e5",
        "e5",
        "0x1",
        "1_0",
        "1,5",
    ),
    *(
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "1f",
        "1d",
        "1.2.3",
        "1 2",
        "- 1",
        "٣",
        "1e1.5",
        "1n",
    ),
    *(
        " 1",
        "1 ",
        "\u00a01",
        "1\u00a0",
        "1\u2028",
        "'1'",
        "1e99999999999999999999x",
        "1:2",
        "٣",
        "１",
    ),
]
OTHERS = [
    *("null", "true", "false", "0", "1", "1.5", '""', '"x"', "[]", "{}", "[1]", '{"a":1}', "[[]]"),
    *('"true"', '"null"', '"{}"', "[null]", "-0", "1e400", "9" * 100),
]
QUOTED = ['"1"', '"5', '5"', '"', '""', '"1.5"', "\n1", "1\n", "1\r", "true", "[]", "null"]
NO_JSON = [
    *(
        "",
        "nul",
        "True",
        "None",
        "undefined",
        "'x'",
        '"x',
        "x",
        '"\\x"',
        '"\\u12"',
        '"\\u00zz"',
        '"\t"',
    ),
    *(
        '"\x01"',
        '"\x00"',
        "[1,]",
        "[,]",
        "[1",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        "{a:1}",
        "{'a':1}",
        "1;",
    ),
    *(
        "/**/1",
        "1 // c",
        '"a" "b"',
        "[1 2]",
        '"a"+"b"',
        "\ufeff1",
        "\u00a01",
        "\u2028",
        "tru",
        '"\\',
    ),
]
BYTES = [
    *(
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xc0\xaf"',
        b'"\xe0\x80\xaf"',
        b'"\xf0\x80\x80\xaf"',
        b'"\xed\xa0\x80"',
    ),
    *(
        b'"\xed\xa0\xbd\xed\xb8\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xc3"',
        b'"\xe2\x82"',
        b'"\xf0\x9f\x98"',
    ),
    *(
        b'"\x80"',
        b'"\xfe\xff"',
        b'"\xc3\x28"',
        b'"\xf8\x88\x80\x80\x80"',
        b"\xff",
        b'"a\xc3\xa9\xc3"',
    ),
]
ESCAPES = [
    *('"\\ud800"', '"\\udc00"', '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"\\ud83dx"', '"x\\ud83d"'),
    *(
        '"\\ud83d\\ude00"',
        '"\\uD83D\\uDE00"',
        '"\\ud83d\\u0041"',
        '"\\u0000"',
        '"\\u001f"',
        '"\\u007f"',
    ),
    *(
        '"\\u0080"',
        '"\\u009F"',
        '"\\u00a0"',
        '"\\u2028"',
        '"\\/"',
        '"\\b\\f"',
        '"\\t"',
        '"\\\\u0000"',
    ),
    *(
        '"\\\\\\u0000"',
        '"\\u003a"',
        '"\\u0022"',
        '"\\u005c"',
        '"\\uffff"',
        '"\\ufeff"',
        '"\\u0061cme"',
    ),
    *(
        '"e\\u0301"',
        '"\\ud800\\\\udc00"',
        '"a\\\nb"',
        '"\\U0041"',
        '"\\u{41}"',
        '"\\a"',
        '"\\0"',
        '"\\\'"',
    ),
]
KEYS = [
    *(
        "a",
        "b",
        "z",
        "Z",
        "",
        " ",
        "10",
        "9",
        "é",
        "e\u0301",
        "\u00ff",
        "\u07ff",
        "\u0800",
        "\ud7ff",
    ),
    *(
        "\ue000",
        "\ufb01",
        "\uffff",
        "\U00010000",
        "😀",
        "\U0010ffff",
        '"',
        "\\",
        "\n",
        "\x1f",
        "\x7f",
        "\x80",
    ),
    *(":", "a:b", "quantity", "tenant_id", "\u2028", "aa", "a\x01", "a ", "k" * 300),
]


def write(random: Random, value: object) -> str:
    """JSON that says this, spelled in one of its many ways."""
    blank = random.choice(["", "", "", " ", "\t", " \r"])
    if isinstance(value, dict):
        pairs = (
            f"{write(random, key)}{blank}:{write(random, each)}" for key, each in value.items()
        )
        return "{" + blank + f"{blank},{blank}".join(pairs) + "}" + blank
    if isinstance(value, list):
        return "[" + blank + f",{blank}".join(write(random, each) for each in value) + blank + "]"
    if isinstance(value, Decimal):
        return _number(random, value)
    if isinstance(value, str) and random.random() < 0.2:
        return '"' + "".join(_escaped(random, character) for character in value) + '"'
    return json.dumps(value, ensure_ascii=random.random() < 0.3)


def _escaped(random: Random, character: str) -> str:
    units = character.encode("utf-16-be")
    if random.random() < 0.3:
        written = "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
        return written if random.random() < 0.5 else written.upper().replace("\\U", "\\u")
    return json.dumps(character, ensure_ascii=random.random() < 0.5)[1:-1]


def _number(random: Random, value: Decimal) -> str:
    shift = random.choice([0, 0, 0, 1, -1, 3, -6, 25])
    text = f"{value.scaleb(-shift):f}"
    if "." in text and random.random() < 0.3:
        text += "0" * random.choice([1, 2, 30])
    return (
        text
        if not shift
        else f"{text}{random.choice('eE')}{random.choice(['', '+'] if shift > 0 else [''])}{shift}"
    )


def document(random: Random, depth: int = 3) -> object:
    """Some JSON value, mostly of what may stand in properties."""
    kind = random.random()
    if depth and kind < 0.25:
        keys = random.sample(KEYS, random.randint(0, 4))
        return {key: document(random, depth - 1) for key in keys}
    if depth and kind < 0.4:
        return [document(random, depth - 1) for _ in range(random.randint(0, 3))]
    if kind < 0.7:
        digits = random.randint(0, 38)
        return Decimal(random.randint(-(10**digits), 10**digits)).scaleb(-random.randint(0, 18))
    if kind < 0.9:
        return random.choice([*TEXTS, *KEYS])
    return random.choice([None, True, False])


def properties(random: Random) -> dict[str, object]:
    return {key: document(random) for key in random.sample(KEYS, random.randint(0, 5))}


class Lines:
    """Lines of NDJSON; no two events of ``good`` are copies of each other."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._made = 0

    def good(self) -> dict[str, str]:
        """The fields of an ordinary event, as JSON."""
        self._made += 1
        random = self._random
        minute, second = random.randrange(60), random.randrange(60)
        fields = {
            "tenant_id": json.dumps(random.choice(["acme", "globex", "initech"])),
            "event_type": json.dumps(random.choice(["api.request", "llm.tokens"])),
            "occurred_at": f'"2026-01-31T13:{minute:02}:{second:02}{random.choice(["", ".25"])}Z"',
            "correlation_id": f'"req-{self._made}"',
        }
        if random.random() < 0.6:
            fields["quantity"] = random.choice(["3", "2.50", '"1e3"', "0.125", "1200"])
        if random.random() < 0.6:
            fields["properties"] = '{"model":"small","input_tokens":812,"cost":0.0025}'
        if random.random() < 0.05:
            fields["void"] = random.choice(["true", "false"])
        return fields

    def cloud(self) -> dict[str, str]:
        """The fields of an ordinary CloudEvent, as JSON."""
        self._made += 1
        fields = {
            "specversion": '"1.0"',
            "id": f'"{self._made}"',
            "source": '"//api"',
            "type": '"api.request"',
            "subject": '"acme"',
            "time": '"2026-01-31T13:05:00Z"',
        }
        if self._random.random() < 0.7:
            fields["data"] = '{"quantity":"2.50","model":"small","n":1.0}'
        return fields

    def join(self, fields: dict[str, str] | Sequence[tuple[str, str]]) -> bytes:
        """An object of these, sometimes with blanks; keys as given, twice if they are."""
        pairs = fields.items() if isinstance(fields, dict) else fields
        blank = self._random.choice(["", "", "", " ", "\t"])
        inside = f",{blank}".join(f"{json.dumps(key)}:{blank}{value}" for key, value in pairs)
        return ("{" + inside + "}").encode("utf-8", "surrogatepass")

    def ordinary(self) -> bytes:
        return self.join(self.good())

    def each_value(self) -> Iterator[bytes]:
        """Each odd value in each field, of both kinds of events."""
        texts = [json.dumps(text, ensure_ascii=False) for text in TEXTS]
        texts += [json.dumps(text) for text in TEXTS]
        anywhere = [*OTHERS, *NO_JSON, *ESCAPES, *NO_NUMBERS]
        times = [json.dumps(time, ensure_ascii=False) for time in TIMES]
        numbers = [
            *NUMBERS,
            *(f'"{number}"' for number in [*NUMBERS, *NO_NUMBERS, " 1", "1 ", "1\\n"]),
        ]
        names = {"tenant_id": "subject", "event_type": "type", "correlation_id": "id"}
        wanted = {
            **dict.fromkeys(names, texts),
            "occurred_at": times,
            "quantity": numbers,
            "properties": [],
            "void": [],
        }
        for field, values in wanted.items():
            for value in [*values, *anywhere]:
                yield self.join(self.good() | {field: value})
            for odd in BYTES:
                yield self.join(self.good() | {field: "@"}).replace(b"@", odd)
        for field, values in wanted.items():
            attribute = names.get(field) or {"occurred_at": "time"}.get(field)
            for value in [*values[::2], *OTHERS]:
                if attribute is not None:
                    yield self.join(self.cloud() | {attribute: value})
                elif field == "quantity":
                    yield self.join(self.cloud() | {"data": f'{{"quantity":{value},"a":1}}'})
                else:
                    yield self.join(self.cloud() | {field: value})

    def in_properties(self) -> Iterator[bytes]:
        """Each odd value inside properties and data, shallow and deep; each key."""
        random = self._random
        values = [*NUMBERS, *NO_NUMBERS, *OTHERS, *NO_JSON, *ESCAPES]
        values += [json.dumps(text, ensure_ascii=False) for text in [*TEXTS, *KEYS]]
        for value in values:
            for inside in (f'{{"a":{value}}}', f'{{"a":[{{"b":[{value}]}}],"c":1}}'):
                yield self.join(self.good() | {"properties": inside})
            yield self.join(self.cloud() | {"data": f'{{"a":{value},"quantity":2}}'})
        for odd in BYTES:
            yield self.join(self.good() | {"properties": '{"a":@}'}).replace(b"@", odd)
            yield self.join(self.good() | {"properties": "{@:1}"}).replace(b"@", odd)
        for key in [*ESCAPES, *map(json.dumps, TEXTS), "a", "1", "null", "'a'"]:
            yield self.join(self.good() | {"properties": f"{{{key}:1}}"})
        for _ in range(1500):
            written = write(random, properties(random))
            yield self.join(self.good() | {"properties": written})
            if random.random() < 0.3:
                yield self.join(self.cloud() | {"data": written})

    def keys(self) -> Iterator[bytes]:
        """Fields left out, added, misspelt, given twice at any depth and in any spelling."""
        for field in COLUMNS:
            fields = self.good() | {"quantity": "1", "properties": "{}", "void": "false"}
            yield self.join({key: value for key, value in fields.items() if key != field})
            for value in (fields[field], "7", "null", '"x"'):
                pairs = [*fields.items(), (field, value)]
                yield self.join(pairs)
                yield self.join(pairs[::-1])
                yield self.join(pairs).replace(
                    b'"' + field.encode(),
                    b'"\\u00' + field.encode().hex()[:2].encode() + field[1:].encode(),
                    1,
                )
            for misspelt in (
                field.upper(),
                field + " ",
                field[:-1],
                field + "\u200b",
                field.replace("_", ""),
            ):
                yield self.join(self.good() | {misspelt: fields[field]})
        for name in ("", "id", "time", "subject", "specVersion", "__proto__", "é", "\ud83d", "a:b"):
            for value in ("1", '"x"', '{"a":{}}', "null"):
                yield self.join(self.good() | {name: value})
        for twice in (
            *(
                '{"a":1,"a":1}',
                '{"a":1,"a":2}',
                '{"a":1,"\\u0061":1}',
                '{"\\u0061":1,"a":1}',
                '{"":1,"":2}',
            ),
            *(
                '{"a":{"b":1,"b":2}}',
                '{"a":[{"b":1},{"b":1}]}',
                '{"a":[{"b":1,"c":2,"b":1}]}',
                '{"a":1,"A":1}',
            ),
            *(
                '{"a":1,"a":":"}',
                '{"a":":","a":1}',
                '{"a":1,"a":"\\u003a"}',
                '{"a:":1,"a:":1}',
                '{"é":1,"e\u0301":1}',
            ),
            *(
                '{"a":{},"a":{}}',
                '{"a":[],"a":":"}',
                '{"\U0001f600":1,"\\ud83d\\ude00":1}',
                '{"a":"::","b":{"c":1,"c":1}}',
            ),
            '{"a":1,"a":1e400}',
            '{"a":"x","a":"\\u0000"}',
        ):
            yield self.join(self.good() | {"properties": twice})
            yield self.join(self.cloud() | {"data": twice})
        yield self.join([*self.cloud().items(), ("specversion", '"1.0"')])
        yield self.join([*self.cloud().items(), ("ext", "1"), ("ext", "2")])
        yield self.join([*self.cloud().items(), ("data", '{"quantity":7}'), ("data", "null")])

    def clouds(self) -> Iterator[bytes]:
        """CloudEvents and mixtures of both kinds."""
        for changes in (
            *(
                {"specversion": value}
                for value in ('"0.3"', '"1.0.2"', '"1"', "1.0", "1", "null", '""', "[]", "{}")
            ),
            *(
                {"source": value}
                for value in (
                    '"a b"',
                    '" a"',
                    '""',
                    "null",
                    "1",
                    '"a\\tb"',
                    '"a\\u0020b"',
                    '"é"',
                    f'"{"s" * 255}"',
                )
            ),
            *(
                {"id": value}
                for value in (
                    '"a b"',
                    '" "',
                    '""',
                    "null",
                    "1",
                    f'"{"i" * 249}"',
                    f'"{"i" * 250}"',
                    f'"{"é" * 125}"',
                )
            ),
            *(
                {"data": value}
                for value in (
                    "null",
                    "[]",
                    '"x"',
                    "1",
                    "{}",
                    '{"quantity":null}',
                    '{"quantity":{}}',
                    '{"quantity":true}',
                )
            ),
            *(
                {"data": value}
                for value in (
                    '{"quantity":"x"}',
                    '{"quantity":1e400}',
                    '{"a":{"quantity":5}}',
                    '{"data":{"quantity":5}}',
                )
            ),
            *({"data_base64": value} for value in ('"e30="', "null", '""', "1")),
            *({"void": value} for value in ("true", "false", "null", '"true"', "1", "{}")),
            *(
                {"ext": value}
                for value in (
                    "1",
                    '"x"',
                    "true",
                    "null",
                    "{}",
                    "[]",
                    '{"a":[]}',
                    "1e400",
                    "9" * 30,
                    '"\\u0000"',
                    '"\\ud800"',
                )
            ),
            *({name: "1"} for name in ("tenant_id", "event_type", "occurred_at", "correlation_id")),
            {
                "datacontenttype": '"text/xml"',
                "dataschema": '"//x"',
                "traceparent": '"00-ab-cd-01"',
            },
            {"properties": '{"a":1}'},
            {"properties": "7"},
        ):
            fields = self.cloud() | changes
            yield self.join(fields)
            yield self.join(dict(reversed(fields.items())))
        for name in self.cloud():
            yield self.join({key: value for key, value in self.cloud().items() if key != name})
        for name, value in self.cloud().items():
            yield self.join(self.good() | {name: value})
        yield self.join(self.good() | {"specversion": '"1.0"'})
        yield self.join(self.good() | self.cloud())
        yield self.join(self.cloud() | self.good())
        yield b"[" + self.join(self.cloud()) + b"]"

    def shapes(self) -> Iterator[bytes]:
        """Whole lines: other documents, depth, blanks, cut and joined lines."""
        yield from (text.encode() for text in [*OTHERS, *NUMBERS, *NO_NUMBERS, *NO_JSON, *ESCAPES])
        yield from BYTES
        yield from (
            b"\xef\xbb\xbf" + self.ordinary(),
            self.ordinary() + b"\xef\xbb\xbf",
            b"\xef\xbb\xbf",
        )
        yield from (
            self.ordinary().decode().encode(each)
            for each in ("utf-16-le", "utf-16-be", "utf-32-le")
        )
        for blank in (
            b" ",
            b"\t",
            b"\r",
            b" \t\r",
            b"\x0b",
            b"\x0c",
            b"\xc2\xa0",
            b"\x00",
            b"\x1e",
            b"\xe2\x80\xa8",
        ):
            yield blank
            yield from (
                blank + self.ordinary(),
                self.ordinary() + blank,
                self.ordinary() + blank + self.ordinary(),
            )
            yield self.ordinary().replace(b":", blank + b":" + blank, 1)
        yield from (
            self.ordinary() + end
            for end in (
                self.ordinary(),
                b",",
                b"}",
                b"{}",
                b"]",
                b"\x00",
                b"#",
                b"//",
                b"1",
                b"null",
                b"{",
            )
        )
        yield b"[" + self.ordinary() + b"]"
        yield json.dumps(self.ordinary().decode()).encode()
        for depth in (2, 16, 31, 32, 33, 34, 64, 200, 900, 1100, 5000, 100_000):
            for opening, closing in (("[", "]"), ('{"a":', "}")):
                inner = "" if opening == "[" else "1"
                nested = opening * depth + inner + closing * depth
                for field in ("properties", "quantity", "extra"):
                    yield self.join(self.good() | {field: nested})
                yield self.join(self.good() | {"properties": f'{{"a":{nested}}}'})
                yield self.join(self.cloud() | {"data": nested})
                yield self.join(self.cloud() | {"ext": nested})
                yield nested.encode()
                yield (opening * depth).encode()
                yield self.join(self.good() | {"properties": opening * depth})[:-1]
        whole = self.ordinary()
        yield from (whole[:end] for end in range(len(whole)))
        cloud = self.join(self.cloud() | {"void": "true"})
        yield from (cloud[:end] for end in range(0, len(cloud), 3))

    def combined(self, count: int) -> Iterator[bytes]:
        """Several odd values in one line."""
        random = self._random
        texts = [json.dumps(text, ensure_ascii=False) for text in TEXTS]
        values = {
            **{name: [*texts, *ESCAPES] for name in ("tenant_id", "event_type", "correlation_id")},
            "occurred_at": [json.dumps(time) for time in TIMES],
            "quantity": [*NUMBERS, *(f'"{number}"' for number in NUMBERS)],
            "properties": ["{}", "null", '{"a":1,"a":1}', '{"é":"\\u00e9"}'],
            "void": ["true", "false", "null"],
            "extra": OTHERS,
        }
        for _ in range(count):
            fields = self.good()
            for field in random.sample(list(values), random.randint(1, 4)):
                if field != "extra" or random.random() < 0.2:
                    fields[field] = random.choice(values[field])
            pairs = list(fields.items())
            random.shuffle(pairs)
            yield self.join(pairs)

    def mutated(self, lines: Sequence[bytes], count: int) -> Iterator[bytes]:
        """Lines with some bytes taken away, put in, doubled, or replaced."""
        random = self._random
        short = [line for line in lines if len(line) < 2000]
        pieces = [
            b'"',
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"0",
            b"-",
            b"e",
            b".",
            b" ",
            b"\r",
            b"\0",
            b"\x7f",
        ]
        pieces += [
            b"\xff",
            b"\xc3\xa9",
            b"\xc2\x85",
            b"\xe2\x80\xa8",
            b"\\u0000",
            b"\\ud800",
            b"null",
            b"1e400",
            b"\xef\xbb\xbf",
        ]
        for _ in range(count):
            line = bytearray(random.choice(short))
            for _ in range(random.choice([1, 1, 1, 2, 3])):
                at = random.randint(0, len(line))
                length = random.choice([1, 1, 2, 7])
                match random.randrange(5):
                    case 0:
                        del line[at : at + length]
                    case 1:
                        line[at:at] = random.choice(pieces)
                    case 2:
                        line[at:at] = line[at : at + 4 * length]
                    case 3:
                        line[at : at + length] = random.choice(pieces)
                    case 4:
                        line[at : at + 1] = random.randbytes(1)
            yield bytes(line).replace(b"\n", b"")


def plain(random: Random, found: Sequence[bytes]) -> list[bytes]:
    """Of these the odd lines that nothing at first sight tells from ordinary ones, thinly among such."""
    make = Lines(random)
    ordinary = [make.ordinary() for _ in range(300)]
    fields = (COLUMNS[:4], [*COLUMNS[:4], "quantity"], [*COLUMNS[:4], "properties"], COLUMNS[:6])
    mixed = []
    for line in found:
        if b"\\" not in line and line[:1] == b"{" and line[-1:] == b"}" and len(line) < 2000:
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if any(
                document.keys() == {*each} or document.keys() == {*each, "void"} for each in fields
            ):
                mixed += [line, *random.choices(ordinary, k=random.choice([0, 0, 1, 5]))]
    for _ in range(40):
        # One object over two lines, and two objects in one: as many objects as lines.
        start, _, end = random.choice(ordinary).partition(b",")
        torn = [start + b",", end, random.choice(ordinary) + random.choice(ordinary)]
        at = random.randrange(len(mixed))
        mixed[at:at] = random.choice([torn, torn[2:] + torn[:2]])
    return mixed


def lines(random: Random) -> list[bytes]:
    """At least 10,000 lines, ordinary ones among them, shuffled."""
    make = Lines(random)
    odd = [*make.each_value(), *make.in_properties(), *make.keys(), *make.clouds(), *make.shapes()]
    odd += make.combined(1500)
    odd += make.mutated([make.ordinary() for _ in range(200)] + odd, 2500)
    found = odd + [make.ordinary() for _ in range(len(odd) // 2)]
    random.shuffle(found)
    return found


def long_lines(random: Random) -> list[bytes]:
    """Lines at and over the limit of 1 MiB, and over several of the reader's blocks."""
    make = Lines(random)
    found = []
    for size in (MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, MEBIBYTE + 4096, 3 * MEBIBYTE, 7 * MEBIBYTE):
        empty = len(make.join(make.good() | {"properties": '{"a":""}'}))
        for letter in ("x", "é") if size <= MEBIBYTE + 1 else ("x",):
            line = make.join(make.good() | {"properties": '{"a":"@"}'})
            room = size - len(line) + 1
            filling = (letter * room).encode()[: room if letter == "x" else room // 2 * 2]
            line = line.replace(b"@", filling)
            found.append(line[:-1] + b" " * (size - len(line)) + b"}")
        found += [
            make.ordinary(),
            b"y" * (size - empty),
            b"",
            make.ordinary(),
            b" " * size,
            make.ordinary(),
        ]
    blanks = b" " * MEBIBYTE
    found.append(make.ordinary() + blanks)
    found.append(blanks + make.ordinary())
    found.append(blanks * 3 + make.ordinary() + blanks * 5)
    found.append(make.ordinary())
    return found


def ndjson(random: Random, found: Sequence[bytes]) -> bytes:
    """The lines in one text: blank lines between them, both line ends, sometimes none at the end."""
    written = io.BytesIO()
    if random.random() < 0.3:
        written.write(b"\xef\xbb\xbf")
    ends = random.choice([[b"\n"], [b"\r\n"], [b"\n", b"\r\n", b"\n\n", b"\n \t\r\n", b" \n"]])
    for line in found:
        written.write(line)
        written.write(random.choice(ends))
    return written.getvalue()[: -1 if random.random() < 0.5 else None]


def in_files(random: Random, found: Sequence[bytes], prefix: str, largest: int) -> list[File]:
    """The lines in files of all sizes, some of them gzipped."""
    files = []
    start = 0
    while start < len(found):
        end = start + random.choice([1, 2, 7, 50, largest])
        content = ndjson(random, found[start:end])
        name = f"{prefix}-{len(files):04}"
        if random.random() < 0.3:
            cut = random.randint(0, len(content))
            parts = [content[:cut], content[cut:]] if random.random() < 0.5 else [content]
            packed = b"".join(gzip.compress(part, mtime=0, compresslevel=1) for part in parts)
            files.append(File(f"{name}.ndjson.gz", packed))
        else:
            files.append(File(f"{name}.{random.choice(['ndjson', 'json'])}", content))
        start = end
    return files


def gzips(random: Random) -> Iterator[File]:
    """Gzip files cut off, damaged, joined, and with something after their end."""
    make = Lines(random)
    content = ndjson(random, [make.ordinary() for _ in range(120)])
    whole = gzip.compress(content, mtime=0)
    other = gzip.compress(make.ordinary() + b"\n", mtime=0)
    cuts = {*range(30), *random.sample(range(30, len(whole)), 60)}
    for cut in sorted(cuts | {*range(len(whole) - 9, len(whole))}):
        yield File(f"cut-{cut}.ndjson.gz", whole[:cut], readable=False)
        if cut:
            yield File(f"second-cut-{cut}.ndjson.gz", other + whole[:cut], readable=False)
    for at in random.sample(range(10, len(whole)), 40):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << random.randrange(8)
        yield File(f"flip-{at}.ndjson.gz", bytes(damaged), readable=False)
    for number, rubbish in enumerate(
        (b"rubbish", b"\x1f", b"\x1f\x8b", b"\n", b"{}", whole[:11], b"\0\0x")
    ):
        yield File(f"rubbish-{number}.ndjson.gz", whole + rubbish, readable=False)
    yield File("plain.ndjson.gz", content, readable=False)
    yield File("twice.ndjson.gz", gzip.compress(other), readable=True)
    yield File("members.ndjson.gz", b"".join([gzip.compress(b"", mtime=0), other, whole]))
    yield File("split.ndjson.gz", gzip.compress(content[:77]) + gzip.compress(content[77:]))
    yield File("empty.ndjson.gz", gzip.compress(b""))
    yield File("blank.ndjson.gz", gzip.compress(b"\n" * 5000))
    yield File("padded.ndjson.gz", other + bytes(512))
    for name, odd in {
        "empty": b"",
        "newline": b"\n",
        "bom": b"\xef\xbb\xbf",
        "boms": b"\xef\xbb\xbf\xef\xbb\xbf" + make.ordinary(),
        "bom-inside": make.ordinary() + b"\n\xef\xbb\xbf" + make.ordinary(),
        "half-bom": b"\xef\xbb",
        "zeros": bytes(1000),
        "cr": make.ordinary() + b"\r" + make.ordinary() + b"\r",
        "utf16": (make.ordinary() + b"\n").decode().encode("utf-16"),
        "gzip": whole,
    }.items():
        yield File(f"odd-{name}.ndjson", odd)


# Tables


def cells(random: Random, make: Lines) -> dict[str, str]:
    """A row of texts, one in three with something odd; empty is absent."""
    fields = make.good()
    row = {key: str(json.loads(value)) for key, value in fields.items() if key != "properties"}
    row["properties"] = fields.get("properties", "")
    row["void"] = fields.get("void", "")
    if "quantity" in fields:
        row["quantity"] = fields["quantity"].strip('"')
    if random.random() < 0.4:
        column = random.choice(COLUMNS)
        odd: dict[str, Callable[[], str]] = {
            "occurred_at": lambda: random.choice(TIMES),
            "quantity": lambda: random.choice([*NUMBERS, *NO_NUMBERS, *QUOTED]),
            "properties": lambda: random.choice(
                [
                    write(random, properties(random)),
                    f'{{"a":{random.choice([*NUMBERS, *NO_NUMBERS, *NO_JSON, *ESCAPES])}}}',
                    random.choice([*OTHERS, *NO_JSON, *ESCAPES]),
                    '{"a":' + "[" * 32 + "]" * 32 + "}",
                    '{"a":' + "[" * 31 + "]" * 31 + "}",
                    '{"a":1,"\\u0061":1}',
                ]
            ),
            "void": lambda: random.choice(
                ["TRUE", "True", "false", "yes", "1", "t", " true", "null"]
            ),
        }
        row[column] = odd.get(column, lambda: random.choice(TEXTS))()
    return {column: row.get(column, "") for column in COLUMNS}


def rows(random: Random, count: int) -> list[dict[str, str]]:
    """Rows of texts; all that is odd in them can be said in every format."""
    make = Lines(random)
    return [cells(random, make) for _ in range(count)]


def rows_as_lines(rows: Sequence[Mapping[str, str]]) -> bytes:
    """The rows as NDJSON."""
    return b"".join(
        json.dumps({key: value for key, value in row.items() if value and key not in RAW}).encode()[
            :-1
        ]
        + "".join(f',"{key}":{row[key]}' for key in RAW if row[key]).encode()
        + b"}\n"
        for row in rows
    )


RAW = ("properties", "void")
"""Columns whose text is JSON already."""


def rows_as_csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    """The rows as CSV."""
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().encode()


def rows_as_parquet(rows: Sequence[Mapping[str, str]]) -> bytes:
    """The rows as Parquet, all texts but void."""
    columns = {
        column: pa.array([row[column] or None for row in rows], pa.string()) for column in COLUMNS
    }
    columns["void"] = pa.array([row["void"] == "true" for row in rows])
    return parquet(Random(0), columns)


def typed_parquet(events: Sequence[Accepted]) -> bytes:
    """Events as Parquet, instants and quantities as such."""
    columns = {
        column: pa.array(values, pa.string())
        for column, values in zip(COLUMNS, zip(*events, strict=True), strict=True)
        if column not in ("occurred_at", "quantity", "void")
    }
    instants = pa.array([event.instant for event in events], pa.timestamp("us", "Asia/Kolkata"))
    quantities = pa.array([Decimal(event.quantity) for event in events], pa.decimal128(38, 18))
    voids = pa.array([event.void for event in events])
    typed = {"occurred_at": instants, "quantity": quantities, "void": voids}
    return parquet(Random(1), columns | typed)


def csvs(random: Random, count: int) -> Iterator[File]:
    """CSV in all its dialects and mutilations, good and bad headers."""
    make = Lines(random)
    for number in range(count):
        columns = list(COLUMNS[:4]) + random.sample(COLUMNS[4:], random.randint(0, 3))
        random.shuffle(columns)
        written = io.StringIO(newline="")
        end = random.choice(["\n", "\r\n"])
        quoting = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
        writer = csv.DictWriter(
            written, columns, extrasaction="ignore", lineterminator=end, quoting=quoting
        )
        writer.writeheader()
        for _ in range(random.choice([0, 1, 20, 60])):
            writer.writerow(cells(random, make))
        found = written.getvalue().encode().split(b"\n")
        if random.random() < 0.7:
            for _ in range(len(found) // 6):
                at = random.randrange(1, len(found) + 1)
                found[at:at] = [_csv_oddity(random, found[1:] or [b""])]
        content = b"\n".join(found)[: -1 if random.random() < 0.3 else None]
        yield File(f"table-{number:03}.csv", random.choice([b"", b"\xef\xbb\xbf"]) + content)
    yield from _csv_headers(make, random)


def _csv_oddity(random: Random, found: Sequence[bytes]) -> bytes:
    row = random.choice(found)
    at = random.randint(0, len(row))
    piece = random.choice(
        [b'"', b'""', b",", b"\r", b"\0", b"\xff", b";", b"\xc3", b"\x85", b"\\", b" "]
    )
    return random.choice(
        [
            b"",
            b"\r",
            b"  ",
            b",,,,,,",
            b'"',
            b'x","',
            b'"open',
            b'"a"b,c',
            b'"multi\nline","x"',
            row[:at] + piece + row[at:],
            row[:at],
            row[at:],
            row + piece,
            piece + row,
            row + b"," + row,
            row.replace(b",", b";"),
            row.replace(b",", b"\t"),
            row.replace(b'"', b"'"),
        ]
    )


def _csv_headers(make: Lines, random: Random) -> Iterator[File]:
    names = ",".join(COLUMNS)
    row = ",".join(
        ['"{}"'.format(cell.replace('"', '""')) for cell in cells(random, make).values()]
    )
    headers = [
        *(
            "",
            "\n",
            " ",
            names.upper(),
            names.replace(",", ";"),
            names.replace(",", "\t"),
            f" {names}",
        ),
        *(
            f"{names},",
            f"{names},void",
            f"{names},extra",
            f"{names},",
            f",{names}",
            f'"{names}"',
            f"'{names}'",
        ),
        *(
            names.replace("void", "void "),
            names.replace("tenant_id,", ""),
            names.replace("correlation_id", "id"),
        ),
        *(
            "\ufeff\ufeff" + names,
            "\n" + names,
            f"#{names}",
            f'"{names}',
            row,
            names.replace("void", '"void"'),
        ),
        names.replace(",", ", "),
        names + "\r",
        ",".join(f'"{name}"' for name in COLUMNS[::-1]),
        ",".join(COLUMNS[:4]),
        "tenant_id,event_type,occurred_at,correlation_id,vo\u200bid",
    ]
    for number, header in enumerate(headers):
        yield File(f"header-{number:02}.csv", f"{header}\n{row}\n{row}".encode())
    yield File("header-bytes.csv", names.encode() + b"\xff\n" + row.encode())
    yield File("header-only.csv", names.encode())
    yield File("empty.csv", b"")


UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NOON = 1_769_864_700
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())


def _text_array(random: Random, values: list[str | None]) -> pa.Array:
    kind = random.choice(TEXT_TYPES)
    array = pa.array(values, kind)
    if kind != pa.string_view() and random.random() < 0.4:
        array = array.dictionary_encode()
    return array


def _instants(random: Random, rows: int) -> tuple[pa.Array, list[object]]:
    unit, per_second = random.choice(list(UNITS.items()))
    edges = [
        *(
            0,
            -1,
            1,
            NOON * per_second,
            2**62,
            -(2**62),
            2**63 - 1,
            -(2**63) + 1,
            1_577_836_800 * per_second,
        ),
        *(
            1_577_836_800 * per_second - 1,
            1_769_871_600 * per_second,
            1_769_871_600 * per_second - 1,
        ),
        *(
            253_402_300_800 * per_second,
            253_402_300_800 * per_second - 1,
            -62_135_596_800 * per_second,
        ),
    ]
    values: list[int | None] = []
    for _ in range(rows):
        edge = random.choice(edges)
        # Parquet keeps seconds as milliseconds.
        odd = random.random() < 0.15 and abs(edge) < 2**63 // (1000 if unit == "s" else 1)
        values.append(edge if odd else NOON * per_second + random.randrange(3000) * per_second // 2)
        if random.random() < 0.02:
            values[-1] = None
    zone = random.choice(["UTC", "America/New_York", "+05:30", "Europe/Berlin", "Etc/GMT+12"])
    array = pa.array(values, pa.timestamp(unit, zone))
    return array, [None if v is None else Instant(v * 10**6 // per_second) for v in values]


def _quantities(random: Random, rows: int) -> tuple[pa.Array, list[object]]:
    kind = random.choice(
        [
            *(
                pa.int8(),
                pa.int16(),
                pa.int32(),
                pa.int64(),
                pa.uint8(),
                pa.uint16(),
                pa.uint32(),
                pa.uint64(),
            ),
            *(
                pa.decimal128(38, 18),
                pa.decimal128(38, 20),
                pa.decimal128(5, 2),
                pa.decimal128(38, 0),
            ),
            *(
                pa.decimal256(60, 30),
                pa.decimal256(76, 18),
                pa.float64(),
                pa.float32(),
                pa.float16(),
                pa.null(),
            ),
        ]
    )
    values: list[object] = []
    for _ in range(rows):
        if kind == pa.null() or random.random() < 0.1:
            values.append(None)
        elif pa.types.is_floating(kind):
            values.append(random.choice([0.0, 1.0, -0.0, 1.5, float("nan"), float("inf"), 65504.0]))
        elif pa.types.is_integer(kind):
            bits = kind.bit_width - (0 if str(kind).startswith("u") else 1)
            low = 0 if str(kind).startswith("u") else -(2**bits)
            values.append(random.choice([0, 1, 2**bits - 1, low, random.randrange(low, 2**bits)]))
        else:
            digits = random.choice([0, 1, kind.precision, random.randint(0, kind.precision)])
            whole = random.choice([10**digits - 1, -(10**digits) + 1, 10 ** max(digits - 1, 0)])
            values.append(Decimal((int(whole < 0), tuple(map(int, str(abs(whole)))), -kind.scale)))
    return pa.array(values, kind), values


def parquets(random: Random, count: int) -> Iterator[File]:
    """Parquet with each type a column may have, nulls and edges in all of them; and what may not be."""
    make = Lines(random)
    for number in range(count):
        yield _parquet(
            random, make, f"table-{number:03}.parquet", random.choice([0, 1, 7, 60, 150])
        )
    yield from _wrong_parquets(random, make)


def _parquet(random: Random, make: Lines, name: str, count: int) -> File:
    rows: list[dict[str, object]] = [{**cells(random, make)} for _ in range(count)]
    columns: dict[str, pa.Array] = {}
    for column in COLUMNS[:2] + COLUMNS[3:4] + COLUMNS[5:6]:
        for row in rows:
            if row[column] == "" and (column == "properties" or random.random() < 0.5):
                row[column] = None
        columns[column] = _text_array(random, [row[column] for row in rows])  # type: ignore[misc]
    for column, made in (("occurred_at", _instants), ("quantity", _quantities)):
        texts = [row[column] or None for row in rows]
        array, values = (
            made(random, count) if random.random() < 0.7 else (_text_array(random, texts), texts)
        )
        columns[column] = array
        for row, value in zip(rows, values, strict=True):
            row[column] = value
    for row in rows:
        row["void"] = random.choice([True, False, False, None])
    columns["void"] = pa.array([row["void"] for row in rows], pa.bool_())
    if count and random.random() < 0.2:
        _break_text(random, rows, columns)
    present = [*COLUMNS[:4], *random.sample(COLUMNS[4:], random.randint(0, 3))]
    random.shuffle(present)
    for row in rows:
        for column in set(COLUMNS) - set(present):
            row[column] = None
    return File(name, parquet(random, {column: columns[column] for column in present}), rows)


def _break_text(
    random: Random, rows: list[dict[str, object]], columns: dict[str, pa.Array]
) -> None:
    """Bytes that are no UTF-8, in a column of text."""
    column = random.choice(["tenant_id", "event_type", "correlation_id", "properties"])
    odd = [text[1:-1] for text in BYTES if text.startswith(b'"')]
    raw = [None if row[column] is None else str(row[column]).encode() for row in rows]
    for at in random.sample(range(len(rows)), len(rows) // 5 + 1):
        raw[at] = rows[at][column] = random.choice(odd)  # type: ignore[assignment]
    kind, text = random.choice([(pa.binary(), pa.string()), (pa.large_binary(), pa.large_string())])
    columns[column] = pa.array(raw, kind).view(text)


def parquet(random: Random, columns: Mapping[str, pa.Array]) -> bytes:
    """One of the many ways to write a table."""
    written = io.BytesIO()
    pq.write_table(
        pa.table([*columns.values()], [*columns]),
        written,
        row_group_size=random.choice([1, 3, 50, None]),
        compression=random.choice(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
        use_dictionary=random.choice([True, False]),
        data_page_version=random.choice(["1.0", "2.0"]),
        data_page_size=random.choice([None, 64]),
        write_statistics=random.choice([True, False]),
        store_schema=True,
    )
    return written.getvalue()


def _wrong_parquets(random: Random, make: Lines) -> Iterator[File]:
    good = _parquet(random, make, "", 9)
    texts = {
        column: pa.array([str(cells(random, make)[column] or "x") for _ in range(9)])
        for column in COLUMNS[:4]
    }
    texts["occurred_at"] = pa.array(["2026-01-31T13:05:00Z"] * 9)
    numbers = pa.array(range(9))
    other: list[dict[str, pa.Array | None]] = [
        *({column: numbers} for column in COLUMNS if column != "quantity"),
        *({column: pa.array([b"x"] * 9)} for column in COLUMNS),
        *({column: pa.array([None] * 9, pa.null())} for column in COLUMNS[:4]),
        *({column: pa.array([["x"]] * 9)} for column in COLUMNS),
        *({column: pa.array([{"a": 1}] * 9)} for column in COLUMNS),
        *(
            {column: pa.array([[("a", "1")]] * 9, pa.map_(pa.string(), pa.string()))}
            for column in COLUMNS
        ),
        *({column: None} for column in COLUMNS[:4]),
        *({column: numbers.cast(pa.date64())} for column in ("occurred_at", "quantity")),
        *({"occurred_at": numbers.cast(pa.timestamp(unit))} for unit in UNITS),
        *(
            {"occurred_at": array}
            for array in (numbers.cast(pa.float64()), numbers.cast(pa.time64("us")))
        ),
        *({"quantity": array} for array in (pa.array([True] * 9), numbers.cast(pa.duration("us")))),
        *({"void": array} for array in (pa.array(["true"] * 9), pa.array([1.0] * 9))),
        *({name: numbers} for name in ("extra", "Quantity", "", "tenant_id ", "é")),
        {"tenant_id": numbers.dictionary_encode()},
    ]
    for number, changes in enumerate(other):
        columns = {key: array for key, array in (texts | changes).items() if array is not None}
        yield File(f"type-{number:02}.parquet", parquet(random, columns), readable=False)
    length = len(good.content)
    for cut in sorted({0, 1, 3, 4, 8, length - 1, *random.sample(range(12, length), 40)}):
        yield File(f"cut-{cut}.parquet", good.content[:cut], readable=False)
    yield File("twice.parquet", good.content[4:], readable=False)
    yield File("text.parquet", make.ordinary(), readable=False)
    yield File("rubbish.parquet", good.content + b"x", readable=False)
    yield File("encrypted.parquet", good.content[:-4] + b"PARE", readable=False)
