"""Watching: the figures, what they show to be wrong, who is told and how often, and what Prometheus gets."""

import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from metering_pipeline import status
from metering_pipeline.postgres import Database, DatabaseError
from metering_pipeline.settings import HOUR, PROJECT_ROOT, Settings
from metering_pipeline.watch import alerts, page, troubles
from metering_pipeline.watch.figures import ABOUT, Figures, read_figures, reading
from metering_pipeline.watch.prometheus import PREFIX, PortTaken, exposition, serving
from metering_pipeline.watch.troubles import KINDS, Found, found_in_figures, grave, keep
from tests.postgres.billing_world import World

NOW = datetime(2026, 2, 1, 10, 30, tzinfo=UTC)
STEP = """
insert into reconciliation.step_costs (
    stage, step, run_id, first_hour, last_hour, started_at, seconds, cpu_seconds, record_count, succeeded
)
values (%s, %s, 'run', %s, %s, %s, 2, 1, 100, %s)
"""


@pytest.fixture
def watched(settings: Settings) -> Settings:
    """The settings of one who watches, at a moment that stands."""
    return replace(settings, clock=NOW, first_hour=datetime(2026, 1, 1, tzinfo=UTC))


def run_step(
    connection: psycopg.Connection, stage: str, step: str, at: datetime, succeeded: bool = True
) -> None:
    hour = at.replace(minute=0) - HOUR
    connection.execute(STEP, (stage, step, hour, hour, at, succeeded))


# The figures


def test_every_figure_is_described_and_every_description_is_of_one(
    world: World, settings: Settings
) -> None:
    run_step(world.connection, "landing", "landing/usage_events", NOW)
    world.execute("update reconciliation.watch set looked_at = %s", NOW)
    hold(world.connection)
    figures = read_figures(world.connection, settings)
    assert {figure for figure, _, _ in figures} == set(ABOUT)
    assert {figure for figure, label, _ in figures if label} == {
        figure for figure, about in ABOUT.items() if about.label
    }
    assert set(figures.labels("recent_events")) == {"on_time", "late", "beyond_lookback"}
    assert set(figures.labels("recent_copies")) == {"duplicate", "conflict"}
    queues = "select format('%%s.%%s', schemaname, relname) from pg_stat_user_tables where relname ~ any(%s)"
    names = world.connection.execute(queues, (["^pending$", "^touched", "^changed_ranges$"],))
    assert set(figures.labels("queue_rows")) == {name for (name,) in names}


def hold(connection: psycopg.Connection) -> None:
    connection.execute(
        """
        insert into invoices.held_invoices (
            draft_id, reason, detail, tenant_id, subscription_id, bill_at, total, currency, held_since
        )
        values ('draft', 'law_failed', 'L4', 'acme', 'sub', %(at)s, 1, 'USD', %(at)s)
        """,
        {"at": NOW - timedelta(days=2)},
    )


def test_status_and_metrics_say_the_same(world: World, watched: Settings) -> None:
    console = Console(width=200, record=True)
    status.print_status(console, world.connection)
    status.print_operation(console, world.connection, watched)
    said = console.export_text()
    figures = read_figures(world.connection)
    served = samples(exposition(world.database, watched).decode())
    accepted = served["metering_current_records", "accepted"]
    assert accepted == figures.whole("current_records", "accepted") > 0
    assert f"{int(accepted):,} records accepted" in said
    assert f"{int(served['metering_draft_invoices', '']):,} drafts" in said
    failing = sum(value for (name, _), value in served.items() if name.endswith("failing_windows"))
    red = "select count(*) from reconciliation.current_law_results where not passed and tenant_id is null"
    assert [(failing,)] == world.connection.execute(red).fetchall()


