"""Files to chunks: every record once, with its line, whatever the format and however it is broken."""

import csv
import gzip
import io
import json
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metering_pipeline.landing import readers
from metering_pipeline.landing.events import MAX_LINE_BYTES, Limits
from metering_pipeline.landing.readers import RejectedRecord, UnreadableFile
from metering_pipeline.landing.reasons import Reason

LIMITS = Limits.of_hour(datetime(2026, 1, 31, 13, tzinfo=UTC), date(2020, 1, 1), 60)
AT = datetime(2026, 1, 31, 13, 5, tzinfo=UTC)


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-31T13:05:00Z",
        "correlation_id": f"req-{number}",
    } | changes


def read(name: str, content: bytes) -> tuple[list[dict[str, Any]], list[RejectedRecord]]:
    accepted: list[dict[str, Any]] = []
    rejected: list[RejectedRecord] = []
    for chunk in readers.read(name, io.BytesIO(content), LIMITS):
        chunk.events.validate(full=True)
        assert chunk.events.schema == readers.SCHEMA
        accepted += chunk.events.to_pylist()
        rejected += chunk.rejected
    return sorted(accepted, key=lambda row: int(row["line_number"])), rejected


def ndjson(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parquet(table: pa.Table) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def csv_text(columns: list[str], *rows: list[str]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows([columns, *rows])
    return written.getvalue().encode()


def lines(rows: list[dict[str, Any]]) -> list[int]:
    return [row["line_number"] for row in rows]


def refused(rejected: list[RejectedRecord]) -> list[tuple[int, Reason]]:
    return [(record.line_number, record.reason) for record in rejected]


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "a.ndjson.gz"])
def test_lines_are_counted_as_they_stand(name: str) -> None:
    content = b"".join(
        [
            b"\xef\xbb\xbf" + ndjson(event(1)),
            b"\n \t\r\n",
            json.dumps(event(4)).encode() + b"\r\n",
            b"{broken\r\n",
            json.dumps(event(6)).encode(),
        ]
    )
    accepted, rejected = read(name, gzip.compress(content) if name.endswith("gz") else content)
    assert lines(accepted) == [1, 4, 6]
    assert rejected == [RejectedRecord(5, Reason.INVALID_JSON, rejected[0].detail, b"{broken\r")]


def test_an_empty_file_has_no_records() -> None:
    assert read("a.ndjson", b"") == ([], [])
    assert read("a.ndjson.gz", gzip.compress(b"")) == ([], [])


@pytest.mark.parametrize("last", [b"", b"\n"])
def test_long_lines_are_cut(monkeypatch: pytest.MonkeyPatch, last: bytes) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", 200_000)
    fitting = event(1, properties={"a": ""})
    fitting["properties"]["a"] = "x" * (MAX_LINE_BYTES - len(json.dumps(fitting)))
    too_long = json.dumps(fitting).encode() + b" "
    content = ndjson(fitting) + too_long + b"\n" + b"y" * (3 * MAX_LINE_BYTES) + b"\n"
    accepted, rejected = read("a.ndjson", content + ndjson(event(4)) + too_long + last)
    assert lines(accepted) == [1, 4]
    assert refused(rejected) == [(line, Reason.LINE_TOO_LONG) for line in (2, 3, 5)]
    assert rejected[0].raw == too_long[: readers.KEPT_BYTES]


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_blocks_cut_anywhere(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", block)
    content = ndjson(event(1), event(2, properties={"é": "ü"})) + b"bad\n\n" + ndjson(event(5))
    accepted, rejected = read("a.ndjson", content)
    assert lines(accepted) == [1, 2, 5]
    assert refused(rejected) == [(3, Reason.INVALID_JSON)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-9],
        lambda content: content[: len(content) // 2],
        lambda content: content[:5],
        lambda content: content[:-8] + b"\0" * 8,
        lambda content: content + b"rubbish",
        lambda content: b"",
        lambda content: b"no gzip",
        lambda content: content[:20] + b"\xff\xff\xff" + content[23:],
    ],
)
def test_torn_gzip_is_unreadable(damage: Any) -> None:
    content = gzip.compress(ndjson(*(event(number) for number in range(100))))
    with pytest.raises(UnreadableFile, match="gzip"):
        read("a.ndjson.gz", damage(content))


def test_gzip_members_follow_each_other() -> None:
    content = gzip.compress(ndjson(event(1))) + gzip.compress(ndjson(event(2)))
    assert lines(read("a.ndjson.gz", content)[0]) == [1, 2]


RECORDS = [
    event(1, quantity="2.50", properties={"model": "small", "n": 1.0}, void=True),
    event(2, occurred_at="2026-01-31T14:05:00.1234567+01:00", properties={}),
    event(3, correlation_id='quoted "q", with\u00e9', quantity="1e3"),
]


