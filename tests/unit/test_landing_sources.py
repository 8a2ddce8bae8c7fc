"""The landing root: what is found there, and what is not taken."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from metering_pipeline.landing.sources import Source, SourceError

HOUR = datetime(2026, 1, 31, 13, tzinfo=UTC)
FOLDER = "landed_hour=2026-01-31T13"


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_files_by_hour_in_the_order_of_code_points(tmp_path: Path) -> None:
    names = [f"{FOLDER}/{name}.ndjson" for name in ("B", "a", "é", "\U0001f600", "\uffff")]
    write(tmp_path, *reversed(names), "landed_hour=2026-01-31T14/x.csv")
    contents = Source(str(tmp_path)).list_all()
    assert [file.key for file in contents.files[HOUR]] == sorted(names)
    assert sorted(names) == sorted(names, key=str.encode)
    assert sorted(contents.files) == [HOUR, HOUR.replace(hour=14)]
    assert contents.unknown == []
    assert Source(f"file://{tmp_path}").list_hour(HOUR).files == {HOUR: contents.files[HOUR]}


def test_what_is_ignored_and_what_is_reported(tmp_path: Path) -> None:
    write(
        tmp_path,
        f"{FOLDER}/good.parquet",
        f"{FOLDER}/_manifest.json",
        f"{FOLDER}/.hidden.ndjson",
        f"{FOLDER}/half.ndjson.tmp",
        f"{FOLDER}/notes.txt",
        f"{FOLDER}/deeper/a.ndjson",
        "_archive/landed_hour=2026-01-31T13/a.ndjson",
        "landed_hour=2026-01-31T25/a.ndjson",
        "landed_hour=2026-1-31T1/a.ndjson",
        "stray.ndjson",
    )
    contents = Source(str(tmp_path)).list_all()
    assert [file.key for file in contents.files[HOUR]] == [f"{FOLDER}/good.parquet"]
    assert [(each.path, each.landed_hour) for each in contents.unknown] == [
        ("landed_hour=2026-01-31T13/deeper", HOUR),
        ("landed_hour=2026-01-31T13/deeper/a.ndjson", HOUR),
        ("landed_hour=2026-01-31T13/notes.txt", HOUR),
        ("landed_hour=2026-01-31T25", None),
        ("landed_hour=2026-1-31T1", None),
        ("stray.ndjson", None),
    ]


def test_a_missing_root_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="METERING_LANDING_URL"):
        Source(str(tmp_path / "nowhere"))
    assert Source(str(tmp_path)).list_hour(HOUR).files == {}


def test_a_snapshot_is_what_was_listed(tmp_path: Path) -> None:
    write(tmp_path, f"{FOLDER}/a.ndjson.gz")
    source = Source(str(tmp_path))
    [file] = source.list_hour(HOUR).files[HOUR]
    with source.snapshot(file) as snapshot:
        assert snapshot.stream.read() == file.key.encode()
        assert snapshot.size_bytes == file.size_bytes
    (tmp_path / file.key).write_bytes(b"something longer than it was before, by far")
    with pytest.raises(SourceError, match="changed while it was read"), source.snapshot(file):
        pass
    (tmp_path / file.key).unlink()
    with pytest.raises(SourceError, match="changed while it was read"), source.snapshot(file):
        pass