def samples(text: str) -> Mapping[tuple[str, str], float]:
    """Value by name and the value of the label, of a text that Prometheus' own library can read."""
    return {
        (each.name, next(iter(each.labels.values()), "")): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_a_window_is_red_until_its_newest_evaluation_is_not(world: World) -> None:
    result = """
        insert into reconciliation.law_results (
            evaluation_id, law, window_start, window_end, tenant_id, passed, figures, evaluated_at
        )
        values (%s, 'L3', '2025-01-01Z', '2025-01-02Z', %s, %s, '{}', now())
        """
    before = read_figures(world.connection).whole("failing_windows", "L3")
    world.execute(result, 1_000_001, None, False)
    world.execute(result, 1_000_001, "acme", False)
    assert read_figures(world.connection).whole("failing_windows", "L3") == before + 1
    world.execute(result, 1_000_002, None, True)
    assert read_figures(world.connection).whole("failing_windows", "L3") == before


def test_an_hour_counts_as_run_when_it_was_over(database: Database) -> None:
    """A run of the hour that is still going on says nothing of its end."""
    with database.connect() as connection:
        assert read_figures(connection).instant("run_until_timestamp_seconds") is None
        hour = datetime(2026, 2, 1, 9, tzinfo=UTC)
        for at, succeeded in ((hour + timedelta(minutes=12), True), (hour + HOUR, False)):
            connection.execute(STEP, ("landing", "landing/usage_events", hour, hour, at, succeeded))
        assert read_figures(connection).instant("run_until_timestamp_seconds") == hour
        connection.execute(STEP, ("landing", "landing/usage_events", hour, hour, hour + HOUR, True))
        assert read_figures(connection).instant("run_until_timestamp_seconds") == hour + HOUR


A_YEAR = """
insert into landing.hours (landed_hour, file_count, listed_at, landed_at, posted_at, sealed)
select hour, 10, now(), now(), now(), true
from generate_series('2025-01-01Z'::timestamptz, '2025-12-31 23:00Z', '1 hour') as hour;
insert into landing.files (
    file_key, landed_hour, content_sha256, size_bytes, accepted_count, rejected_count, earliest_event_date,
    future_tolerance_minutes, landed_at, modified_at
)
select landed_hour::text || number, landed_hour, '', 1000, 100, 1, '2020-01-01', 60, now(), now()
from landing.hours
cross join generate_series(1, 10) as number;
insert into rollups.arrival_delays (landed_hour, event_type, delay_hours, event_count)
select landed_hour, 'type-' || type, delay, 10
from landing.hours
cross join generate_series(1, 5) as type
cross join generate_series(0, 9) as delay;
insert into reconciliation.law_results (
    evaluation_id, law, window_start, window_end, passed, figures, evaluated_at
)
select night, law, landed_hour, landed_hour + interval '1 hour', night > 1 or law <> 'L2', '{}', landed_hour
from landing.hours
cross join (values ('L1'), ('L2'), ('L3')) as laws (law)
cross join generate_series(1, 10) as night;
insert into reconciliation.step_costs (
    stage, step, run_id, first_hour, last_hour, started_at, seconds, cpu_seconds, record_count, succeeded
)
select 'landing', 'landing/usage_events', 'run', landed_hour, landed_hour, landed_hour + interval '72 minutes', 1, 1, 1, true
from landing.hours
cross join generate_series(1, 8);
insert into ledger.conflicts
select
    'acme', 'api.request', landed_hour, 'c', gen_random_uuid(), gen_random_uuid(), 1, '{}', landed_hour, 1,
    row_number() over (), now()
from landing.hours
cross join generate_series(1, 4);
insert into ledger.duplicates
select 'event', conflicts.*
from ledger.conflicts;
analyze;
"""


def test_a_year_of_history_costs_little(database: Database, watched: Settings) -> None:
    """87,600 files, 438,000 delays, 262,800 results of laws, 8,760 of which failed once: by index, or small."""
    with database.connect(autocommit=True) as connection:
        connection.execute(A_YEAR.encode())
    with reading(database, watched) as connection:
        started = time.monotonic()
        figures = read_figures(connection)
        assert time.monotonic() - started < 3
        [(plan,)] = connection.execute(
            "explain (format json) select * from reconciliation.figures"
        ).fetchall()
    assert figures.whole("landed_records_total", "accepted") == 8_760_000
    assert figures.whole("failing_windows", "L2") == 0
    read_whole = {
        node["Relation Name"] for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"
    }
    used = {node.get("Index Name") for node in nodes(plan[0]["Plan"])}
    assert used >= {"law_results_failed", "law_results_by_time", "law_results_by_window"}
    assert read_whole & {"law_results", "arrival_delays", "duplicates", "conflicts"} == set()


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def test_whoever_reads_can_write_nothing(database: Database, watched: Settings) -> None:
    with (
        pytest.raises(DatabaseError, match="cannot be read"),
        reading(database, watched) as connection,
    ):
        connection.execute("update reconciliation.watch set looked_at = now()")
    with reading(database, watched) as connection:
        assert connection.execute("select current_user").fetchone() == ("metering_analyst",)


# What they show to be wrong


def figures_of(**values: Any) -> Figures:
    """A healthy moment, but for the values given: by figure, or figure and label in a mapping."""
    healthy: dict[str, Any] = {
        "run_until_timestamp_seconds": NOW.replace(minute=0),
        "sealed_until_timestamp_seconds": NOW.replace(minute=0) - HOUR,
        "looked_timestamp_seconds": NOW - timedelta(minutes=2),
        "first_step_timestamp_seconds": NOW - timedelta(days=30),
        "step_end_timestamp_seconds": {
            "invoices/issued_invoices": NOW - 9 * HOUR,
            "reconciliation/law_results": NOW - 13 * HOUR,
        },
        "queue_rows": {"ledger.pending": 0},
        "failing_windows": {"L1": 0, "L3": 0},
        "disk_size_bytes": {"home": 10**9},
        "disk_free_bytes": {"home": 5 * 10**8},
        "database_bytes": 10**9,
    }
    found = {}
    for figure, value in (healthy | values).items():
        for label, each in value.items() if isinstance(value, dict) else [("", value)]:
            if each is not None:
                seconds = each.timestamp() if isinstance(each, datetime) else each
                found[figure, label] = Decimal(str(seconds))
    return Figures(found)


WRONG = {
    "every_hour is late": (
        {"run_until_timestamp_seconds": NOW.replace(minute=0) - 2 * HOUR},
        ("schedule_missed", "every_hour", "no landing hour after 2026-02-01T07 was run"),
    ),
    "every_hour never ran": (
        {"run_until_timestamp_seconds": None},
        ("schedule_missed", "every_hour", "no hour was run"),
    ),
    "every_day is late": (
        {"step_end_timestamp_seconds": {"invoices/issued_invoices": NOW - 26 * HOUR, "reconciliation/law_results": NOW}},
        ("schedule_missed", "every_day", "no day's invoices were issued since 2026-01-31T08:30Z"),
    ),
    "every_night never ran": (
        {"step_end_timestamp_seconds": {"invoices/issued_invoices": NOW}},
        ("schedule_missed", "every_night", "nothing was proved since 2026-01-02T10:30Z"),
    ),
    "an hour is not sealed": (
        {"sealed_until_timestamp_seconds": NOW.replace(minute=0) - 5 * HOUR},
        ("hour_not_sealed", "landing.hours", "2026-02-01T05 is not"),
    ),
    "a law fails": (
        {"failing_windows": {"L3": 2}},
        ("law_failed", "L3", "fails in 2 windows (metering status)"),
    ),
    "a disk is full": (
        {"disk_free_bytes": {"home": 99 * 10**6}},
        ("disk_full", "home", "99.0 MB of 1.0 GB free"),
    ),
    "a queue is long": (
        {"queue_rows": {"rating.touched": 1_000_000}},
        ("queue_growing", "rating.touched", "1,000,000 rows"),
    ),
    "invoices are held": (
        {"oldest_hold_timestamp_seconds": NOW - 25 * HOUR, "held_invoices": 3},
        ("invoices_held", "invoices", "3 held, the oldest since 2026-01-31T09:30Z"),
    ),
    "nobody looks": (
        {"looked_timestamp_seconds": NOW - timedelta(minutes=16)},
        ("not_watched", "watch", "the sensor watch has not looked since 2026-02-01T10:14Z"),
    ),
    "nobody ever looked": (
        {"looked_timestamp_seconds": None},
        ("not_watched", "watch", "the sensor watch has never looked: turn it on"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(watched: Settings, name: str) -> None:
    values, expected = WRONG[name]
    (found,) = found_in_figures(figures_of(**values), watched, NOW)
    assert (found.kind, found.subject, found.detail) == expected
    assert found.patience == timedelta(0)


NOT_WRONG: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "all is well": ({}, {}),
    "the hour that ended 30 minutes ago is still being run": (
        {"run_until_timestamp_seconds": NOW.replace(minute=0) - HOUR}, {},
    ),
    "a schedule that is off on purpose": (
        {"run_until_timestamp_seconds": None}, {"off_on_purpose": "every_hour, every_week"},
    ),
    "patience": (
        {"run_until_timestamp_seconds": NOW.replace(minute=0) - 5 * HOUR,
         "sealed_until_timestamp_seconds": NOW.replace(minute=0) - 5 * HOUR},
        {"overdue_minutes": 400},
    ),
    "little room is enough": ({"disk_free_bytes": {"home": 60 * 10**6}}, {"disk_free_percent": 5}),
    "holds may last": ({"oldest_hold_timestamp_seconds": NOW - 25 * HOUR}, {"held_hours": 48}),
    "nothing has run yet": (
        {"run_until_timestamp_seconds": None, "first_step_timestamp_seconds": None, "step_end_timestamp_seconds": {}},
        {"first_hour": NOW.replace(minute=0)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_WRONG)
def test_what_is_well_or_allowed_is_not(watched: Settings, name: str) -> None:
    values, changes = NOT_WRONG[name]
    assert found_in_figures(figures_of(**values), replace(watched, **changes), NOW) == []


def test_a_server_of_ones_own_is_measured_against_what_it_may_take(watched: Settings) -> None:
    figures = figures_of(database_bytes=95 * 10**8)
    assert found_in_figures(figures, watched, NOW) == []
    (found,) = found_in_figures(figures, replace(watched, database_gigabytes=10), NOW)
    assert str(found.detail) == "500.0 MB of 10.0 GB free"


def test_a_queue_with_something_in_it_is_grave_after_a_while(watched: Settings) -> None:
    (found,) = found_in_figures(figures_of(queue_rows={"ledger.pending": 5}), watched, NOW)
    assert found.patience == timedelta(minutes=watched.queue_minutes)


# Kept, from the first look to the end


QUEUE = Found("queue_growing", "ledger.pending", "5 rows", timedelta(hours=3))
TICK = Found("tick_failed", "late_files", "the tick failed", timedelta(minutes=10))


def known(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select kind, ended_at is not null from reconciliation.troubles order by trouble_id"
    ).fetchall()


def test_a_trouble_is_grave_once_it_has_lasted(database: Database, watched: Settings) -> None:
    quiet = replace(watched, off_on_purpose="every_hour, every_day, every_night, watch")
    with database.connect() as connection:
        later = [NOW + timedelta(minutes=minutes) for minutes in (0, 2, 10, 12, 14)]
        assert not keep(connection, [TICK], later[0])
        assert grave_of(connection, quiet, later[0]) == []
        assert not keep(connection, [TICK], later[1])
        assert keep(connection, [TICK], later[2]), "what is grave has changed"
        assert grave_of(connection, quiet, later[2]) == ["late_files"]
        assert not keep(connection, [TICK], later[3])
        assert keep(connection, [], later[4])
        assert known(connection) == [("tick_failed", True)]
        assert grave_of(connection, quiet, later[4]) == []


def grave_of(connection: psycopg.Connection, settings: Settings, now: datetime) -> list[str]:
    return [each.subject for each in grave(connection, read_figures(connection), settings, now)]


def test_what_is_over_in_time_is_forgotten(database: Database) -> None:
    """A queue that a run empties, seen in passing."""
    with database.connect() as connection:
        assert not keep(connection, [QUEUE], NOW)
        assert known(connection) == [("queue_growing", False)]
        assert not keep(connection, [], NOW + timedelta(minutes=2))
        assert known(connection) == []


def test_a_queue_that_explodes_does_not_wait(database: Database) -> None:
    with database.connect() as connection:
        keep(connection, [QUEUE], NOW)
        at_once = replace(QUEUE, patience=timedelta(0))
        assert keep(connection, [at_once], NOW + timedelta(minutes=2))
        assert not keep(connection, [QUEUE], NOW + timedelta(minutes=4)), "it does not calm down"


def test_a_look_that_is_killed_leaves_what_was_known(database: Database) -> None:
    """In the middle of writing: the session ends, nothing of it stays."""
    with database.connect() as connection:
        keep(connection, [TICK], NOW)
        connection.commit()
    with database.connect() as connection:
        connection.execute(
            """
            create function pg_temp.die() returns trigger language plpgsql as
            $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
            create trigger die after update on reconciliation.watch
            for each statement execute function pg_temp.die()
            """
        )
        with pytest.raises(psycopg.OperationalError):
            keep(connection, [QUEUE], NOW + HOUR)
    with database.connect() as connection:
        assert known(connection) == [("tick_failed", False)]


def test_without_the_daemon_the_figures_still_tell(database: Database, watched: Settings) -> None:
    """What the sensor saw last stands beside what the figures show now, and each once."""
    with database.connect() as connection:
        keep(connection, [TICK, Found("law_failed", "L3", "fails in 9 windows")], NOW - HOUR)
        connection.commit()
        found = [str(each) for each in grave(connection, read_figures(connection), watched, NOW)]
    assert found == [
        "tick_failed late_files: the tick failed (since 2026-02-01T09:30Z)",
        "not_watched watch: the sensor watch has not looked since 2026-02-01T09:30Z",
        "schedule_missed every_hour: no hour was run",
    ]


# Told


@dataclass
class Receiver:
    """A real HTTP server that people are told by: what it got, and how it answers."""

    url: str
    status: int = 200
    wait: float = 0
    got: list[str] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as each:
        yield each


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            time.sleep(place.wait)
            place.got.append(body)
            self.send_response(place.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    place = Receiver(f"json://127.0.0.1:{server.server_port}/top-secret-key")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def look(database: Database, settings: Settings, found: list[Found], now: datetime) -> None:
    """As the sensor does."""
    with database.connect() as connection:
        keep(connection, found, now)
        connection.commit()
        alerts.tell(connection, settings, now)


def test_a_trouble_is_told_once_and_so_is_its_end(
    database: Database, watched: Settings, receiver: Receiver
) -> None:
    told = replace(watched, alert_urls=receiver.url)
    for minutes in range(0, 180, 2):
        look(database, told, [TICK], NOW + timedelta(minutes=minutes))
    (message,) = receiver.got
    assert "tick_failed late_files" in message
    assert "docs/runbooks/sensor-failed.md" in message
    for minutes in range(180, 190, 2):
        look(database, told, [], NOW + timedelta(minutes=minutes))
    assert len(receiver.got) == 2
    assert "is over" in receiver.got[1]
    look(database, told, [replace(TICK, patience=timedelta(0))], NOW + 5 * HOUR)
    assert len(receiver.got) == 3, "another trouble, of the same kind"


def test_what_is_found_at_one_look_is_told_in_one_message(
    database: Database, watched: Settings, receiver: Receiver
) -> None:
    told = replace(watched, alert_urls=receiver.url)
    both = [replace(each, patience=timedelta(0)) for each in (TICK, QUEUE)]
    look(database, told, both, NOW)
    look(database, told, both[:1], NOW + timedelta(minutes=2))
    look(database, told, [], NOW + timedelta(minutes=4))
    began, *ended = receiver.got
    assert "Metering: 2 troubles" in began
    assert "queue_growing ledger.pending" in began
    assert ["queue_growing ledger.pending is over" in each for each in ended] == [True, False]
    assert "tick_failed late_files is over" in ended[1]


@pytest.mark.parametrize("trouble", ["500", "timeout", "nobody listens"])
def test_what_could_not_be_told_is_told_later(
    database: Database,
    watched: Settings,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    monkeypatch.setattr(alerts, "SECONDS", 1)
    told = replace(watched, alert_urls=receiver.url)
    if trouble == "500":
        receiver.status = 500
    elif trouble == "timeout":
        receiver.wait = 2
    else:
        told = replace(watched, alert_urls="json://127.0.0.1:9/top-secret-key")
    caplog.set_level(logging.DEBUG)
    started = time.monotonic()
    look(database, told, [replace(TICK, patience=timedelta(0))], NOW)
    assert time.monotonic() - started < 4
    assert "place 1 of METERING_ALERT_URLS did not take" in caplog.text
    assert "tried again at the next look" in caplog.text
    assert "top-secret-key" not in caplog.text
    with database.connect() as connection:
        assert read_figures(connection).whole("failed_alerts") == 1

    receiver.status, receiver.wait, receiver.got = 200, 0, []
    look(database, replace(watched, alert_urls=receiver.url), [TICK], NOW + timedelta(minutes=2))
    assert len(receiver.got) == 1
    with database.connect() as connection:
        assert read_figures(connection).whole("failed_alerts") == 0


def test_one_place_that_answers_is_enough(
    database: Database, watched: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would be told again and again for the sake of the other."""
    told = replace(watched, alert_urls=f"json://127.0.0.1:9/x {receiver.url}")
    for minutes in (0, 2, 4):
        look(
            database, told, [replace(TICK, patience=timedelta(0))], NOW + timedelta(minutes=minutes)
        )
    assert len(receiver.got) == 1
    assert caplog.text.count("place 1 of METERING_ALERT_URLS did not take") == 1
    assert "tried again" not in caplog.text


def test_who_dies_after_telling_tells_again_who_dies_before_too(
    database: Database, watched: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: it is noted only when it was told."""
    told = replace(watched, alert_urls=receiver.url)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(alerts, "note_told", killed)
        with pytest.raises(KeyboardInterrupt):
            look(database, told, [replace(TICK, patience=timedelta(0))], NOW)
    look(database, told, [TICK], NOW + timedelta(minutes=2))
    look(database, told, [TICK], NOW + timedelta(minutes=4))
    assert len(receiver.got) == 2


def test_a_place_that_is_none_is_named_without_its_key(
    database: Database, watched: Settings
) -> None:
    wrong = replace(watched, alert_urls="json://127.0.0.1:9/x nonsense://top-secret-key")
    with pytest.raises(
        alerts.AlertError, match="Place 2 of METERING_ALERT_URLS cannot be read"
    ) as error:
        look(database, wrong, [replace(TICK, patience=timedelta(0))], NOW)
    assert "top-secret-key" not in str(error.value)
    assert "top-secret-key" not in repr(wrong)


# For Prometheus


def test_each_metric_is_named_and_described_as_prometheus_wants(
    world: World, watched: Settings
) -> None:
    text = exposition(world.database, watched).decode()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(PREFIX)
        assert family.documentation.endswith("."), family.name
        counts = family.type == "counter"
        assert counts == all(each.name.endswith("_total") for each in family.samples), family.name
        assert all(len(each.labels) <= 1 for each in family.samples), family.name
    names = {name for name, _ in samples(text)}
    units = ("_seconds", "_bytes", "_ratio", "_total", "_seconds_total", "_bytes_total")
    counted = {name for name in names if not name.endswith(units)}
    assert counted == {
        PREFIX + name
        for name in (
            "up", "troubles", "current_records", "current_files", "landing_partitions", "recent_events",
            "recent_copies", "late_arrivals", "queue_rows", "draft_invoices", "held_invoices",
            "issuing_stopped", "failing_windows", "failed_alerts",
        )
    }  # fmt: skip
    assert {label for name, label in samples(text) if name == "metering_troubles"} == set(KINDS)
    assert "acme" not in text, "no label names a tenant"


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def test_served_it_is_read_anew_and_an_error_is_a_figure(
    database: Database, watched: Settings, unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    quick = replace(watched, watch_timeout_seconds=1)
    with serving(database, quick, unused_port):
        assert samples(get(unused_port))["metering_up", ""] == 1
        with database.connect() as connection:
            keep(connection, [replace(TICK, patience=timedelta(0))], NOW)
        assert samples(get(unused_port))["metering_troubles", "tick_failed"] == 1
        with database.connect() as connection:
            connection.execute("lock table landing.files in access exclusive mode")
            started = time.monotonic()
            assert samples(get(unused_port)) == {("metering_up", ""): 0}
            assert time.monotonic() - started < 5, "it does not wait for the lock"
        with pytest.raises(PortTaken, match="--port"), serving(database, quick, unused_port):
            pass
    with pytest.raises(urllib.error.URLError):
        get(unused_port)
    assert "The figures cannot be read" in caplog.text


@pytest.fixture
def unused_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def test_an_unreachable_database_is_metering_up_0(watched: Settings, unused_port: int) -> None:
    nowhere = Database(url="postgresql://nobody:secret@127.0.0.1:9/metering", dagster_url="")
    with serving(nowhere, watched, unused_port):
        assert samples(get(unused_port)) == {("metering_up", ""): 0}
    with pytest.raises(DatabaseError, match="cannot be read") as error:
        exposition(nowhere, watched)
    assert "secret" not in str(error.value)


RULES = PROJECT_ROOT / "docs" / "prometheus" / "rules.yml"


def test_the_rules_ask_for_metrics_that_there_are(world: World, watched: Settings) -> None:
    run_step(world.connection, "landing", "landing/usage_events", NOW)
    asked = set(re.findall(r"\bmetering_\w+", RULES.read_text()))
    known = {PREFIX + figure for figure in ABOUT} | {"metering_up", "metering_troubles"}
    assert asked
    assert asked <= known
    kinds = set(re.findall(r'metering_troubles\{kind=~?"([^"]+)"', RULES.read_text()))
    assert {each for kind in kinds for each in kind.split("|")} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_leads_to_a_page(kind: str) -> None:
    assert kind in (PROJECT_ROOT / KINDS[kind].page).read_text()
    assert f"`{kind}`" in (PROJECT_ROOT / "docs" / "watch.md").read_text()


# A page


def test_the_page_shows_what_is_wrong_and_escapes_it(
    world: World, watched: Settings, tmp_path: Path
) -> None:
    keep(world.connection, [replace(TICK, subject="<b>x</b>", patience=timedelta(0))], NOW)
    text = page.html(world.connection, watched, NOW).decode()
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<b>x</b>" not in text
    assert "docs/runbooks/sensor-failed.md" in text
    assert text.count("<svg") == 2
    assert not re.findall(r"<script|(?:src|href)=[\"']https?:", text)


def test_troubles_are_read_as_they_are_written(database: Database) -> None:
    with database.connect() as connection:
        keep(connection, [TICK], NOW)
        (trouble,) = troubles.standing(connection)
    assert str(trouble) == "tick_failed late_files: the tick failed (since 2026-02-01T10:30Z)"
