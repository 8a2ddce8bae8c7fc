"""Landing from an object store: a real S3 protocol server, a real bucket, no directory markers."""

import http.client
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector

from metering_pipeline.generate import generate
from metering_pipeline.landing.archives import Archives, Stage
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.sources import Contents, Source, SourceError, open_filesystem
from metering_pipeline.landing.store import land_hours
from metering_pipeline.settings import HOUR
from tests.postgres.test_control_totals import says, written
from tests.postgres.test_landing_store import AT, EVENTS, NOW, Landing, event, landing

__all__ = ["landing"]  # the fixture

PREFIX = "landing"
KEY = "landed_hour=2026-01-31T13/a.ndjson"
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=producer/20260131/us-east-1/s3/aws4_request,"
    " SignedHeaders=host, Signature=0"
}
"""The server checks no signature, but an existing object changes by a signed request only."""


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server, filled as a producer would: by one request an object."""

    host: str
    port: int
    name: str

    def url(self, path: str, *, login: str = "", port: int | None = None) -> str:
        endpoint = f"http://{self.host}:{port or self.port}"
        return f"s3://{login}{path}?endpoint_override={endpoint}&scheme=http"

    @property
    def root(self) -> str:
        return self.url(f"{self.name}/{PREFIX}")

    def put(self, key: str, content: bytes) -> None:
        self._request("PUT", f"/{self.name}/{PREFIX}/{quote(key)}", content)

    def delete(self, key: str) -> None:
        self._request("DELETE", f"/{self.name}/{PREFIX}/{quote(key)}")

    def refuse_everyone(self) -> None:
        """From now on every request needs the key of a user, and there are no users."""
        self._request("POST", "/moto-api/reset-auth", b"0")

    def _request(self, method: str, path: str, body: bytes | None = None) -> None:
        connection = http.client.HTTPConnection(self.host, self.port)
        connection.request(method, path, body, SIGNED)
        status = connection.getresponse().status
        connection.close()
        assert status in (200, 204), (method, path, status)


@pytest.fixture(scope="module")
def server_address() -> Iterator[tuple[str, int]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def bucket(server_address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, whose credentials the environment holds."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = Bucket(*server_address, "usage")
    bucket._request("POST", "/moto-api/reset")
    bucket._request("POST", "/moto-api/reset-auth", b"inf")
    bucket._request("PUT", "/usage")
    yield bucket
    bucket._request("POST", "/moto-api/reset-auth", b"inf")


@pytest.fixture
def remote(landing: Landing, bucket: Bucket) -> Landing:
    """The same database, landing from the bucket."""
    landing.settings = replace(landing.settings, landing_url=bucket.root)
    return landing


def test_the_same_root_from_a_directory_and_from_a_bucket_lands_once(
    remote: Landing, bucket: Bucket
) -> None:
    totals = generate(remote.root, events=1000, days=2, seed=4)
    for path in sorted(remote.root.rglob("*.*")):
        bucket.put(path.relative_to(remote.root).as_posix(), path.read_bytes())
    first, last = totals.landing_hours[0], totals.landing_hours[-1]
    remote.settings = replace(remote.settings, first_hour=first)

    def land() -> tuple[int, int]:
        landed = land_hours(remote.database.url, remote.settings, first, last, NOW)
        return sum(hour.files_landed for hour in landed), sum(hour.accepted for hour in landed)

    listing = remote.listing()
    assert set(listing.unlanded_hours) == {*totals.landing_hours}
    assert land() == (totals.files, totals.lines - totals.bad_lines)
    events = remote.query(EVENTS)
    assert remote.listing().unlanded_hours == ()
    assert land() == (0, 0)
    # The bucket was a copy of this directory: its keys are the same, its times are not.
    remote.settings = replace(remote.settings, landing_url=str(remote.root))
    assert land() == (0, 0)
    listing = remote.listing()
    assert (listing.unlanded_hours, listing.missing) == ((), 0)
    assert remote.query(EVENTS) == events


def test_a_manifest_lands_from_a_bucket(remote: Landing, bucket: Bucket) -> None:
    bucket.put(KEY, event("1"))
    manifest = KEY.replace("a.ndjson", "_manifest.json")
    bucket.put(manifest, written(says({"a.ndjson": event("1")})))
    assert remote.listing().unlanded_hours == (AT,)
    landed = remote.land()
    assert (landed.files_landed, landed.manifests_landed) == (1, 1)
    states = "select state, sent_digest = landed_digest from reconciliation.control_totals"
    assert remote.query(states) == [("identical", True)]
    assert remote.listing().unlanded_hours == ()
    bucket.delete(manifest)
    remote.listing()
    assert remote.query("select missing_since from landing.manifests") == [(NOW,)]


def test_a_day_is_archived_in_a_bucket_and_comes_back(remote: Landing, bucket: Bucket) -> None:
    bucket.put(KEY, event("1", quantity="-99999999999999999999.999999999999999999") + event("2"))
    remote.land()
    remote.settings = replace(remote.settings, archive_url=bucket.url(f"{bucket.name}/archive"))
    archives, events = Archives(remote.database, remote.settings), remote.query(EVENTS)
    written = archives.write(Stage.LANDING, AT.date())
    assert archives.write(Stage.LANDING, AT.date()).content_sha256 == written.content_sha256, (
        "the same again"
    )
    assert archives.records(written, "acme", ["1", "3"]) == 1
    with remote.database.connect() as connection:
        connection.execute("drop table landing.usage_events_20260131")
        connection.execute(
            "insert into catalog.archives (stage, day, landed_days, event_types, file_key, row_count, content_digest,"
            " size_bytes, content_sha256, archived_at) values (%s, %s, '{}', '{}', %s, %s, %s, %s, %s, %s)",
            (*(getattr(written, each) for each in ("stage", "day", "file_key", "row_count", "content_digest")),
             written.size_bytes, written.content_sha256, NOW),
        )  # fmt: skip
    assert remote.query(EVENTS) == []
    archives.attach([AT.date()], NOW)
    assert remote.query(EVENTS) == events
    listed = open_filesystem(bucket.url(bucket.name))[0].get_file_info(FileSelector("usage", recursive=True))  # fmt: skip
    assert [each.path for each in listed if each.path.endswith((".parquet", ".tmp"))] == []


def test_markers_of_directories_are_nothing(remote: Landing, bucket: Bucket) -> None:
    bucket.put("", b"")
    bucket.put("landed_hour=2026-01-31T13/", b"")
    bucket.put("landed_hour=2026-01-31T14/", b"")
    bucket.put(KEY, event("1"))
    assert remote.land().accepted == 1
    listing = remote.listing()
    assert (listing.unlanded_hours, listing.unknown) == ((), ())
    assert remote.query("select sum(file_count) from landing.hours") == [(1,)]


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_what_happens_between_listing_and_reading_lands_nothing(
    remote: Landing, bucket: Bucket, what: str
) -> None:
    second = KEY.replace("a.nd", "b.nd")
    bucket.put(KEY, event("1"))
    bucket.put(second, event("2"))
    list_hour = Source.list_hour

    def listed_just_before(source: Source, hour: datetime) -> Contents:
        contents = list_hour(source, hour)
        if what == "gone":
            bucket.delete(second)
        else:
            bucket.put(second, event("2") + event("3"))
        return contents

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "list_hour", listed_just_before)
        with pytest.raises(SourceError, match=f"s3://usage/landing/{second} (is gone|changed)"):
            remote.land()
    assert remote.tables() == [[], [], [], []]
    assert remote.land().accepted == (1 if what == "gone" else 3)


def test_an_object_that_vanished_is_missing(remote: Landing, bucket: Bucket) -> None:
    bucket.put(KEY, event("1"))
    bucket.put(KEY.replace("T13", "T14"), event("2"))
    remote.land()
    bucket.delete(KEY)
    assert remote.listing().missing_sample == (KEY,)
    # The last object gone, the prefix is too: a root that is not there is no empty one.
    bucket.delete(KEY.replace("T13", "T14"))
    with pytest.raises(SourceError, match="is not there"):
        remote.listing()


def test_a_listing_may_tell_the_time_more_exactly_than_the_object(bucket: Bucket) -> None:
    """Some stores list milliseconds, and tell whole seconds where an object is asked for."""
    bucket.put(KEY, event("1"))
    source = Source(bucket.root)
    [file] = source.list_hour(AT).files[AT]
    exact = file._replace(modified=file.modified.replace(microsecond=123_000))
    with source.snapshot(exact) as snapshot:
        assert snapshot.stream.read() == event("1")
    another = file._replace(modified=file.modified + timedelta(seconds=1))
    with pytest.raises(SourceError, match="changed"), source.snapshot(another):
        pass


def test_recent_hours_are_listed_by_the_fewer_calls(bucket: Bucket) -> None:
    for hour in (10, 12, 13):
        bucket.put(f"landed_hour=2026-01-31T{hour}/a.ndjson", b"")
    source = Source(bucket.root)

    def listed(files: int) -> list[int]:
        return [hour.hour for hour in source.list_since(AT - HOUR, AT, files).files]

    assert listed(files=3) == [10, 12, 13]
    assert listed(files=3000) == [12, 13]


def refused(bucket: Bucket) -> str:
    bucket.refuse_everyone()
    return bucket.root


def refused_by_url(bucket: Bucket) -> str:
    bucket.refuse_everyone()
    return bucket.url(f"usage/{PREFIX}", login="someone:hush%2Fhush@")


FAILURES: dict[str, tuple[Callable[[Bucket], str], str]] = {
    "credentials": (refused, "refuses the credentials.*AWS_ACCESS_KEY_ID.*ACCESS_DENIED"),
    "credentials in the URL": (refused_by_url, r"s3://\*\*\*@usage/landing.*refuses the cred"),
    "bucket": (lambda bucket: bucket.url("nowhere/landing"), "s3://nowhere/landing.*is not there"),
    "prefix": (lambda bucket: bucket.url("usage/landed"), "s3://usage/landed.*is not there"),
    "endpoint": (
        lambda bucket: bucket.url("usage/landing", login="someone:hush@", port=1),
        "does not answer; check the network and the URL's endpoint_override",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_store_that_cannot_be_read_says_so_soon(
    remote: Landing, bucket: Bucket, failure: str
) -> None:
    bucket.put(KEY, event("1"))
    url_of, words = FAILURES[failure]
    settings = replace(remote.settings, landing_url=url_of(bucket))
    began = time.monotonic()
    with pytest.raises(SourceError, match=words) as raised:
        list_hours(remote.database.url, settings, NOW)
    assert time.monotonic() - began < 5
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert remote.tables() == [[], [], [], []]


def test_missing_credentials_are_said(
    remote: Landing, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may list without a login is refused the object."""
    bucket.put(KEY, event("1"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match=f"s3://usage/landing/{KEY}.*AWS_ACCESS_KEY_ID"):
        remote.land()
    assert remote.tables() == [[], [], [], []]
