"""Views and functions that stand are left alone; whatever was done to them, the next run makes them as they are defined."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from metering_pipeline.settings import HOUR
from metering_pipeline.transform import standing
from metering_pipeline.transform.assets import rating_models
from metering_pipeline.transform.dbt import project_digest
from tests.scenarios.conftest import Pipeline, Worlds

FIRST = datetime(2026, 1, 31, 5, tzinfo=UTC)
REMARKS = "select objoid, description from pg_description where description like 'Defined by %%' order by objoid"
VIEW = dg.AssetKey(["rollups", "usage_realtime"])


@pytest.fixture
def defined(pipeline: Pipeline, worlds: Worlds) -> Pipeline:
    """After a first run, which made them all."""
    pipeline.set_clock(FIRST + HOUR)
    worlds("defined", lambda: pipeline.run(FIRST))
    return pipeline


def test_what_stands_is_left_alone_and_shown_as_materialized(defined: Pipeline) -> None:
    before = defined.rows(REMARKS)
    assert len(before) > 30
    defined.run(FIRST)
    assert defined.rows(REMARKS) == before
    event = defined.instance.get_latest_materialization_event(VIEW)
    (run,) = defined.instance.get_runs(limit=1)
    assert event is not None
    assert event.run_id == run.run_id


def test_one_alone_can_be_materialized(defined: Pipeline) -> None:
    done = dg.materialize([rating_models], instance=defined.instance, selection=[VIEW])
    assert [each.asset_key for each in done.get_asset_materialization_events()] == [VIEW]


def test_what_was_dropped_is_made_again(defined: Pipeline) -> None:
    before = {remark for _, remark in defined.rows(REMARKS)}
    defined.execute("drop view rollups.usage_realtime cascade")
    assert {remark for _, remark in defined.rows(REMARKS)} < before
    defined.run(FIRST)
    assert {remark for _, remark in defined.rows(REMARKS)} == before


def test_what_another_version_defined_is_made_anew(
    defined: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {remark for _, remark in defined.rows(REMARKS)}
    with monkeypatch.context() as version:
        version.setattr(standing, "project_digest", lambda: f"older than {project_digest()}")
        defined.execute("comment on view rollups.usage_realtime is 'Defined by another version'")
        standing.remember_all(defined.database)
    defined.run(FIRST)
    assert {remark for _, remark in defined.rows(REMARKS)} == before
