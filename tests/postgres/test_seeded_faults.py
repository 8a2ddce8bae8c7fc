"""Every seeded fault is found by a named check, whose message leads to the row."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from metering_pipeline.cli import cli
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.invoices.issuing import preview
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.assets import rebuilt_result
from metering_pipeline.reconciliation.checks import ISSUED, law_result
from metering_pipeline.reconciliation.differences import (
    LINES,
    RELATIONS,
    Relation,
    differing_rows,
    explained,
)
from metering_pipeline.reconciliation.laws import LAWS
from metering_pipeline.reconciliation.proof import PROVED, Tally, prove
from metering_pipeline.reconciliation.rebuilt_days import rebuild_sample, standing
from metering_pipeline.settings import PROJECT_ROOT, Settings, hour_of
from tests.postgres.billing_world import FEBRUARY, at
from tests.postgres.fault_world import NOW, FileWorld, live, settings_for
from tests.postgres.seeded_faults import DRAFTS, FAULTS, FINDERS, Fault

TEMPLATE = "metering_fault_template"
NOT_REBUILT = ("rating", "invoices", "catalog")
PAGE = PROJECT_ROOT / "docs" / "seeded-faults.md"


@pytest.fixture(scope="module")
def lived(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template database of the world, made; its landing root."""
    root = tmp_path_factory.mktemp("faults") / "landing"
    root.mkdir()
    world = clone(server, "metering_template", root)
    live(world)
    world.connection.execute("vacuum analyze")
    world.connection.close()
    with psycopg.connect(server.start().url("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("alter database metering rename to {}").format(sql.Identifier(TEMPLATE))
        )
    return root


def clone(server: EmbeddedServer, template: str, root: Path) -> FileWorld:
    address = server.start()
    with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists metering with (force)")
        connection.execute(
            sql.SQL("create database metering template {} strategy wal_log").format(
                sql.Identifier(template)
            )
        )
    database = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    settings = settings_for(Settings(database_url=database.url), root)
    return FileWorld(database, database.connect(autocommit=True), settings)


@pytest.fixture
def world(server: EmbeddedServer, lived: Path, tmp_path: Path) -> Iterator[FileWorld]:
    root = tmp_path / "landing"
    shutil.copytree(lived, root)
    world = clone(server, TEMPLATE, root)
    yield world
    world.connection.close()


def found(world: FileWorld, stage: str = "") -> Mapping[str, str]:
    """What every check that runs in production says of the world, where it says anything, in the order of a week.

    A damaged stage that the weekly rebuild does not read is not rebuilt: it takes half of the time.
    """
    says = dict(_listing(world)) | dict(_gate(world))
    for law in LAWS:
        tally = Tally(law)
        if law in PROVED:
            now = hour_of(NOW)
            tally = prove(world.database, law, now, now, NOW, list[str]().append)
        else:
            tally.add(world.results(law))
        if tally.failing:
            result = law_result(tally, ISSUED, [explained(world.connection, tally.failing[0])])
            says[law] = str(result.description)
    lines = differing_rows(world.connection, LINES, at("2020-01-01"), at("2030-01-01"))
    if lines.rows:
        says["lines_equal_documents"] = str(lines)
    problems = world.rows(
        "select catalog_table, row_key, column_name, value, problem from staging.catalog_problems"
    )
    if problems:
        says["catalog_problems"] = str(problems[0])
    if "gate" not in says:
        says |= dict(_gate(world))  # of what the night has found, too
    if stage not in NOT_REBUILT:
        says |= dict(_weekly(world))
    return says


def _weekly(world: FileWorld) -> Iterator[tuple[str, str]]:
    rebuild_sample(world.database, world.settings, NOW, list[str]().append)
    red = standing(world.connection)
    if red:
        yield "days_are_identical", str(rebuilt_result(red).description)


def _listing(world: FileWorld) -> Iterator[tuple[str, str]]:
    listing = list_hours(world.database.url, world.settings, NOW)
    if listing.unlanded_hours:
        yield "late_files", ", ".join(f"{each:%Y-%m-%dT%H}" for each in listing.unlanded_hours)
    if listing.missing:
        yield "no_vanished_files", ", ".join(listing.missing_sample)


def _gate(world: FileWorld) -> Iterator[tuple[str, str]]:
    """What issuing would say, of whom it would not hold anyway."""
    report = preview(world.database, FEBRUARY, NOW)
    held = [
        f"{each.draft_id}: {each.reason}, {each.detail}"
        for each in report.held
        if (each.tenant_id, each.reason) != ("cobalt", "unrated_usage")
    ]
    if held:
        yield "gate", "\n".join(held)


def seed(world: FileWorld, fault: Fault) -> None:
    for step in fault.steps:
        if isinstance(step, str):
            world.tamper(step)
        else:
            step(world)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.stage}, {fault.what}")
