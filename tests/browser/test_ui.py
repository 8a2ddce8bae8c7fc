"""``metering ui`` as its users have it: the real webserver, daemon and code server; a backfill launched
from the page's own interface; a sensor that repairs; pages in a browser. The daemon looks up every half minute:
what needs no backfill is tried while it works."""

import html
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from metering_pipeline import postgres
from metering_pipeline import settings as settings_module
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.generate import GeneratedTotals, generate
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.settings import PROJECT_ROOT

pytestmark = pytest.mark.browser

DAY = date(2026, 1, 10)
HOURS = [f"{DAY}T{hour:02}" for hour in range(24)]
PARTITIONED = {
    "landing/usage_events",
    "ledger/usage_events",
    "rollups/usage_contributions",
    "rollups/usage_hourly",
}
DRAFTS = {
    "rollups/usage_daily",
    "rating/billing_periods",
    "rating/period_usage_daily",
    "rating/rated_lines",
    "invoices/draft_invoices",
}
GROUPS = ["landing", "ledger", "rollups", "rating", "invoices", "reconciliation", "catalog"]
START_SECONDS = 90
BACKFILL_SECONDS = 240
SENSOR_SECONDS = 240
END_SECONDS = 60
COMMAND = [sys.executable, "-c", "from metering_pipeline.cli import main; main()"]


@dataclass
class Ui:
    """A running ``metering ui`` on a database with a day of sample events, none of them landed."""

    process: subprocess.Popen[bytes]
    port: int
    database: postgres.Database
    root: Path
    totals: GeneratedTotals

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/server_info")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def graphql(self, query: str, **variables: Any) -> Mapping[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            body = json.dumps({"query": query, "variables": variables})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        assert "errors" not in answer, answer
        data: Mapping[str, Any] = answer["data"]
        return data

    def family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@pytest.fixture(scope="module")