def test_all_formats_give_equal_rows() -> None:
    columns = list(RECORDS[0])
    cells = [
        [
            json.dumps(record[column])
            if column in ("properties", "void") and column in record
            else str(record.get(column, ""))
            for column in columns
        ]
        for record in RECORDS
    ]
    texts = pa.table(
        {
            column: pa.array([row[position] or None for row in cells], pa.string())
            for position, column in enumerate(columns)
            if column != "void"
        }
        | {"void": pa.array([True, None, None])}
    )
    typed = texts.set_column(
        texts.schema.get_field_index("occurred_at"),
        "occurred_at",
        pa.array(
            [
                1_769_864_700_000_000_000,
                1_769_864_700_123_456_700,
                1_769_864_700_000_000_000,
            ],
            pa.timestamp("ns", "America/New_York"),
        ),
    ).set_column(
        texts.schema.get_field_index("quantity"),
        "quantity",
        pa.array([Decimal("2.50"), None, Decimal(1000)], pa.decimal128(10, 2)),
    )
    packed = typed.set_column(0, "tenant_id", typed.column(0).dictionary_encode())
    packed = packed.set_column(1, "event_type", packed.column(1).cast(pa.large_string()))
    expected, rejected = read("a.ndjson", ndjson(*RECORDS))
    assert rejected == []
    assert expected[1]["occurred_at"] == AT.replace(microsecond=123_456)
    for name, content, first_line in [
        ("a.csv", csv_text(columns, *cells), 2),
        ("a.parquet", parquet(texts), 1),
        ("a.parquet", parquet(typed), 1),
        ("a.parquet", parquet(packed), 1),
    ]:
        accepted, rejected = read(name, content)
        assert rejected == []
        assert lines(accepted) == [first_line, first_line + 1, first_line + 2]
        for row, wanted in zip(accepted, expected, strict=True):
            assert row | {"line_number": wanted["line_number"]} == wanted


HEADER = "tenant_id,event_type,occurred_at,correlation_id,properties\r\n"
ROW = "acme,api.request,2026-01-31T13:05:00Z,"


def test_csv_records_and_their_lines() -> None:
    content = (
        "\ufeff"
        + HEADER
        + ROW
        + "2,\r\n\r\n"
        + ROW
        + '4,"{""a"":\r\n1}"\r\n'
        + ROW
        + "6\r\n"
        + ROW
        + "7,{}"
    ).encode()
    accepted, rejected = read("a.csv", content)
    assert lines(accepted) == [2, 4, 7]
    assert accepted[1]["properties"] == '{"a":1}'
    assert refused(rejected) == [(6, Reason.INVALID_CSV)]
    assert rejected[0].raw == (ROW + "6\r").encode()


def test_a_bad_csv_record_does_not_take_its_neighbours_with_it() -> None:
    content = (
        (
            HEADER + ROW + '2,"{}"x\n' + ROW + "3,\n" + ROW + '4,"{\n' + ROW + "5,\n" + ROW + "6,\n"
        ).encode()
        + b"\xff"
        + f"{ROW}7,\n".encode()
    )
    accepted, rejected = read("a.csv", content)
    assert lines(accepted) == [3, 5, 6]
    assert refused(rejected) == [
        (2, Reason.INVALID_CSV),
        (4, Reason.INVALID_CSV),
        (7, Reason.INVALID_UTF8),
    ]
    assert rejected[2].raw.startswith(b"\xffacme")


def test_a_quote_left_open_is_bounded() -> None:
    row = f"{ROW}n,\n"
    swallowed = MAX_LINE_BYTES // len(row) + 2
    content = HEADER + ROW + '2,"' + "\n" + row * (swallowed + 10)
    accepted, rejected = read("a.csv", content.encode())
    assert refused(rejected) == [(2, Reason.LINE_TOO_LONG)]
    assert len(rejected[0].raw) == readers.KEPT_BYTES
    assert accepted[-1]["line_number"] == swallowed + 12
    assert 0 < len(accepted) <= 12


def test_long_csv_properties_are_read() -> None:
    long = json.dumps({"a": "x" * 500_000})
    accepted, rejected = read(
        "a.csv", csv_text(HEADER.strip().split(","), [*ROW.split(",")[:3], "1", long])
    )
    assert (len(accepted), rejected) == (1, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"tenant_id,event_type,occurred_at\n",
        HEADER.replace("properties", "props").encode(),
        HEADER.replace("properties", "tenant_id").encode(),
        b'"tenant_id\n',
    ],
)
def test_csv_without_the_right_header_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableFile, match="CSV header"):
        read("a.csv", content)


