"""Hostile input, decided as an independent judge decides it: in memory, in landing, in the ledger."""

import gzip
import io
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Context
from pathlib import Path
from random import Random

import pytest

from metering_pipeline.landing import readers
from metering_pipeline.landing.events import Limits
from metering_pipeline.landing.readers import Chunk, UnreadableFile
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.laws import evaluate
from metering_pipeline.settings import HOUR as HOUR_LONG
from metering_pipeline.settings import PROJECT_ROOT, Settings
from metering_pipeline.transform.dbt import run_dbt
from tests.fuzz import corpus
from tests.fuzz.corpus import HOUR, File
from tests.fuzz.oracle import BOM, KEPT_BYTES, Accepted, Judge, Judged, Rejected

EARLIEST = date(2020, 1, 1)
LIMITS = Limits.of_hour(HOUR, EARLIEST, 60)
JUDGE = Judge.of_hour(HOUR, EARLIEST, 60)
SEED = 20_260_131
CONTEXT = Context(prec=60)


class Decisions:
    """What was decided of a file's records, by line."""

    def __init__(self) -> None:
        self.accepted: dict[int, Accepted] = {}
        self.rejected: dict[int, tuple[str, bytes]] = {}

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk of the readers; no line may come twice."""
        chunk.events.validate(full=True)
        assert chunk.events.schema == readers.SCHEMA
        at = readers.SCHEMA.get_field_index("occurred_at")
        instants = chunk.events["occurred_at"].cast("int64")
        columns = chunk.events.set_column(at, "occurred_at", instants).to_pydict()
        for line, *values in zip(*columns.values(), strict=True):
            values[4] = format(values[4].normalize(CONTEXT), "f") if values[4] else "0"
            assert line not in self.accepted
            self.accepted[line] = Accepted(*values)
        for record in chunk.rejected:
            assert record.line_number not in self.rejected
            assert record.detail
            self.rejected[record.line_number] = (str(record.reason), record.raw)


def judged(file: File) -> list[Judged]:
    """By the oracle."""
    records: Iterable[Judged] | None = None
    if file.readable and file.name.endswith(".parquet"):
        records = [Judged(line, None, JUDGE.row(row)) for line, row in enumerate(file.rows, 1)]
    elif file.readable and file.name.endswith(".csv"):
        records = JUDGE.csv(file.content)
    elif file.readable:
        packed = file.name.endswith(".gz")
        records = JUDGE.lines(gzip.decompress(file.content) if packed else file.content)
    if records is None:
        records = [Judged(0, file.content[:KEPT_BYTES], Rejected(frozenset({"unreadable_file"})))]
    return list(records)


def decided(file: File) -> Decisions:
    """By the readers, in memory."""
    found = Decisions()
    stream = io.BytesIO(file.content)
    try:
        for chunk in readers.read(file.name, stream, LIMITS):
            found.add(chunk)
    except UnreadableFile as error:
        found = Decisions()
        record = readers.unreadable(error, stream)
        found.rejected[0] = (str(record.reason), record.raw)
    return found


def differences(name: str, records: Sequence[Judged], found: Decisions) -> list[str]:
    """Each record that was not decided as it should be; empty if all were."""
    wrong = []
    if 0 in found.rejected and 0 not in {record.line for record in records}:
        return [f"{name}: is readable, and was not read"]
    for record in records:
        accepted, rejected = found.accepted.get(record.line), found.rejected.get(record.line)
        match record.verdict:
            case Accepted() if accepted == record.verdict and rejected is None:
                continue
            case Rejected(reasons) if accepted is None and rejected is not None:
                if rejected[0] in reasons and record.keeps(rejected[1]):
                    continue
        text = f"{(record.raw or b'')[:300]!r}: {accepted or rejected!r}, not {record.verdict!r}"
        wrong.append(f"{name}:{record.line}: {text[:1500]}")
    nowhere = {*found.accepted, *found.rejected} - {record.line for record in records}
    return wrong + [f"{name}:{line}: there is no record" for line in sorted(nowhere)]


def check(files: Iterable[File]) -> None:
    """The readers decide these files as the oracle does."""
    wrong = [text for file in files for text in differences(file.name, judged(file), decided(file))]
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong[:20]])


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The corpus; at least 10,000 lines."""
    found = corpus.lines(Random(SEED))
    assert len(found) >= 10_000
    return found