def ui(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("ui")
    root = folder / "landing"
    totals = generate(root, DAY, days=1, landing_hours_per_day=range(24), events=400, seed=2)
    with pytest.MonkeyPatch.context() as environment:
        database = fresh_databases(server)
        environment.setenv("METERING_DATABASE_URL", database.url)
        environment.setenv("METERING_DAGSTER_DATABASE_URL", database.dagster_url)
        environment.setenv("METERING_LANDING_URL", str(root))
        environment.setenv("METERING_FIRST_HOUR", HOURS[0])
        clock = datetime.combine(DAY, datetime.min.time(), UTC) + timedelta(hours=26)
        environment.setenv("METERING_CLOCK", clock.isoformat())
        environment.setenv("METERING_TICK_MINUTES", "0")
        publish_and_list(database)
        with started(folder / "output", database, root, totals) as running:
            yield running


@contextmanager
def started(
    said: Path, database: postgres.Database, root: Path, totals: GeneratedTotals, *options: str
) -> Iterator[Ui]:
    """``metering ui`` with options, its output in the file, from its first answer to its end."""
    with said.open("wb") as output:
        port = free_port()
        process = subprocess.Popen(
            [*COMMAND, "ui", "--port", str(port), *options],
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Ui(process, port, database, root, totals)
    try:
        wait_until_it_answers(running, said)
        yield running
    finally:
        end(running)


def fresh_databases(server: EmbeddedServer) -> postgres.Database:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute("create database metering template metering_template strategy wal_log")
        connection.execute("drop database if exists dagster_ui with (force)")
        connection.execute("create database dagster_ui")
    return postgres.Database(url=address.url("metering"), dagster_url=address.url("dagster_ui"))


def publish_and_list(database: postgres.Database) -> None:
    """The sample catalog, and the hours that drafts look at; dbt parses here, once."""
    from metering_pipeline.transform.dbt import run_dbt

    run_dbt(database, "build", ["resource_type:seed", "path:models/staging", "path:models/catalog"])
    configured = settings_module.load()
    list_hours(database.url, configured, configured.now())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(ui: Ui, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ui.answers():
        said = output.read_text(errors="replace")
        assert ui.process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def end(ui: Ui) -> None:
    """Ends it as a user does; whatever is left then is killed, and is a fault."""
    family = ui.family() if ui.process.poll() is None else []
    ui.process.send_signal(signal.SIGINT)
    try:
        code: int | None = ui.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    left = [each for each in family if each.is_running() and each.status() != "zombie"]
    for each in left:
        each.kill()
    assert (code, left) == (0, [])


LATE_HOUR = datetime.combine(DAY, datetime.min.time(), UTC) - timedelta(days=5)
"""Of usage that lands beyond the lookback: 72 hours."""


@dataclass(frozen=True)
class Day:
    """A day that the daemon backfills, while one of its hours is run from the command line."""

    backfill: str
    beside: subprocess.Popen[str]


@pytest.fixture(scope="module")
def day(ui: Ui) -> Iterator[Day]:
    """Launched, not waited for. One of its hours has an event that is later than the lookback."""
    event = {
        "tenant_id": "late-riser",
        "event_type": "api.request",
        "occurred_at": LATE_HOUR.isoformat(),
        "correlation_id": "late-1",
    }
    late = ui.root / f"landed_hour={HOURS[5]}" / "late.ndjson"
    late.write_text(json.dumps(event) + "\n")
    backfill = launch(ui, PARTITIONED | DRAFTS, HOURS)
    with subprocess.Popen(
        [*COMMAND, "run", "--hour", HOURS[12]],
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as beside:
        yield Day(backfill, beside)


def test_only_loopback_is_listened_on(ui: Ui, day: Day) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in ui.family()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", ui.port)}


def test_pages_show_what_there_is(ui: Ui, day: Day, tmp_path: Path) -> None:
    """The stages at first sight, and a column with its origin."""
    assert groups(ui) == set(GROUPS)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs chromium to look at pages; the groups' names were asked for instead")
    picture = tmp_path / "lineage.png"
    address = f"http://127.0.0.1:{ui.port}"
    written = look(browser, tmp_path, f"{address}/asset-groups/", picture)
    assert [group for group in GROUPS if f">{group}<" not in written] == []
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000, "an empty page is smaller"
    written = look(browser, tmp_path, f"{address}/assets/invoices/draft_invoices", picture)
    assert "Sum of the lines' amounts" in written
    assert "← rating.rated_lines (amount), invoices.billed_lines (amount)" in written


def test_a_page_for_looking_starts_nothing(ui: Ui, day: Day, tmp_path: Path) -> None:
    """It shows the same, and has no daemon."""
    with started(tmp_path / "output", ui.database, ui.root, ui.totals, "--read-only") as page:
        shown = page.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"]
        assert {"/".join(node["assetKey"]["path"]) for node in shown} >= PARTITIONED
        refused = try_to_launch(page, PARTITIONED, HOURS[:1])
        assert refused["__typename"] == "UnauthorizedError"
        running = [" ".join(each.cmdline()) for each in page.family()]
        assert [each for each in running if "dagster._daemon" in each] == []


def test_a_day_is_backfilled_in_one_run(ui: Ui, day: Day) -> None:
    """By the daemon, while one of its hours is run from the command line."""
    _, said = day.beside.communicate(timeout=BACKFILL_SECONDS)
    assert day.beside.returncode == 0, said
    runs = wait_for(ui, day.backfill)
    selections = {
        frozenset("/".join(key["path"]) for key in run["assetSelection"]): {
            tag["key"]: tag["value"] for tag in run["tags"] if "partition" in tag["key"]
        }
        for run in runs
    }
    assert selections[frozenset(PARTITIONED)] == {
        "dagster/asset_partition_range_start": HOURS[0],
        "dagster/asset_partition_range_end": HOURS[-1],
    }
    others = [selection for selection, tags in selections.items() if not tags]
    assert sorted(key for selection in others for key in selection) == sorted(DRAFTS)
    assert len(runs) == 1 + len(others)
    assert requests_by_tenant(ui) == {
        tenant: count
        for (tenant, event_type), count in ui.totals.net_events.items()
        if event_type == "api.request" and count
    }


def test_each_hour_of_the_backfill_shows_its_own_figures(ui: Ui, day: Day) -> None:
    """And the run's, in words."""
    landed = ui.graphql(
        """
        query($hours: [String!]) {
            assetNodeOrError(assetKey: {path: ["landing", "usage_events"]}) {
                ... on AssetNode {
                    latestMaterializationByPartition(partitions: $hours) {
                        partition
                        metadataEntries {
                            label
                            ... on IntMetadataEntry { intValue }
                            ... on TextMetadataEntry { text }
                        }
                    }
                }
            }
        }
        """,
        hours=HOURS,
    )["assetNodeOrError"]["latestMaterializationByPartition"]
    shown = {
        each["partition"]: {entry["label"]: entry for entry in each["metadataEntries"]}
        for each in landed
    }
    with ui.database.connect() as connection:
        accepted = connection.execute(
            """
            select to_char(landed_hour, 'YYYY-MM-DD"T"HH24'), sum(accepted_count)::int
            from landing.files
            group by landed_hour
            """
        ).fetchall()
    # an hour that was run twice shows the second run, in which all its files were known
    once = {hour: count for hour, count in accepted if hour != HOURS[12]}
    assert {
        hour: entries["records accepted"]["intValue"]
        for hour, entries in shown.items()
        if hour in once
    } == once
    assert shown[HOURS[0]]["this run"]["text"].startswith(f"{HOURS[0]} to {HOURS[-1]}: 24 hours")


def launch(ui: Ui, assets: set[str], partitions: list[str]) -> str:
    launched = try_to_launch(ui, assets, partitions)
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def try_to_launch(ui: Ui, assets: set[str], partitions: list[str]) -> Mapping[str, Any]:
    launched: Mapping[str, Any] = ui.graphql(
        """
        mutation($params: LaunchBackfillParams!) {
            launchPartitionBackfill(backfillParams: $params) {
                __typename
                ... on LaunchBackfillSuccess { backfillId }
                ... on PythonError { message }
            }
        }
        """,
        params={
            "assetSelection": [{"path": key.split("/")} for key in sorted(assets)],
            "partitionNames": partitions,
            "title": "A day",
            "tags": [],
        },
    )["launchPartitionBackfill"]
    return launched


def wait_for(ui: Ui, backfill: str) -> list[Mapping[str, Any]]:
    """The runs of the backfill once it is done; it must have succeeded."""
    deadline = time.monotonic() + BACKFILL_SECONDS
    while True:
        state = ui.graphql(
            """
            query($id: String!) {
                partitionBackfillOrError(backfillId: $id) {
                    ... on PartitionBackfill {
                        status
                        error { message }
                        runs { status assetSelection { path } tags { key value } }
                    }
                }
            }
            """,
            id=backfill,
        )["partitionBackfillOrError"]
        if state["status"] not in ("REQUESTED", "CANCELING", "FAILING"):
            assert state["status"] == "COMPLETED_SUCCESS", state
            return list(state["runs"])
        assert time.monotonic() < deadline, state
        time.sleep(1)


def requests_by_tenant(ui: Ui) -> dict[str, int]:
    with ui.database.connect() as connection:
        rows = connection.execute(
            """
            select tenant_id, sum(value_sum)::bigint
            from rollups.usage_hourly
            where metric = 'requests'
            group by tenant_id
            having sum(value_sum) > 0
            """
        ).fetchall()
    return dict(rows)


def test_usage_beyond_the_lookback_is_repaired_by_its_sensor(ui: Ui, day: Day) -> None:
    """Landed, it waits and is warned of; the daemon's sensor launches the run that rolls it up."""
    assert late_usage(ui) == ([LATE_HOUR], [])
    assert no_late_arrivals(ui) == ("FAILED", "WARN")

    start_sensor(ui, "late_arrivals")
    (run,) = wait_for_runs_of_sensor(ui, "late_arrivals")
    assert (run["jobName"], run["status"]) == ("late_arrivals", "SUCCESS")
    assert late_usage(ui) == ([], [1])
    assert no_late_arrivals(ui) == ("SUCCEEDED", "WARN")


def late_usage(ui: Ui) -> tuple[list[datetime], list[int]]:
    """The event hours that wait as late arrivals, and the requests rolled up of the late tenant."""
    with ui.database.connect() as connection:
        waiting = connection.execute("select event_hour from rollups.late_arrivals").fetchall()
        rolled_up = connection.execute(
            "select event_count from rollups.usage_hourly"
            " where tenant_id = 'late-riser' and metric = 'requests' and hour = %s",
            (LATE_HOUR,),
        ).fetchall()
    return [hour for (hour,) in waiting], [count for (count,) in rolled_up]


def no_late_arrivals(ui: Ui) -> tuple[str, str]:
    """Status and severity of the newest execution of that check, as the page shows it."""
    checks = ui.graphql(
        """
        {
            assetNodeOrError(assetKey: {path: ["rollups", "usage_hourly"]}) {
                ... on AssetNode {
                    assetChecksOrError {
                        ... on AssetChecks {
                            checks {
                                name
                                executionForLatestMaterialization { status evaluation { severity } }
                            }
                        }
                    }
                }
            }
        }
        """
    )["assetNodeOrError"]["assetChecksOrError"]["checks"]
    (newest,) = (
        check["executionForLatestMaterialization"]
        for check in checks
        if check["name"] == "no_late_arrivals"
    )
    return newest["status"], newest["evaluation"]["severity"]


def start_sensor(ui: Ui, name: str) -> None:
    """As by its switch on the page *Automation*."""
    (repository,) = ui.graphql(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
    )["repositoriesOrError"]["nodes"]
    started = ui.graphql(
        """
        mutation($sensor: SensorSelector!) {
            startSensor(sensorSelector: $sensor) {
                __typename
                ... on PythonError { message }
            }
        }
        """,
        sensor={
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
            "sensorName": name,
        },
    )["startSensor"]
    assert started["__typename"] == "Sensor", started


def wait_for_runs_of_sensor(ui: Ui, name: str) -> list[Mapping[str, Any]]:
    """The runs that the sensor launched, once there are some and all have ended."""
    deadline = time.monotonic() + SENSOR_SECONDS
    while True:
        runs: list[Mapping[str, Any]] = ui.graphql(
            """
            query($filter: RunsFilter!) {
                runsOrError(filter: $filter) {
                    ... on Runs { results { jobName status startTime endTime } }
                }
            }
            """,
            filter={"tags": [{"key": "dagster/sensor_name", "value": name}]},
        )["runsOrError"]["results"]
        if runs and all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in runs):
            return runs
        assert time.monotonic() < deadline, runs
        time.sleep(1)


def test_what_is_wrong_is_seen_by_the_sensor_that_watches(ui: Ui, day: Day) -> None:
    """A tick of another that failed, those that are off; its check and the freshness are on the page."""
    wait_for(ui, day.backfill)
    away = ui.root.rename(ui.root.with_name("away"))
    try:
        start_sensor(ui, "late_files")
        wait_until(lambda: "FAILURE" in ticks(ui, "late_files"))
    finally:
        away.rename(ui.root)
    start_sensor(ui, "watch")
    wait_until(lambda: troubles(ui))
    assert ("tick_failed", "late_files") in troubles(ui)
    assert ("automation_off", "every_hour") in troubles(ui)
    assert ("automation_off", "watch") not in troubles(ui)
    node = ui.graphql(
        """
        {
            watched: assetNodeOrError(assetKey: {path: ["reconciliation", "troubles"]}) {
                ... on AssetNode {
                    assetChecksOrError {
                        ... on AssetChecks {
                            checks { executionForLatestMaterialization { status } }
                        }
                    }
                }
            }
            landed: assetNodeOrError(assetKey: {path: ["landing", "usage_events"]}) {
                ... on AssetNode { freshnessStatusInfo { freshnessStatus } }
            }
        }
        """
    )
    (check,) = node["watched"]["assetChecksOrError"]["checks"]
    assert check["executionForLatestMaterialization"]["status"] == "FAILED"
    assert node["landed"]["freshnessStatusInfo"]["freshnessStatus"] == "HEALTHY"


def troubles(ui: Ui) -> list[tuple[str, str]]:
    with ui.database.connect() as connection:
        return connection.execute("select kind, subject from reconciliation.troubles").fetchall()


def ticks(ui: Ui, sensor: str) -> list[str]:
    """How the sensor's ticks ended, the newest first."""
    states = ui.graphql(
        """
        {
            sensorsOrError(repositorySelector: {
                repositoryName: "__repository__", repositoryLocationName: "metering_pipeline"
            }) {
                ... on Sensors { results { name sensorState { ticks(limit: 5) { status } } } }
            }
        }
        """
    )["sensorsOrError"]["results"]
    (state,) = (each["sensorState"] for each in states if each["name"] == sensor)
    return [tick["status"] for tick in state["ticks"]]


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + SENSOR_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(1)


def groups(ui: Ui) -> set[str]:
    nodes = ui.graphql("{ assetNodes { groupName } }")["assetNodes"]
    return {node["groupName"] for node in nodes}


def look(browser: str, folder: Path, page: str, picture: Path) -> str:
    """Load the page without a window or a profile of its own being left; what is written there, and a picture."""
    done = subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1700,1000",
            "--virtual-time-budget=20000",
            f"--screenshot={picture}",
            "--dump-dom",
            page,
        ],
        capture_output=True,
        timeout=90,
        check=True,
        env={**os.environ, "HOME": str(folder)},
    )
    return html.unescape(done.stdout.decode())
