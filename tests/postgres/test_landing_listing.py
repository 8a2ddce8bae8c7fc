"""What a listing says of the landing root: missing files, and the recent hours alone."""

import shutil
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from metering_pipeline.landing.assets import hours
from metering_pipeline.landing.listing import Listing, list_hours
from metering_pipeline.landing.sources import SourceError
from metering_pipeline.settings import HOUR
from tests.postgres.test_landing_store import AT, NOW, Landing, event, landing

__all__ = ["landing"]  # the fixture

MISSING = """
    select file_key, missing_since
    from landing.files
    where missing_since is not null
    order by file_key
"""
LATER = NOW + HOUR


def recent(landing: Landing, since: datetime = AT, now: datetime = NOW) -> Listing:
    return list_hours(landing.database.url, landing.settings, now, since)


def test_a_landed_file_that_is_gone_is_reported_and_counts_on(landing: Landing) -> None:
    kept = landing.drop("kept.ndjson", event("1"))
    gone = landing.drop("gone.ndjson", event("2"))
    key = f"{gone.parent.name}/{gone.name}"
    landing.land()
    sealed = landing.listing().sealed
    content = gone.read_bytes()
    gone.unlink()
    listing = landing.listing()
    assert (listing.missing, listing.missing_sample) == (1, (key,))
    assert listing.sealed == sealed
    assert landing.query(MISSING) == [(key, NOW)]
    # The first listing that missed it stands; landing the hour again forgets nothing.
    landing.land()
    landing.listing(LATER)
    assert landing.query(MISSING) == [(key, NOW)]
    assert landing.query("select count(*) from landing.usage_events") == [(2,)]
    # Put back, even under another time, it is found again.
    gone.write_bytes(content)
    listing = landing.listing(LATER)
    assert (listing.missing, listing.missing_sample) == (0, ())
    assert landing.query(MISSING) == []
    assert kept.exists()


def test_an_empty_file_of_the_same_name_takes_a_missing_one_back(landing: Landing) -> None:
    gone = landing.drop("a.ndjson", event("1"))
    landing.land()
    gone.unlink()
    assert landing.listing().missing == 1
    gone.write_bytes(b"")
    assert landing.land().files_landed == 1
    assert landing.listing(LATER).missing == 0
    assert landing.query(MISSING) == []
    assert landing.query(
        "select accepted_count, superseded_by is null from landing.files order by file_id"
    ) == [(1, False), (0, True)]


def test_an_emptied_root_loses_nothing_and_a_missing_one_is_an_error(landing: Landing) -> None:
    for number in range(12):
        landing.drop(f"{number:02}.ndjson", event(str(number)), AT - number % 3 * HOUR)
    for hour in range(3):
        landing.land(AT - hour * HOUR)
    before = landing.listing()
    elsewhere = landing.root.with_name("elsewhere")
    landing.root.rename(elsewhere)
    with pytest.raises(SourceError, match=f"{landing.root} is not there"):
        landing.listing()
    assert landing.query(MISSING) == []
    landing.root.mkdir()
    emptied = landing.listing()
    assert (emptied.missing, len(emptied.missing_sample)) == (12, 10)
    assert emptied.unlanded_hours == ()
    shutil.copytree(elsewhere, landing.root, dirs_exist_ok=True)
    assert landing.listing().missing == 0
    assert (before.hours, before.sealed) == (emptied.hours, emptied.sealed)


def test_what_no_listing_looks_at_is_not_missing(landing: Landing) -> None:
    """A later first hour, or a listing of the recent hours, says nothing of the older ones."""
    path = landing.drop("a.ndjson", event("1"), AT - HOUR)
    landing.land(AT - HOUR)
    landing.listing()
    path.unlink()
    assert recent(landing).missing == 0
    assert landing.query(MISSING) == []
    assert landing.listing().missing == 1


def test_recent_hours_alone_leave_the_older_rows(landing: Landing) -> None:
    landing.drop("a.ndjson", event("1"), AT - HOUR)
    landing.drop("a.ndjson", event("1"), AT + HOUR)
    landing.listing()
    landing.drop("b.ndjson", event("2"), AT - HOUR)
    landing.drop("b.ndjson", event("2"), AT + HOUR)
    listing = recent(landing, now=LATER)
    assert listing.unlanded_hours == (AT + HOUR,)
    assert listing.hours == (LATER - AT) // HOUR + 1
    rows = landing.query(
        "select landed_hour, file_count, listed_at from landing.hours order by landed_hour"
    )
    assert [hour for hour, _, _ in rows] == [
        AT - 2 * HOUR + number * HOUR for number in range(len(rows))
    ]
    assert {listed_at for hour, _, listed_at in rows if hour < AT} == {NOW}
    assert {listed_at for hour, _, listed_at in rows if hour >= AT} == {LATER}
    assert [count for _, count, _ in rows[:4]] == [0, 1, 0, 2]


def test_the_first_listing_is_of_all_hours(landing: Landing) -> None:
    """A row says what a listing saw: an hour before the recent ones gets none unseen."""
    landing.drop("a.ndjson", event("1"), AT - HOUR)
    assert recent(landing).unlanded_hours == (AT - HOUR,)
    [(first, sealed)] = landing.query(
        "select min(landed_hour), bool_and(sealed) from landing.hours where landed_hour < %s", AT
    )
    assert (first, sealed) == (landing.settings.first_hour, False)


def test_the_asset_shows_what_is_missing(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = landing.drop("a.ndjson", event("1"))
    landing.drop("notes.txt", b"")
    landing.land()
    gone.unlink()
    values = {
        "HOME": str(landing.settings.home),
        "DATABASE_URL": landing.database.url,
        "DAGSTER_DATABASE_URL": landing.database.dagster_url,
        "LANDING_URL": str(landing.root),
        "FIRST_HOUR": f"{landing.settings.first_hour:%Y-%m-%dT%H}",
        "CLOCK": (NOW + timedelta(minutes=1)).astimezone(UTC).isoformat(),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"METERING_{name}", value)
    (made,) = dg.materialize([hours]).asset_materializations_for_node("landing__hours")
    assert made.metadata["files landed and missing now"].value == 1
    assert made.metadata["of these"].value == f"{gone.parent.name}/a.ndjson"
    assert f"{gone.parent.name}/notes.txt: " in str(made.metadata["what cannot be landed"].value)