def test_a_line_is_decided_alike_wherever_it_stands(
    lines: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(SEED)
    files = corpus.in_files(random, lines, "lines", 2000)
    check(files)
    first = outcomes(files)
    monkeypatch.setattr(readers, "FEW_RECORDS", 1)
    monkeypatch.setattr(readers, "BLOCK_BYTES", 5000)
    mixed = lines[::2]
    random.shuffle(mixed)
    second = outcomes(corpus.in_files(random, mixed, "mixed", 300))
    assert len(second) > 5000
    assert second == {line: first[line] for line in second}


def outcomes(files: Iterable[File]) -> dict[bytes, Accepted | str]:
    """What became of each line, its end and the file's mark apart."""
    found: dict[bytes, Accepted | str] = {}
    for file in files:
        packed = file.name.endswith(".gz")
        content = gzip.decompress(file.content) if packed else file.content
        raw = content.removeprefix(BOM).split(b"\n")
        decisions = decided(file)
        for line, event in decisions.accepted.items():
            found[raw[line - 1].removeprefix(BOM).rstrip()] = event
        for line, (reason, _) in decisions.rejected.items():
            if not raw[line - 1].startswith(BOM):
                found[raw[line - 1].rstrip()] = reason
    return found


def test_odd_lines_among_ordinary_ones(lines: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided as columns as far as that goes, down to two lines at once."""
    monkeypatch.setattr(readers, "FEW_RECORDS", 1)
    random = Random(SEED)
    check(corpus.in_files(random, corpus.plain(random, lines[::2]), "plain", 500))


def test_odd_lines_alone(lines: list[bytes]) -> None:
    """Files of one line, so that an escape is met where all else is in no doubt."""
    escaped = [line for line in lines if b"\\" in line and line[:1] + line[-1:] == b"{}"]
    assert len(escaped) > 1000
    check(File("a.ndjson", line) for line in escaped if len(line) < 5000)


def test_long_lines() -> None:
    random = Random(SEED)
    found = corpus.long_lines(random)
    check([File("a.ndjson", corpus.ndjson(random, found)) for _ in range(2)])


def test_gzips() -> None:
    check(corpus.gzips(Random(SEED)))


def test_csv() -> None:
    check(corpus.csvs(Random(SEED), 150))


def test_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BATCH_ROWS", 64)
    check(corpus.parquets(Random(SEED), 150))


def test_all_formats_say_the_same() -> None:
    """The same records as lines, as CSV and as Parquet, of texts and of typed columns."""
    rows = [row for row in corpus.rows(Random(SEED), 1500) if row["void"] in ("", "true", "false")]
    from_lines = decided(File("a.ndjson", corpus.rows_as_lines(rows)))
    from_csv = decided(File("a.csv", corpus.rows_as_csv(rows)))
    from_texts = decided(File("a.parquet", corpus.rows_as_parquet(rows)))
    assert len(from_lines.accepted) > 1000
    assert len(from_lines.rejected) > 200
    assert from_texts.accepted == from_lines.accepted
    events = in_order(from_lines)
    assert in_order(from_csv) == events
    assert in_order(decided(File("a.parquet", corpus.typed_parquet(events)))) == events


def in_order(decisions: Decisions) -> list[Accepted]:
    return [event for _, event in sorted(decisions.accepted.items())]


def test_memory_is_bounded() -> None:
    """Whatever the size of a file, a line or a row group."""
    program = [sys.executable, "-m", "tests.fuzz.memory"]
    output = subprocess.run(program, capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
    read = {
        name: list(map(int, rest)) for name, *rest in map(str.split, output.stdout.splitlines())
    }
    assert {name: counts for name, (_, *counts) in read.items()} == {
        "a.ndjson": [1, 0],
        "a.parquet": [9, 0],
        "ordinary.ndjson": [240_000, 0],
        "line.ndjson": [2, 1],
        "line.csv": [0, 2],
        "bomb.ndjson.gz": [2, 1],
        "group.parquet": [200_000, 0],
    }
    assert {name: grown for name, (grown, *_) in read.items() if grown > 80} == {}


# In the database


@pytest.fixture
def files(lines: list[bytes]) -> list[File]:
    """Everything, in all formats."""
    random = Random(SEED + 1)
    return [
        *corpus.in_files(random, lines, "lines", 3000),
        *corpus.gzips(random),
        *corpus.csvs(random, 40),
        *corpus.parquets(random, 40),
    ]


LANDED = """
select
    split_part(files.file_key, '/', 2),
    events.line_number,
    events.tenant_id,
    events.event_type,
    (extract(epoch from events.occurred_at) * 1000000)::bigint,
    events.correlation_id,
    trim_scale(events.quantity)::text,
    events.properties,
    events.void
from landing.usage_events as events
inner join landing.files on events.file_id = files.file_id
"""
REJECTED = """
select split_part(files.file_key, '/', 2), rejected.line_number, rejected.reason, rejected.raw_line
from landing.rejected_events as rejected
inner join landing.files on rejected.file_id = files.file_id
"""
POSTED = """
select split_part(files.file_key, '/', 2), posted.line_number, posted.fingerprint, posted.payload_hash
from (
    select file_id, line_number, fingerprint, payload_hash from ledger.usage_events
    union all
    select file_id, line_number, fingerprint, payload_hash from ledger.duplicates
    union all
    select file_id, line_number, fingerprint, payload_hash from ledger.conflicts
    union all
    select file_id, line_number, fingerprint, payload_hash from ledger.voids
) as posted
inner join landing.files on posted.file_id = files.file_id
"""


def test_landed_and_posted(database: Database, settings: Settings, files: list[File]) -> None:
    folder = Path(settings.landing_root) / f"landed_hour={HOUR:%Y-%m-%dT%H}"
    folder.mkdir()
    for file in files:
        (folder / file.name).write_bytes(file.content)
    [landed] = land_hours(database.url, settings, HOUR, HOUR, HOUR + 24 * HOUR_LONG)
    assert landed.files_landed == len(files)

    found = {file.name: Decisions() for file in files}
    with database.connect(autocommit=True) as connection:
        for name, line, *values in connection.execute(LANDED):
            assert line not in found[name].accepted
            found[name].accepted[line] = Accepted(*values)
        for name, line, reason, raw in connection.execute(REJECTED):
            found[name].rejected[line] = (reason, raw)
        counts = {
            name: (accepted, rejected)
            for name, accepted, rejected in connection.execute(
                "select split_part(file_key, '/', 2), accepted_count, rejected_count"
                " from landing.files"
            )
        }
        records = {file.name: judged(file) for file in files}
        wrong = [text for name in found for text in differences(name, records[name], found[name])]
        assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong[:20]])
        for name, decisions in found.items():
            assert counts[name] == (len(decisions.accepted), len(decisions.rejected))
            assert sum(counts[name]) == len(records[name])
        laws = evaluate(connection, "L1", HOUR, HOUR + HOUR_LONG, HOUR)
        assert [law.passed for law in laws] == [True]

        run_dbt(database, "run", ["metering.ledger.usage_events"], Window(HOUR, HOUR + HOUR_LONG))
        posted = {
            (name, line): (fingerprint, payload_hash)
            for name, line, fingerprint, payload_hash in connection.execute(POSTED)
        }
        expected = {
            (name, line): (event.fingerprint, event.payload_hash)
            for name, decisions in found.items()
            for line, event in decisions.accepted.items()
        }
        assert posted == expected
        laws = evaluate(connection, "L2", HOUR, HOUR + HOUR_LONG, HOUR)
        assert [law.passed for law in laws] == [True]