def table(rows: int = 3, **columns: Any) -> pa.Table:
    made = {
        "tenant_id": pa.array(["acme"] * rows),
        "event_type": pa.array(["api.request"] * rows),
        "occurred_at": pa.array([AT] * rows, pa.timestamp("us", "UTC")),
        "correlation_id": pa.array([f"req-{row}" for row in range(rows)]),
    } | columns
    return pa.table({name: column for name, column in made.items() if column is not None})


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({"tenant_id": pa.array(["a", None, ""])}, {2: "missing_field", 3: "empty_text"}),
        ({"tenant_id": pa.array(["a\x85", "é" * 128, "é" * 127])}, {1: "control_character", 2: "text_too_long"}),
        ({"occurred_at": pa.array([0, None, 1_769_864_700], pa.timestamp("s", "UTC"))}, {1: "too_early", 2: "missing_field"}),
        ({"occurred_at": pa.array([2**62, 1, 1_769_864_700_000], pa.timestamp("ms", "UTC"))}, {1: "invalid_time", 2: "too_early"}),
        ({"occurred_at": pa.array(["2026-01-31T13:05:00Z", "x", None])}, {2: "invalid_time", 3: "missing_field"}),
        ({"quantity": pa.array([1.5, None, float("nan")])}, {1: "inexact_number", 3: "inexact_number"}),
        ({"quantity": pa.array(["1.5", None, "x"])}, {3: "invalid_number"}),
        ({"quantity": pa.array([2**64 - 1, None, 0], pa.uint64())}, {}),
        ({"quantity": pa.array([None] * 3)}, {}),
        (
            {"quantity": pa.array([Decimal("1e-19"), None, Decimal("-1.50")], pa.decimal128(38, 20))},
            {1: "number_out_of_range"},
        ),
        ({"quantity": pa.array([Decimal(10) ** 20, None, Decimal(1)], pa.decimal256(60, 2))}, {1: "number_out_of_range"}),
        ({"properties": pa.array(["{}", "[]", '{"a":1,"a":1}'])}, {2: "wrong_type", 3: "duplicate_key"}),
        ({"properties": pa.array([None, "", "{}"])}, {2: "invalid_json"}),
        ({"tenant_id": pa.array([b"a", b"\xff", b"c"]).view(pa.string())}, {2: "invalid_utf8"}),
    ],
)  # fmt: skip
def test_parquet_rows(columns: dict[str, pa.Array], reasons: dict[int, str]) -> None:
    accepted, rejected = read("a.parquet", parquet(table(**columns)))
    assert dict(refused(rejected)) == reasons
    assert lines(accepted) == [row for row in (1, 2, 3) if row not in reasons]
    assert all(json.loads(record.raw) for record in rejected)


def test_parquet_instants_before_1970_are_cut_off_downwards() -> None:
    limits = Limits.of_hour(datetime(2026, 1, 31, 13, tzinfo=UTC), date(1960, 1, 1), 60)
    instants = pa.array([-1], pa.timestamp("ns", "UTC"))
    content = parquet(table(1, occurred_at=instants))
    [chunk] = readers.read("a.parquet", io.BytesIO(content), limits)
    assert chunk.events["occurred_at"].cast(pa.int64()).to_pylist() == [-1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tenant_id": None}, "missing: tenant_id"),
        ({"quantty": pa.array([1, 2, 3])}, "unknown: 'quantty'"),
        ({"tenant_id": pa.array([1, 2, 3])}, "column tenant_id has type int64"),
        ({"occurred_at": pa.array([AT] * 3, pa.timestamp("us"))}, "with a time zone"),
        ({"void": pa.array(["true"] * 3)}, "must be a boolean"),
        ({"properties": pa.array([{"a": 1}] * 3)}, "holds a JSON object"),
    ],
)
def test_parquet_with_other_columns_is_unreadable(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableFile, match=message):
        read("a.parquet", parquet(table(**columns)))


def test_broken_parquet_is_unreadable() -> None:
    content = parquet(table(1000))
    for broken in (b"", b"PAR1", content[:-1], content[: len(content) // 2], content[10:]):
        with pytest.raises(UnreadableFile, match="Parquet"):
            read("a.parquet", broken)
    damaged = content[:40] + bytes(200) + content[240:]
    with pytest.raises(UnreadableFile, match="Parquet"):
        read("a.parquet", damaged)


def test_many_parquet_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BATCH_ROWS", 7)
    tenants = ["" if row % 10 == 3 else "acme" for row in range(50)]
    accepted, rejected = read("a.parquet", parquet(table(50, tenant_id=pa.array(tenants))))
    assert lines(accepted) == [row + 1 for row in range(50) if row % 10 != 3]
    assert [line for line, _ in refused(rejected)] == [4, 14, 24, 34, 44]


def test_quotes_left_open_in_every_line_are_not_read_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "REREAD_BYTES", 10_000)
    count = 20_000
    started = time.process_time()
    accepted, rejected = read("a.csv", (HEADER + 'x","\n' * count + ROW + "1,{}\n").encode())
    assert refused(rejected) == [(line, Reason.INVALID_CSV) for line in range(2, count + 2)]
    assert lines(accepted) == [count + 2]
    assert time.process_time() - started < 10  # it is a second; in quadratic time a minute
