"""Landing into the database: one transaction an hour, nothing lost, nothing twice."""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import pytest

from metering_pipeline.generate import Shares, generate
from metering_pipeline.landing import readers, store
from metering_pipeline.landing.listing import Listing, list_hours
from metering_pipeline.landing.sources import Source, SourceError, SourceFile
from metering_pipeline.landing.store import LandedHour, land_hour, land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.settings import HOUR, Settings
from metering_pipeline.transform.dbt import run_dbt

AT = datetime(2026, 1, 31, 13, tzinfo=UTC)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
EVENTS = "select * from landing.usage_events order by landed_hour, file_id, line_number"
TABLES = (
    "select file_id, xmin::text, superseded_by, accepted_count, rejected_count, modified_at from landing.files order by 1",
    "select *, xmin::text from landing.usage_events order by file_id, line_number",
    "select *, xmin::text from landing.rejected_events order by file_id, line_number",
    "select landed_hour, file_count, landed_at, posted_at, sealed from landing.hours order by 1",
)


def event(correlation_id: str, **changes: Any) -> bytes:
    fields = {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": "2026-01-31T13:05:00.25Z",
        "correlation_id": correlation_id,
    }
    return json.dumps(fields | changes).encode() + b"\n"


class Landing:
    """A landing root and the database that it lands in."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = replace(settings, first_hour=AT - 2 * HOUR)
        self.root = Path(settings.landing_root)

    def drop(self, name: str, content: bytes, hour: datetime = AT) -> Path:
        path = self.root / f"landed_hour={hour:%Y-%m-%dT%H}" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def land(self, hour: datetime = AT, now: datetime = NOW) -> LandedHour:
        return land_hour(self.database.url, self.settings, hour, now)

    def listing(self, now: datetime = NOW) -> Listing:
        return list_hours(self.database.url, self.settings, now)

    def query(self, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            return connection.execute(statement, parameters).fetchall()

    def tables(self) -> list[list[tuple[Any, ...]]]:
        return [self.query(statement) for statement in TABLES]


@pytest.fixture
def landing(database: Database, settings: Settings) -> Landing:
    return Landing(database, settings)


def test_events_arrive_as_they_were_sent(landing: Landing) -> None:
    landing.drop(
        "a.ndjson",
        event(
            "1",
            quantity="-99999999999999999999.999999999999999999",
            properties={"b": 1.50, "a": "é\\"},
        )
        + event("2", void=True),
    )
    assert landing.land().accepted == 2
    [first, second] = landing.query(EVENTS)
    file_id = first[1]
    occurred_at = datetime(2026, 1, 31, 13, 5, 0, 250_000, UTC)
    assert first == (
        AT, file_id, 1, "acme", "api.request", occurred_at, "1",
        Decimal("-99999999999999999999.999999999999999999"), '{"a":"é\\\\","b":1.5}', False, None,
    )  # fmt: skip
    assert second == (
        AT, file_id, 2, "acme", "api.request", occurred_at, "2", Decimal(1), "{}", True, None,
    )  # fmt: skip
    [(text,)] = landing.query(
        "select trim_scale(quantity)::text from landing.usage_events where line_number = 2"
    )
    assert text == "1"


NASTY: dict[str, tuple[bytes, int, int]] = {
    "no_newline.ndjson": (event("1") + event("2").rstrip(), 2, 0),
    "blank.ndjson": (b"\n \n" + event("3") + b"\r\n\n", 1, 0),
    "bad.ndjson": (b"{\n\xff\n\0\n[]\n" + event("4", quantty=1) + event("5") + b"\\", 1, 6),
    "only_bad.json": (b"x\n" * 1000, 0, 1000),
    "long.ndjson": (event("6", properties={"a": "x" * (1 << 20)}) + event("7"), 1, 1),
    "empty.ndjson": (b"", 0, 0),
    "empty.ndjson.gz": (gzip.compress(b""), 0, 0),
    "torn.ndjson.gz": (gzip.compress(event("8") * 1000)[:-20], 0, 1),
    "torn_late.ndjson.gz": (
        gzip.compress(b"".join(event(str(n), properties={"n": n}) for n in range(40_000)))[:-5],
        0,
        1,
    ),
    "broken.parquet": (b"PAR1 and nothing more", 0, 1),
    "headless.csv": (b"a,b\n1,2\n", 0, 1),
    "good.csv": (
        b"correlation_id,tenant_id,event_type,occurred_at\n9,acme,e,2026-01-31T13:05:00Z\n9\n",
        1,
        1,
    ),
}


def test_every_record_is_accepted_or_rejected(landing: Landing) -> None:
    for name, (content, _, _) in NASTY.items():
        landing.drop(name, content)
    landed = landing.land()
    found = landing.query(
        """
        select
            split_part(file_key, '/', 2),
            accepted_count,
            rejected_count,
            (select count(*) from landing.usage_events where file_id = files.file_id),
            (select count(*) from landing.rejected_events where file_id = files.file_id)
        from landing.files
        """
    )
    assert {name: (accepted, rejected) for name, accepted, rejected, _, _ in found} == {
        name: (accepted, rejected) for name, (_, accepted, rejected) in NASTY.items()
    }
    assert all(row[1:3] == row[3:5] for row in found)
    assert landed.files_landed == len(NASTY)
    assert landed.accepted == sum(accepted for _, accepted, _ in NASTY.values())
    assert landed.rejected == sum(landed.reasons.values())
    unreadable = landing.query(
        """
        select split_part(file_key, '/', 2), line_number, raw_line
        from landing.rejected_events
        inner join landing.files using (file_id)
        where reason = 'unreadable_file'
        order by 1
        """
    )
    names = ["broken.parquet", "headless.csv", "torn.ndjson.gz", "torn_late.ndjson.gz"]
    assert unreadable == [(name, 0, NASTY[name][0][: readers.KEPT_BYTES]) for name in names]
    assert landing.query(
        "select raw_line from landing.rejected_events where line_number = 2"
        " and reason = 'invalid_utf8'"
    ) == [(b"\xff",)]


def test_rejected_records_are_written_along_the_way(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REJECTED_BYTES", 1000)
    monkeypatch.setattr(readers, "BLOCK_BYTES", 500)
    landing.drop("a.ndjson", (event("1") + b"bad\n" * 20) * 50)
    landed = landing.land()
    assert (landed.accepted, landed.rejected) == (50, 1000)
    assert landed.reasons == {"invalid_json": 1000}


def test_the_same_files_again_change_nothing(landing: Landing) -> None:
    landing.drop("a.ndjson", event("1") + b"bad\n")
    landing.drop("b.ndjson.gz", gzip.compress(event("2")))
    landing.land()
    landing.listing()
    before = landing.tables()
    later = landing.land(now=NOW + HOUR)
    landing.listing(now=NOW)
    assert (later.files_landed, later.files_unchanged, later.accepted) == (0, 2, 0)
    assert landing.tables() == before
    assert landing.query("select listed_at from landing.hours where landed_hour = %s", AT) == [
        (NOW,)
    ]


def test_new_content_supersedes_and_old_content_comes_back(landing: Landing) -> None:
    contents = [event("1") + event("2"), event("1"), event("1") + event("2")]
    for content in contents:
        landing.drop("a.ndjson", content)
        assert landing.land().files_landed == 1
    versions = landing.query(
        "select file_id, superseded_by, accepted_count, content_sha256 from landing.files order by 1"
    )
    ids = [version[0] for version in versions]
    assert [version[1] for version in versions] == [ids[1], ids[2], None]
    assert [version[2] for version in versions] == [2, 1, 2]
    assert versions[0][3] == versions[2][3]
    assert len(landing.query(EVENTS)) == 5
    assert landing.land().files_unchanged == 1


@pytest.mark.parametrize("how", ["reader", "commit"])
def test_an_hour_lands_whole_or_not_at_all(
    landing: Landing, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    landing.drop("a.ndjson", event("1") + b"bad\n")
    landing.drop("b.ndjson", event("2"))
    if how == "reader":
        read = readers.read
        calls: list[str] = []

        def fail_in_the_second_file(name: str, *rest: Any) -> Any:
            calls.append(name)
            yield from read(name, *rest)
            if len(calls) == 2:
                raise RuntimeError("pulled the plug")

        monkeypatch.setattr(readers, "read", fail_in_the_second_file)
    else:

        def fail(*_: object) -> None:
            raise RuntimeError("pulled the plug")

        monkeypatch.setattr(store.Store, "_write_hour", fail)
    with pytest.raises(Exception, match="pulled the plug"):
        landing.land()
    assert landing.tables() == [[], [], [], []]
    monkeypatch.undo()
    assert landing.land().accepted == 2


def test_one_connection_lands_on_after_a_failure(landing: Landing) -> None:
    landing.drop("a.ndjson", event("1"))
    source = Source(str(landing.root))
    with store.Store(landing.database.url, landing.settings, source) as one:
        landing.drop("b.ndjson", event("2"))
        (file,) = [each for each in source.list_hour(AT).files[AT] if each.key.endswith("b.ndjson")]
        stale = file._replace(size_bytes=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Source, "list_hour", with_files(source, AT, [stale]))
            with pytest.raises(SourceError, match="changed while it was read"):
                one.land_hour(AT, NOW)
        assert landing.tables() == [[], [], [], []]
        assert one.land_hour(AT, NOW).accepted == 2
        assert one.land_hour(AT + HOUR, NOW).files_landed == 0


def with_files(source: Source, hour: datetime, files: list[SourceFile]) -> Callable[..., Any]:
    contents = source.list_hour(hour)
    contents.files[hour] = files
    return lambda *_: contents


def test_listing_writes_every_hour_and_seals_what_is_landed(landing: Landing) -> None:
    landing.drop("a.ndjson", event("1"))
    landing.drop("b.ndjson", event("2"), AT + HOUR)
    now = AT + timedelta(hours=2, minutes=9)
    listing = landing.listing(now)
    assert (listing.hours, listing.sealed) == (5, 2)
    assert listing.unlanded_hours == (AT, AT + HOUR)
    landed = land_hours(
        landing.database.url, landing.settings, AT - HOUR, AT + 5 * HOUR, now, lambda _: None
    )
    assert [hour.landed_hour for hour in landed] == [AT, AT + HOUR]
    # The second hour's time to settle has not passed yet; a minute later it has.
    for minutes, sealed in [(0, 3), (1, 4)]:
        listing = landing.listing(now + timedelta(minutes=minutes))
        assert (listing.hours, listing.sealed, listing.unlanded_hours) == (5, sealed, ())
    assert landing.query(
        "select landed_hour, file_count, sealed, landed_at from landing.hours"
    ) == [
        (AT - 2 * HOUR, 0, True, None),
        (AT - HOUR, 0, True, None),
        (AT, 1, True, now),
        (AT + HOUR, 1, True, now),
        (AT + 2 * HOUR, 0, False, None),
    ]


def test_a_late_or_changed_file_unseals_its_hour(landing: Landing) -> None:
    path = landing.drop("a.ndjson", event("1"))
    landing.land()
    landing.listing()
    digest = landing.listing().digest_of(AT)
    landing.drop("late.csv", b"")
    listing = landing.listing()
    assert listing.unlanded_hours == (AT,)
    assert listing.digest_of(AT) != digest
    assert landing.query("select sealed from landing.hours where landed_hour = %s", AT) == [
        (False,)
    ]
    landing.land()
    assert landing.listing().unlanded_hours == ()
    path.write_bytes(event("1") + event("2"))
    assert landing.listing().unlanded_hours == (AT,)


def sealed(landing: Landing, hour: datetime = AT) -> bool:
    [(is_sealed,)] = landing.query("select sealed from landing.hours where landed_hour = %s", hour)
    return bool(is_sealed)


def test_a_corrected_file_of_the_same_size_is_noticed(landing: Landing) -> None:
    path = landing.drop("a.ndjson", event("1", quantity=1))
    landing.land()
    assert landing.listing().unlanded_hours == ()
    path.write_bytes(event("1", quantity=2))
    assert landing.listing().unlanded_hours == (AT,)
    assert not sealed(landing)
    assert landing.land().files_landed == 1
    assert landing.listing().unlanded_hours == ()
    assert sealed(landing)


def test_the_same_content_written_anew_changes_the_modification_time_only(
    landing: Landing,
) -> None:
    path = landing.drop("a.ndjson", event("1"))
    landing.land()
    versions = "select to_jsonb(files) - 'modified_at', modified_at from landing.files"
    [(version, _)] = landing.query(versions)
    [_, *others] = landing.tables()
    written_anew = datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC)
    os.utime(path, (written_anew.timestamp(), written_anew.timestamp()))
    assert landing.listing().unlanded_hours == (AT,)
    landed = landing.land(now=NOW + HOUR)
    assert (landed.files_landed, landed.files_unchanged) == (0, 1)
    [(same, modified_at)] = landing.query(versions)
    assert same == version
    assert abs(modified_at - written_anew) < timedelta(milliseconds=1)
    listing = landing.listing()
    assert listing.unlanded_hours == ()
    assert sealed(landing)
    # landing.hours has a row for every listed hour now
    assert landing.tables()[1:3] == others[:2]
    refreshed = landing.tables()
    landing.land(now=NOW + 2 * HOUR)
    assert landing.tables() == refreshed


@pytest.mark.parametrize("way_out", ["replaced", "removed"])
def test_an_unreadable_file_keeps_its_hour_open(landing: Landing, way_out: str) -> None:
    whole = gzip.compress(event("1") * 100)
    path = landing.drop("a.ndjson.gz", whole)
    landing.drop("b.ndjson", event("2"))
    landing.land()
    landing.listing()
    assert sealed(landing)
    path.write_bytes(whole[:-20])
    for _ in range(2):  # landed now, and found again
        landed = landing.land()
        assert [each.path for each in landed.unknown] == [
            f"landed_hour={AT:%Y-%m-%dT%H}/{path.name}"
        ]
        assert not sealed(landing)
    listing = landing.listing()
    assert not sealed(landing)
    assert listing.unlanded_hours == ()
    [unreadable] = listing.unknown
    assert (unreadable.path, unreadable.landed_hour) == (
        f"landed_hour={AT:%Y-%m-%dT%H}/{path.name}",
        AT,
    )
    assert unreadable.problem.startswith("unreadable: the gzip file is torn")
    if way_out == "replaced":
        path.write_bytes(whole)
        landing.land()
    else:
        path.unlink()
    assert landing.listing().unknown == ()
    assert sealed(landing)


def test_a_landed_hour_is_unposted_until_the_ledger_has_it(landing: Landing) -> None:
    posted = "select posted_at is not null from landing.hours where landed_hour = %s"
    for content in (event("1"), event("1") + event("2")):
        landing.drop("a.ndjson", content)
        landing.drop("a.ndjson", content, AT + HOUR)
        landing.land()
        landing.land(AT + HOUR)
        # an hour that is not over yet is the hourly run's
        assert landing.listing(AT + HOUR).unposted_hours == (AT,)
        assert landing.listing().unposted_hours == (AT, AT + HOUR)
        run_dbt(landing.database, "run", ["metering.ledger.usage_events"], Window(AT, AT + HOUR))
        assert landing.listing().unposted_hours == (AT + HOUR,)
        assert landing.query(posted, AT) == [(True,)]
        # hours without files are no debt, and a second run changes no row
        before = landing.tables()
        run_dbt(
            landing.database, "run", ["metering.ledger.usage_events"], Window(AT - HOUR, AT + HOUR)
        )
        assert landing.query(posted, AT - HOUR) == [(False,)]
        assert landing.land().files_unchanged == 1
        assert landing.tables() == before


def test_what_cannot_be_landed_is_reported_and_never_sealed(landing: Landing) -> None:
    landing.drop("a.jsonl", event("1"))
    landing.drop("a.ndjson", event("1"), landing.settings.first_hour - HOUR)
    landing.drop("a.ndjson", event("1"), NOW + HOUR)
    (landing.root / "landed_hour=someday").mkdir()
    landed = landing.land()
    assert (landed.files_landed, len(landed.unknown)) == (0, 1)
    listing = landing.listing()
    assert listing.unlanded_hours == ()
    assert sorted(each.path for each in listing.unknown) == [
        "landed_hour=2026-01-31T10",
        "landed_hour=2026-01-31T13/a.jsonl",
        "landed_hour=2026-02-01T01",
        "landed_hour=someday",
    ]
    assert landing.query("select count(*) from landing.hours where not sealed") == [(3,)]


def test_an_hour_without_files(landing: Landing) -> None:
    assert landing.land() == LandedHour(AT)
    assert landing.query(
        "select landed_hour, file_count, sealed, landed_at from landing.hours"
    ) == [(AT, 0, True, None)]


def test_thousands_of_hours_are_listed_at_once(landing: Landing) -> None:
    landing.settings = replace(landing.settings, first_hour=NOW - 5000 * HOUR)
    for number in range(500):
        landing.drop("a.ndjson", event(str(number)), NOW - number * HOUR)
    listing = landing.listing()
    assert (listing.hours, len(listing.unlanded_hours)) == (5001, 500)


def test_the_sample_lands_as_it_was_written(landing: Landing) -> None:
    shares = Shares(bad_lines=0.01)
    totals = generate(landing.root, events=3000, days=5, seed=4, shares=shares)
    first, last = totals.landing_hours[0], totals.landing_hours[-1]
    landed = land_hours(landing.database.url, landing.settings, first, last, NOW)
    assert sum(hour.accepted for hour in landed) == totals.lines - totals.bad_lines
    assert sum(hour.rejected for hour in landed) == totals.bad_lines
    assert landing.query(
        """
        select count(distinct (tenant_id, event_type, occurred_at, correlation_id))
            filter (where not void)
        from landing.usage_events
        """
    ) == [(3000,)]
    # The same root somewhere else is the same files.
    moved = landing.root.with_name("moved")
    landing.root.rename(moved)
    elsewhere = replace(landing.settings, landing_url=str(moved))
    again = land_hours(landing.database.url, elsewhere, first, last, NOW)
    assert sum(hour.files_landed for hour in again) == 0
    assert sum(hour.files_unchanged for hour in again) == totals.files
