"""The landing root: what is found there, and what is not taken."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

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
        f"{FOLDER}/_manifest.a.b.json",
        f"{FOLDER}/_manifest.json.tmp",
        f"{FOLDER}/_manifesto.json",
        f"{FOLDER}/deeper/_manifest.json",
        f"_archive/{FOLDER}/_manifest.json",
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
    manifests = {HOUR: [f"{FOLDER}/_manifest.a.b.json", f"{FOLDER}/_manifest.json"]}
    found = {hour: [file.key for file in files] for hour, files in contents.manifests.items()}
    assert found == manifests
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
    gone = f"{tmp_path}/{file.key} is gone since it was listed.*nothing of its hour was landed"
    with pytest.raises(SourceError, match=gone), source.snapshot(file):
        pass


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, f"{FOLDER}/a.ndjson")
    source = Source(str(tmp_path))
    path = tmp_path / FOLDER / "a.ndjson"
    stop = Event()

    def keep_writing() -> None:
        with path.open("ab", buffering=0) as growing:
            while not stop.is_set():
                growing.write(b"more\n")

    writer = Thread(target=keep_writing)
    writer.start()
    try:
        [file] = source.list_hour(HOUR).files[HOUR]
        while path.stat().st_size == file.size_bytes:
            assert writer.is_alive()
        with pytest.raises(SourceError, match="changed while it was read"), source.snapshot(file):
            pass
    finally:
        stop.set()
        writer.join()
    [file] = source.list_hour(HOUR).files[HOUR]
    with source.snapshot(file) as snapshot:
        assert snapshot.size_bytes == file.size_bytes


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nope://acme:hush@bucket/x", "Unrecognized filesystem"),
        ("://x", "Cannot parse"),
        ("s3://", "Missing bucket name"),
        ("s3://bucket/x?nonsense=1", "nonsense"),
        ("s3://acme:hu/sh@bucket/x", "s3://bucket/prefix"),
        ("file://relative/x", "hostname"),
        ("hdfs://acme:hush@nowhere:1/x", "check METERING_LANDING_URL"),
    ],
)
def test_a_url_that_cannot_be_opened_says_why(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match="METERING_LANDING_URL") as raised:
        Source(url)
    assert words in str(raised.value)
    assert "hush" not in str(raised.value)
    assert "hu/sh" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A folder in a file's place, since root may read everything."""
    write(tmp_path, f"{FOLDER}/a.ndjson")
    source = Source(str(tmp_path))
    [file] = source.list_hour(HOUR).files[HOUR]
    (tmp_path / file.key).unlink()
    (tmp_path / file.key).mkdir()
    with pytest.raises(SourceError, match=f"{tmp_path}/{file.key}"), source.snapshot(file):
        pass


def test_a_root_that_vanishes_is_no_empty_hour(tmp_path: Path) -> None:
    root = tmp_path / "landing"
    root.mkdir()
    source = Source(str(root))
    assert source.list_hour(HOUR).files == {}
    root.rmdir()
    with pytest.raises(SourceError, match="is not there"):
        source.list_hour(HOUR)


def test_recent_hours_are_listed_without_the_others(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(f"landed_hour=2026-01-31T{hour}/a.ndjson" for hour in (10, 11, 13, 14)),
        "stray.ndjson",
    )
    contents = Source(str(tmp_path)).list_since(HOUR - timedelta(hours=2), HOUR, 1)
    assert [hour.hour for hour in contents.files] == [11, 13]
    assert contents.unknown == []
