"""What runs by itself: the schedules' hours and dates, and the sensors for whatever comes late."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest

from metering_pipeline.settings import HOUR
from tests.scenarios.conftest import Pipeline

LANDED = datetime(2026, 1, 10, 5, tzinfo=UTC)
"""The hour in which everything lands here, far beyond the lookback after the late event's hour."""
ON_TIME = LANDED - HOUR
LATE = LANDED - timedelta(hours=100)


def request(occurred_at: datetime, correlation_id: str) -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": occurred_at.isoformat(),
        "correlation_id": correlation_id,
        "properties": {"model": "small", "input_tokens": 1_000_000, "output_tokens": 10},
    }


@pytest.fixture
def january(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The pipeline from the first of January 2026 on, an hour after the landing hour has closed."""
    monkeypatch.setenv("METERING_FIRST_HOUR", "2026-01-01T00")
    pipeline.set_clock(LANDED + 2 * HOUR + timedelta(minutes=15))
    return pipeline


def answers(result: Any) -> list[dg.RunRequest | dg.SkipReason]:
    """What a schedule or sensor answers, given one by one or as one."""
    return list(result) if isinstance(result, Iterator) else [result]


def requests(result: Any) -> list[dg.RunRequest]:
    return [each for each in answers(result) if isinstance(each, dg.RunRequest)]


def test_definitions_load() -> None:
    from metering_pipeline.definitions import defs

    dg.Definitions.validate_loadable(defs)


def test_every_hour_runs_the_closed_hour_and_the_present_one() -> None:
    from metering_pipeline.partitions import landing_hours
    from metering_pipeline.schedules import every_hour

    tick = datetime(2026, 1, 10, 0, 12, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=tick)
    asked = requests(every_hour(context))
    assert [each.partition_key for each in asked] == ["2026-01-09T23", "2026-01-10T00"]
    assert all(landing_hours.has_partition_key(str(each.partition_key)) for each in asked)
    assert len({each.run_key for each in asked}) == 2


def test_landing_hours_are_listed_as_dagster_lists_them() -> None:
    from metering_pipeline.partitions import HOUR_FORMAT, LandingHours

    first = datetime(2024, 2, 28, 22, tzinfo=UTC)
    ours = LandingHours(start_date=first, fmt=HOUR_FORMAT, end_offset=1)
    theirs = dg.HourlyPartitionsDefinition(start_date=first, fmt=HOUR_FORMAT, end_offset=1)
    for now in (None, first + timedelta(minutes=1), first + timedelta(days=2)):
        assert list(ours.get_partition_keys(now)) == list(theirs.get_partition_keys(now))
    assert ours.get_partition_keys() is ours.get_partition_keys(), "not made anew for each asker"
    ahead = LandingHours(start_date=datetime(2999, 1, 1, tzinfo=UTC), fmt=HOUR_FORMAT)
    assert ahead.get_partition_keys() == []


def test_every_day_issues_for_yesterday() -> None:
    from metering_pipeline.schedules import every_day

    tick = datetime(2026, 3, 1, 1, 30, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=tick)
    assert [each.partition_key for each in requests(every_day(context))] == ["2026-02-28"]


def test_a_file_dropped_late_is_landed(january: Pipeline) -> None:
    from metering_pipeline.sensors import late_files

    january.drop(LANDED, "first.ndjson", [request(ON_TIME, "first")])
    january.run(LANDED)
    january.set_clock(LANDED + timedelta(days=2))
    assert requests(late_files(dg.build_sensor_context())) == []

    january.drop(LANDED, "forgotten.ndjson", [request(ON_TIME, "forgotten")])
    (asked,) = requests(late_files(dg.build_sensor_context()))
    assert asked.partition_key == "2026-01-10T05"
    (again,) = requests(late_files(dg.build_sensor_context()))
    assert again.run_key == asked.run_key, "Dagster launches it once"

    january.run(LANDED)
    assert requests(late_files(dg.build_sensor_context())) == []
    assert requested(january) == {"requests": Decimal(2)}


def test_an_hour_that_a_crash_left_unposted_is_run(january: Pipeline) -> None:
    from metering_pipeline import settings
    from metering_pipeline.landing.store import land_hours
    from metering_pipeline.sensors import late_files, older_files

    january.drop(LANDED, "first.ndjson", [request(ON_TIME, "first")])
    january.set_clock(LANDED + timedelta(days=30))
    configured = settings.load()
    land_hours(january.database.url, configured, LANDED, LANDED, configured.now())

    assert requests(late_files(dg.build_sensor_context())) == [], "beyond its reach"
    (asked,) = requests(older_files(dg.build_sensor_context()))
    assert asked.partition_key == "2026-01-10T05"
    january.set_clock(LANDED + timedelta(days=30, hours=1))
    (again,) = requests(older_files(dg.build_sensor_context()))
    assert again.run_key != asked.run_key, "tried again an hour later if that run failed"


def test_usage_beyond_the_lookback_gets_a_run_of_its_own(january: Pipeline) -> None:
    from metering_pipeline.sensors import late_arrivals

    january.drop(LANDED, "a.ndjson", [request(ON_TIME, "on-time"), request(LATE, "late")])
    january.run(LANDED)
    assert january.rows("select event_hour from rollups.late_arrivals") == [(LATE,)]
    assert requested(january) == {"requests": Decimal(1)}
    assert check_passed(january, "no_late_arrivals") is False

    context = dg.build_sensor_context(instance=january.instance)
    (asked,) = requests(late_arrivals(context))
    (again,) = requests(late_arrivals(context))
    assert again.run_key == asked.run_key, "Dagster launches it once"

    january.run_job("late_arrivals")
    assert january.rows("select * from ledger.pending") == []
    assert requested(january) == {"requests": Decimal(2)}
    assert check_passed(january, "no_late_arrivals") is True
    assert requests(late_arrivals(context)) == []
    lines = [
        ("starter-usd-input-small", 2),
        ("starter-usd-output-small", 2),
        ("starter-usd-requests", 2),
    ]
    assert rated(january) == lines
    assert drafted(january) == lines

    january.drop(LANDED, "b.ndjson", [request(LATE, "late in the same hours again")])
    january.run(LANDED)
    (anew,) = requests(late_arrivals(context))
    assert anew.run_key != asked.run_key, "Dagster launches it again"


def requested(pipeline: Pipeline) -> dict[str, Decimal]:
    return dict(
        pipeline.rows(
            "select metric, sum(value_sum) from rollups.usage_daily where metric = 'requests' group by 1"
        )
    )


def rated(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows(
        "select charge_id, event_count from rating.rated_lines where event_count > 0 order by 1, 2"
    )


def drafted(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows(
        "select charge_id, event_count from invoices.draft_invoice_lines where event_count > 0 order by 1, 2"
    )


def check_passed(pipeline: Pipeline, name: str) -> bool:
    """The newest result of a check of the hourly rollup."""
    from metering_pipeline.reconciliation.checks import ROLLED_UP

    key = dg.AssetCheckKey(ROLLED_UP, name)
    record = pipeline.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event is not None
    evaluation = record.event.dagster_event
    assert evaluation is not None
    return evaluation.asset_check_evaluation_data.passed


def test_a_change_of_the_catalog_is_published_once() -> None:
    from metering_pipeline.sensors import catalog_changes

    context = dg.build_sensor_context()
    assert len(requests(catalog_changes(context))) == 1
    assert requests(catalog_changes(context)) == []


def test_every_night_proves_everything() -> None:
    from metering_pipeline.schedules import every_night

    tick = datetime(2026, 3, 1, 21, 40, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=tick)
    (asked,) = requests(every_night(context))
    assert asked.partition_key is None


def test_a_billing_provider_is_asked_before_the_day_s_invoices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from metering_pipeline.schedules import before_billing, every_day

    tick = datetime(2026, 3, 1, 0, 20, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=tick)
    assert requests(before_billing(context)) == []
    monkeypatch.setenv("METERING_PROVIDER_USAGE", "stripe")
    assert len(requests(before_billing(context))) == 1
    minute, hour = before_billing.cron_schedule.split()[:2]  # type: ignore[union-attr]
    assert (int(hour), int(minute)) < tuple(map(int, every_day.cron_schedule.split()[1::-1]))  # type: ignore[union-attr]


def test_every_week_rebuilds_a_sample() -> None:
    from metering_pipeline.schedules import every_week

    tick = datetime(2026, 3, 1, 3, 20, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=tick)
    (asked,) = requests(every_week(context))
    assert asked.partition_key is None


def test_proof_and_provider_run_beside_the_others_and_they_four_at_a_time() -> None:
    import yaml

    from metering_pipeline.definitions import defs
    from metering_pipeline.settings import PROJECT_ROOT

    queue = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())["run_queue"]
    (limit,) = queue["tag_concurrency_limits"]
    assert (queue["max_concurrent_runs"], limit["limit"]) == (5, 4)
    free = {
        job.name
        for job in defs.resolve_all_job_defs()
        if limit["key"] not in job.tags and not job.name.startswith("__")
    }
    assert free == {"nightly", "weekly", "provider"}


def test_the_night_names_what_was_damaged(january: Pipeline) -> None:
    """Through the job itself: two days damaged, both named in its checks; mended, it is green."""
    january.drop(LANDED, "a.ndjson", [request(ON_TIME, "one"), request(ON_TIME, "two")])
    january.run(LANDED)
    january.run_job("nightly")
    assert proof(january) == {"L1": (True, []), "L2": (True, []), "L3": (True, [])}, seen(january)

    january.execute(
        """
        insert into rollups.usage_hourly
        select tenant_id, metric, '2020-02-29 05:00Z', dimensions, event_count, value_sum, value_moment, value_min, value_max,
            value_latest, latest_at, latest_fingerprint, event_digest, payload_digest
        from rollups.usage_hourly
        where metric = 'requests'
        """
    )
    january.execute(
        "update rollups.usage_daily set value_sum = value_sum + 1 where metric = 'requests'"
    )
    january.run_job("nightly")
    passed, found = proof(january)["L3"]
    assert not passed, seen(january)
    assert [(each["metric"], each["hour or day"], each["differs in"]) for each in found] == [
        ("requests", "2020-02-29T05", ", ".join(COLUMNS)),
        ("requests", "2020-02-29", ", ".join(COLUMNS)),
        ("requests", "2026-01-10", "value_sum"),
    ], seen(january)
    assert "count 2, sum 2," in found[2]["one side"]
    assert "count 2, sum 3," in found[2]["other side"]
    assert january.red_laws() == {("L3", "acme")}, seen(january)

    january.execute(
        "insert into rollups.touched_buckets select tenant_id, metric, hour, dimensions from rollups.usage_hourly"
    )
    january.run(LANDED)
    # a day is red until it is evaluated again
    assert january.red_laws() == {("L3", "acme")}, seen(january)
    january.run_job("nightly")
    assert proof(january)["L3"] == (True, []), seen(january)
    assert january.red_laws() == set(), seen(january)


def test_lines_are_compared_as_their_drafts_are_drawn_up_and_all_of_them_at_night(
    january: Pipeline,
) -> None:
    """A draft edited behind the pipeline is found at night, stays found, and is well when it is drawn up anew."""
    january.drop(LANDED, "a.ndjson", [request(ON_TIME, "one")])
    january.run(LANDED)
    assert lines_check(january) == (True, "They are.")
    unchecked = "select subscription_id from invoices.unchecked_subscriptions"
    assert january.rows(unchecked) == []
    ((subscription,),) = january.rows(
        "update invoices.draft_invoice_lines set quantity = quantity + 1"
        " where tenant_id = 'acme' and metric = 'requests' returning subscription_id"
    )
    january.run_job("nightly")
    passed, said = lines_check(january)
    assert not passed
    assert f"subscription id {subscription}" in said
    assert "insert the subscription into invoices.touched_subscriptions" in said
    january.run(LANDED)
    assert not lines_check(january)[0], "though this run drew up no draft of it"

    january.execute("insert into invoices.touched_subscriptions values (%s)", subscription)
    january.run_job("drafts")
    assert lines_check(january) == (True, "They are.")
    assert january.rows(unchecked) == []


def test_a_run_that_draws_up_a_wrong_draft_is_told(january: Pipeline) -> None:
    january.drop(LANDED, "a.ndjson", [request(ON_TIME, "one")])
    january.execute(
        """
        create function invoices.spoil() returns trigger language plpgsql as
        'begin new.quantity := new.quantity + 1; return new; end';
        create trigger spoil before insert on invoices.draft_invoice_lines
        for each row when (new.component = 'usage') execute function invoices.spoil()
        """
    )
    january.run(LANDED)
    passed, said = lines_check(january)
    assert not passed
    assert "tenant id acme" in said


def lines_check(pipeline: Pipeline) -> tuple[bool, str]:
    return newest(pipeline, dg.AssetKey(["invoices", "draft_invoices"]), "lines_equal_documents")


def newest(pipeline: Pipeline, asset: dg.AssetKey, name: str) -> tuple[bool, str]:
    """The newest result of a check, and what it says."""
    evaluation = evaluated(pipeline, dg.AssetCheckKey(asset, name))
    return evaluation.passed, str(evaluation.description)


def evaluated(pipeline: Pipeline, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation:
    record = pipeline.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event is not None
    assert record.event.dagster_event is not None
    return record.event.dagster_event.asset_check_evaluation_data


def test_the_week_names_the_day_that_differs_until_it_is_well(january: Pipeline) -> None:
    """Through the job itself, on the files and the rows; what was proven when is kept."""
    path = january.drop(LANDED, "a.ndjson", [request(ON_TIME, "one"), request(ON_TIME, "two")])
    january.run(LANDED)
    january.set_clock(LANDED + timedelta(days=2))
    january.run_job("weekly")
    proven = "select stage, rebuilt_count, left_out_count from reconciliation.current_rebuilt_days order by 1"
    assert january.rows(proven) == [("landing", 2, 0), ("ledger", 2, 0), ("rollups", 3, 0)]
    assert rebuilt(january)[0]

    january.execute("update ledger.usage_events set quantity = 7 where correlation_id = 'two'")
    january.run_job("weekly")
    passed, said = rebuilt(january)
    assert not passed
    assert "2026-01-10 ledger: 0 missing, 0 extra, 1 modified of 2" in said
    assert f"{path.parent.name}/a.ndjson line 2: modified in quantity" in said
    assert "metering rebuild --stage ledger" in said

    january.execute("update ledger.usage_events set quantity = 1 where correlation_id = 'two'")
    path.unlink()
    january.set_clock(LANDED + timedelta(days=9))
    january.run_job("weekly")
    assert rebuilt(january)[0]
    assert january.rows(proven)[0] == ("landing", 0, 1), "a file that is gone cannot testify"
    assert len(january.rows("select distinct week from reconciliation.rebuilt_days")) == 2


def rebuilt(pipeline: Pipeline) -> tuple[bool, str]:
    """The newest result of the weekly check, and what it says."""
    from metering_pipeline.reconciliation.assets import REBUILT

    return newest(pipeline, REBUILT, "days_are_identical")


COLUMNS = (
    "event_count", "value_sum", "event_digest", "payload_digest", "value_min", "value_max",
    "value_latest",
)  # fmt: skip


def proof(pipeline: Pipeline) -> dict[str, tuple[bool, list[dict[str, Any]]]]:
    """The newest results of the nightly checks, with the buckets that they name."""
    found = {}
    for law, evaluation in nightly(pipeline).items():
        table = evaluation.metadata.get("the first of them")
        rows = [dict(each.data) for each in table.records] if table else []  # type: ignore[attr-defined]
        found[law] = (evaluation.passed, rows)
    return found


def seen(pipeline: Pipeline) -> str:
    """All that the nightly checks said, and the rows that they speak of: for a failure that does not come again."""
    said = [
        f"{law}: {evaluation.description} {dict(evaluation.metadata)}"
        for law, evaluation in nightly(pipeline).items()
    ]
    for relation in (
        "reconciliation.current_law_results", "ledger.pending", "rollups.usage_contributions",
        "rollups.touched_buckets", "rollups.usage_hourly", "rollups.touched_days", "rollups.usage_daily",
    ):  # fmt: skip
        said += [relation, *(text for (text,) in pipeline.rows(f"select t::text from {relation} as t"))]  # fmt: skip
    return "\n".join(said)


def nightly(pipeline: Pipeline) -> dict[str, dg.AssetCheckEvaluation]:
    from metering_pipeline.reconciliation.assets import KEY

    return {law: evaluated(pipeline, dg.AssetCheckKey(KEY, law)) for law in ("L1", "L2", "L3")}