def test_the_fault_is_found_and_named(world: FileWorld, fault: Fault) -> None:
    seed(world, fault)
    says = found(world, fault.stage)
    assert tuple(sorted(says, key=[*FINDERS].index)) == fault.found_by
    assert any(all(word in text for word in fault.leads_to) for text in says.values()), says


def test_what_nobody_touched_is_found_by_nothing(world: FileWorld) -> None:
    assert found(world) == {}


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.mend == DRAFTS], ids=lambda fault: fault.what
)
def test_a_draft_is_mended_as_is_said(world: FileWorld, fault: Fault) -> None:
    seed(world, fault)
    world.post(at("2026-02-10T10:00"))
    assert "lines_equal_documents" in found(world, fault.stage), "the run alone mends nothing"
    world.execute("insert into invoices.touched_subscriptions values ('sub-acme')")
    world.post(at("2026-02-10T10:00"))
    assert found(world, fault.stage) == {}


def test_the_commands_mend_what_they_are_told_for(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landing, ledger and rollups damaged at once; status leads to each, and the commands mend them in order."""
    for name, value in {
        "DATABASE_URL": world.database.url,
        "LANDING_URL": str(world.root),
        "FIRST_HOUR": "2026-01-01T00",
        "CLOCK": NOW.isoformat(),
    }.items():
        monkeypatch.setenv(f"METERING_{name}", value)
    world.tamper("delete from landing.usage_events where correlation_id = 'birch-4'")
    world.tamper("update landing.files set accepted_count = 1 where file_key like '%c.ndjson'")
    world.tamper("update ledger.usage_events set quantity = 7 where correlation_id = 'acme-4'")
    world.tamper(
        "update rollups.usage_contributions set value_sum = 9"
        " where tenant_id = 'acme' and metric = 'tokens' and hour = '2026-01-12 11:00Z'"
    )
    assert {law for law, _ in world.check()} >= {"L1", "L2", "L3"}
    shown = run("status", exit_code=1)
    for words in (
        "L1 landing hour 2026-01-12T11 birch",
        "all of them: select * from reconciliation.copies_to_ledger where landed_hour >= '2026-01-12 11:00Z'",
        "to mend: metering rebuild --stage ledger --from 2026-01-12T11 --to 2026-01-12T11 --repair",
        "correlation id acme-4",
        "to mend: metering rebuild --stage rollups --from 2026-01-12T11 --to 2026-01-12T11",
    ):
        assert words in shown, shown

    window = ("--from", "2026-01-12T10", "--to", "2026-01-14T00")
    shown = run("rebuild", "--stage", "landing", *window, exit_code=1)
    assert "landed_hour=2026-01-12T11/b.ndjson line 4: missing, birch birch-4" in shown
    assert "c.ndjson: landing.files counts its records otherwise" in shown
    run("rebuild", "--stage", "landing", *window, "--repair")
    assert run("rebuild", "--stage", "landing", *window).endswith("record for record.\n")
    for hour in ("2026-01-12T11:00", "2026-01-14T00:00"):
        world.post(at(hour))
    run("rebuild", "--stage", "ledger", *window, "--repair")
    run("rebuild", "--stage", "rollups", *window)
    world.post(at("2026-02-10T10:00"))
    assert world.check() == set()
    assert found(world) == {}


def run(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == exit_code, result.output
    return result.output


def test_the_page_lists_every_fault() -> None:
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert listed == table(), "\n".join(table())


def table() -> list[str]:
    """The page's table: each fault, what finds it first and what besides, when, and what mends it."""
    lines = ["| stage | fault | found by | first | what to do |", "|---|---|---|---|---|"]
    for each in FAULTS:
        finders = ", ".join(f"`{name}`" if "_" in name else name for name in each.found_by)
        lines.append(
            f"| {each.stage} | {each.what} | {finders} | {FINDERS[each.found_by[0]]} | {each.mend} |"
        )
    return [line for line in lines if line.startswith("| ")]


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda each: each.name)
def test_a_window_reaches_every_side_of_a_relation(world: FileWorld, relation: Relation) -> None:
    """Nothing is read whole: each scan knows the window, or looks up by the key of what lies in it."""
    if relation.window in ("day", "usage_month", "billing_date"):
        return  # bounded by their tenant, or of documents alone
    asked = differing_rows(
        world.connection, relation, at("2026-01-12T10:00"), at("2026-01-12T11:00")
    )
    ((plan,),) = world.rows(f"explain (format json) {asked.query}")
    for scan in nodes(plan[0]["Plan"]):
        table = str(scan.get("Relation Name", ""))
        if table.startswith(("usage_", "duplicates", "conflicts", "rated_lines", "tier_slices")):
            known = " ".join(str(scan.get(name, "")) for name in CONDITIONS)
            assert relation.window in known or "fingerprint" in known, scan


CONDITIONS = ("Filter", "Index Cond", "Recheck Cond")


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        yield from nodes(each)
