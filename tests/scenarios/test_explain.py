"""Every number answers for itself: lines down to file and line, requests up to invoices, differences to causes.

One company lives through two months in which all happens that can happen to a request; what is expected of each
was reckoned by hand from the story. Whatever is damaged behind the pipeline's back is named, step by step.
"""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from metering_pipeline.cli import cli, main
from metering_pipeline.cli.group import console
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.partitions import Window
from metering_pipeline.reconciliation.difference_causes import Span, find_causes
from metering_pipeline.reconciliation.event_fate import Fate, find_event
from metering_pipeline.reconciliation.evidence import EvidenceError, write_evidence
from metering_pipeline.reconciliation.line_proof import (
    UnknownLineError,
    prove_every_event,
    prove_line,
)
from metering_pipeline.reconciliation.usage_history import history
from metering_pipeline.settings import END_OF_TIME, PROJECT_ROOT
from metering_pipeline.transform.dbt import run_dbt
from tests.scenarios.company_life import BEGINNING, CompanyLife
from tests.scenarios.test_stories import _clone
from tests.scenarios.verify_evidence import problems
from tests.soak.posting import RecordedModels

PAGE = (PROJECT_ROOT / "docs" / "explain.md").read_text()
VERIFIER = Path(__file__).parent / "verify_evidence.py"
FIRST, SECOND = "US-000001", "US-000002"


HARD_TO_WRITE = {
    "model": "large", "Zeta": 1, "alpha": 1.50, "ä": -0.0, "note": 'Grüße\n\t\x7f "x" \\ /',
    "deep": [{"b": None, "a": [True, 1e3]}, {}, []], "long": 12345678901234567890.125,
}  # fmt: skip
"""Properties whose canonical text needs care."""


def event(request: str, at: str, units: object = 1, **more: Any) -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "event_type": "api.request",
        "occurred_at": at,
        "correlation_id": request,
        "quantity": str(units),
        "properties": {"model": "small"},
        **more,
    }


def drop(life: CompanyLife, hour: str, name: str, *events: dict[str, Any] | str) -> None:
    """A file in the folder of a landing hour, found at the next moment; the same name again is a new version."""
    folder = life._root / f"landed_hour={hour}"
    folder.mkdir(exist_ok=True)
    lines = [each if isinstance(each, str) else json.dumps(each) for each in events]
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    life._not_landed.add(datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC))


def sell(life: CompanyLife) -> None:
    (units,) = life.sells.catalog["metrics"]
    units["dimensions"] = '["model"]'
    life.sells.add("metrics", metric="seats", event_type="seats.changed", aggregation="sum", recurring="true",
                   dimensions="[]", unit="seats", filter="{}", description="seats")  # fmt: skip
    life.sells.add_plan("basic")
    for model, price in (("small", "0.0018"), ("large", "0.02")):
        life.sells.add_charge(
            f"basic-{model}", "basic", [(100, price, "0.5"), (None, price, 0)], "units",
            route=f'{{"model": "{model}"}}',
        )  # fmt: skip
    life.sells.add_charge("basic-seats", "basic", [(None, "4", 0)], "seats", model="per_unit")
    life.sells.add_fee("basic-fee", "basic", "10.00", timing="arrears")
    life.sells.subscribe("acme", "basic")
    life.sells.subscribe("birch", "basic", start="2026-01-15T00:00:00Z")


def live(life: CompanyLife) -> None:
    """January is issued as US-000001 (acme) and US-000002 (birch), February after it; March has begun."""
    sell(life)
    drop(life, "2026-01-12T10", "a.ndjson",
         event("plain", "2026-01-12T10:05:00.25Z", "41.73"),
         event("twice", "2026-01-12T10:06:00Z", 2),
         event("differs", "2026-01-12T10:07:00Z", 3),
         event("void-early", "2026-01-12T10:08:00Z", 5),
         event("large", "2026-01-12T10:09:00Z", 7, properties=HARD_TO_WRITE),
         '{"tenant_id": "acme", "correlation_id": "broken", "quantity": "many"',
         event("unmetered", "2026-01-12T10:10:00Z", event_type="other.thing"),
         event("foreign", "2026-01-12T10:11:00Z", tenant_id="birch"),
         event("stranger", "2026-01-12T10:12:00Z", tenant_id="nobody"))  # fmt: skip
    drop(life, "2026-01-12T11", "b.ndjson",
         event("twice", "2026-01-12T10:06:00Z", 2),
         event("differs", "2026-01-12T10:07:00Z", 30),
         event("void-early", "2026-01-12T10:08:00Z", void=True),
         event("only-void", "2026-01-12T10:13:00Z", void=True),
         event("stamped-anew", "2026-01-12T10:30:00Z", 13),
         event("stamped-anew", "2026-01-12T10:30:07Z", 13),
         event("owner", "2026-01-12T10:31:00Z", 17))  # fmt: skip
    drop(life, "2026-01-14T00", "c.ndjson", event("void-late", "2026-01-13T23:59:59.999999Z", 19))
    drop(life, "2026-01-20T08", "d.ndjson",
         event("withdrawn", "2026-01-20T08:01:00Z", 23), event("stays", "2026-01-20T08:02:00Z", 29))  # fmt: skip
    drop(life, "2026-01-20T09", "seats.ndjson",
         event("seats", "2026-01-20T09:00:00Z", 5, event_type="seats.changed"))  # fmt: skip
    drop(
        life,
        "2026-01-20T10",
        "g.ndjson",
        event("secret-of-birch", "2026-01-20T10:11:00Z", 11, tenant_id="birch"),
    )
    issued = life.issue("2026-02-04")
    assert [each.number for each in issued] == [FIRST, SECOND]
    life.live_until("2026-02-10T12:30Z")
    drop(life, "2026-02-10T12", "e.ndjson",
         event("late", "2026-01-21T07:00:00Z", 31),
         event("void-late", "2026-01-13T23:59:59.999999Z", void=True),
         event("february", "2026-02-10T12:01:00Z", 37),
         event("fewer-seats", "2026-02-10T12:02:00Z", -2, event_type="seats.changed"))  # fmt: skip
    drop(life, "2026-01-12T09", "found.ndjson", event("owner", "2026-01-12T10:31:00Z", 170))
    drop(life, "2026-01-20T08", "d.ndjson", event("stays", "2026-01-20T08:02:00Z", 29))
    life.issue("2026-03-04")
    life.live_until("2026-03-10T09:30Z")
    drop(life, "2026-03-10T09", "f.ndjson",
         event("later", "2026-01-22T07:00:00Z", 43), event("march", "2026-03-10T09:01:00Z", 47),
         event("again", "2026-03-10T09:02:00Z"), event("again", "2026-03-10T09:02:07Z"))  # fmt: skip
    life.live_until("2026-03-10T10:30Z")


@dataclass
class Told:
    """The company after its story."""

    life: CompanyLife
    february: str
    draft: str

    @property
    def connection(self) -> psycopg.Connection:
        return self.life.connection

    @contextmanager
    def tampered(self, *statements: str) -> Iterator[psycopg.Connection]:
        """The database with changes made behind the pipeline's back, past the triggers; undone afterwards."""
        with self.connection.transaction(force_rollback=True):
            self.connection.execute("set local session_replication_role = replica")
            for statement in statements:
                assert self.connection.execute(statement.encode()).rowcount == 1, statement
            yield self.connection


@pytest.fixture(scope="module")
def told(
    server: EmbeddedServer, catalog_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    models = RecordedModels(_clone(server, catalog_template))
    models.close()
    database = _clone(server, catalog_template)
    with closing(
        CompanyLife(database, tmp_path_factory.mktemp("told") / "landing", models)
    ) as life:
        live(life)
        kinds = [f"config.materialized:{kind}" for kind in ("view", "table_function")]
        run_dbt(database, "run", [*kinds, "suspects"], Window(BEGINNING, END_OF_TIME))
        life.check()
        names = life.sells.rows(
            "select distinct document, is_issued from reconciliation.document_lines"
            " where tenant_id = 'acme' and slice_start < '2026-02-01Z' and document <> %s", FIRST,
        )  # fmt: skip
        numbers = {row["is_issued"]: row["document"] for row in names}
        yield Told(life, numbers[True], numbers[False])


# By hand: acme's small units of January as US-000001 knew them (10:05 10:06 10:07 12:10:30 twice, 10:31, the
# 13th, the 20th), what changed until February was issued, and what came in March.
KNOWN_FIRST = Decimal("41.73") + 2 + 3 + 13 + 13 + 17 + 19 + 23 + 29
CHANGED = 31 - 19 - 23 + (170 - 17)
LATER = 43


def small_line(told: Told, document: str, kind: str = "regular") -> int:
    row = told.connection.execute(
        "select line_number from reconciliation.document_lines"
        " where document = %s and charge_id = 'basic-small' and kind = %s",
        (document, kind),
    ).fetchone()
    assert row is not None
    return int(row[0])


# Lines


def test_a_line_leads_to_file_and_line(told: Told) -> None:
    number = small_line(told, FIRST)
    proof = prove_line(told.connection, FIRST, number, datetime(2026, 1, 12, 10, tzinfo=UTC), 10)
    assert proof.holds, proof.steps
    assert proof.line.quantity == KNOWN_FIRST
    assert [(each.correlation_id, each.value, each.file_key, each.line_number) for each in proof.events] == [
        ("plain", Decimal("41.73"), "landed_hour=2026-01-12T10/a.ndjson", 1),
        ("twice", 2, "landed_hour=2026-01-12T10/a.ndjson", 2),
        ("differs", 3, "landed_hour=2026-01-12T10/a.ndjson", 3),
        ("stamped-anew", 13, "landed_hour=2026-01-12T11/b.ndjson", 5),
        ("stamped-anew", 13, "landed_hour=2026-01-12T11/b.ndjson", 6),
        ("owner", 170, "landed_hour=2026-01-12T09/found.ndjson", 1),
    ]  # fmt: skip
    assert {
        each.day: [change.change for change in each.changes] for each in proof.changed_days
    } == {
        date(2026, 1, 12): ["owner changed", "owner changed"],
        date(2026, 1, 13): ["voided"],
        date(2026, 1, 20): ["withdrawn"],
        date(2026, 1, 21): ["added"],
        date(2026, 1, 22): ["added"],
    }
    assert prove_every_event(told.connection, proof).holds


def test_every_line_holds(told: Told) -> None:
    lines = told.life.sells.rows(
        "select document, line_number from reconciliation.document_lines order by 1, 2"
    )
    assert len(lines) > 10
    for line in lines:
        proof = prove_line(told.connection, line["document"], line["line_number"])
        assert proof.holds, (line, [step for step in proof.steps if not step.holds])
        if proof.line.counts_usage:
            assert prove_every_event(told.connection, proof).holds


OF_FIRST = "invoice_number = 'US-000001'"
OF_PLAIN = "correlation_id = 'plain'"
DAMAGES = {
    "content": f"update invoices.issued_invoices set content = replace(content, '41', '42') where {OF_FIRST}",
    "chain": f"update invoices.issued_invoices set previous_sha256 = repeat('1', 64) where {OF_FIRST}",
    "line": f"update invoices.issued_invoice_lines set quantity = quantity + 1 where {OF_FIRST} and charge_id = 'basic-small'",
    "document": f"update invoices.issued_invoices set total = total + 1, amount_due = amount_due + 1 where {OF_FIRST}",
    "tiers": f"update invoices.issued_tier_slices set amount = amount + 1 where {OF_FIRST} and line_number = LINE and tier = 1",
    "amount": f"update invoices.issued_invoice_lines set amount = amount + 1 where {OF_FIRST} and charge_id = 'basic-small'",
    "days": f"update invoices.issued_usage set event_digest = event_digest + 1 where {OF_FIRST} and line_number = LINE and day = '2026-01-13'",
    "quantity": f"update invoices.issued_usage set value_sum = value_sum + 1 where {OF_FIRST} and line_number = LINE and day = '2026-01-13'",
    "hours": "update rollups.usage_hourly set value_sum = value_sum + 1 where tenant_id = 'acme' and hour = '2026-01-20 08:00Z'",
    "events": f"delete from ledger.usage_events where {OF_PLAIN}",
    "hashes": f'update ledger.usage_events set properties = \'{{"model": "small", "x": 1}}\' where {OF_PLAIN}',
}


@pytest.mark.parametrize("step", DAMAGES)
def test_damage_is_named_by_its_step(told: Told, step: str) -> None:
    number = small_line(told, FIRST)
    with told.tampered(DAMAGES[step].replace("LINE", str(number))) as connection:
        hour = datetime(2026, 1, 12, 10, tzinfo=UTC)
        proof = prove_line(connection, FIRST, number, hour)
        assert step in [each.name for each in proof.steps if not each.holds]
        if step in ("events", "hashes"):
            assert not prove_every_event(connection, proof).holds


def test_what_the_rollups_owe_is_read_from_the_ledger(told: Told) -> None:
    """A late arrival waits in the queue; explained is what is known now."""
    owed = "insert into ledger.pending values ('2026-01-20 08:00Z', 'acme', 'api.request', '2026-01-20 08:00Z')"
    with told.tampered(DAMAGES["hours"], owed) as connection:
        assert prove_line(connection, FIRST, small_line(told, FIRST)).holds
        assert history(connection, FIRST, small_line(told, FIRST), FIRST).is_explained
    owed = owed.replace("01-20 08", "03-10 09")
    with told.tampered(owed):
        assert "still owe its hour" in fates(told, "march")[0].verdict[1]


# Requests


FATES = {
    "plain": (True, "Billed by FIRST."),
    "twice": (True, "Billed by FIRST."),
    "differs": (True, "Billed by FIRST."),
    "owner": (True, "Billed by FIRST."),
    "void-early": (False, "Not billed: it was voided by its producer."),
    "void-late": (False, "Was billed by FIRST, then it was voided by its producer: taken back by ADJUSTMENT."),
    "withdrawn": (False, "Was billed by FIRST, then it was withdrawn, with the version of its file that held it: taken back by ADJUSTMENT."),
    "late": (True, "Billed by ADJUSTMENT."),
    "later": (False, "Not billed yet: it landed after that period was issued, and is in the adjustment of DRAFT."),
    "february": (True, "Billed by REGULAR."),
    "march": (False, "Not billed yet: it is in the draft MARCH."),
    "unmetered": (False, "Not billed: it counts as usage, but no metric reads events of this type."),
    "only-void": (False, "Not billed: only a void of it landed, never the event itself."),
}  # fmt: skip


def verdict(told: Told, says: str) -> str:
    """The names that stand for lines replaced by the lines."""
    lines = {
        "FIRST": (FIRST, "regular"), "ADJUSTMENT": (told.february, "adjustment"), "REGULAR": (told.february, "regular"),
        "DRAFT": (told.draft, "adjustment"), "MARCH": (told.draft, "regular"),
    }  # fmt: skip
    for name, line in lines.items():
        if name in says:
            says = says.replace(name, f"{line[0]} line {small_line(told, *line)}")
    return says


def fates(told: Told, request: str, tenant: str = "acme") -> list[Fate]:
    days = {
        "february": (date(2026, 2, 10),) * 2,
        "march": (date(2026, 3, 10),) * 2,
        "again": (date(2026, 3, 10),) * 2,
    }
    first, last = days.get(request, (date(2026, 1, 12), date(2026, 1, 22)))
    return find_event(told.connection, tenant, request, first_day=first, last_day=last).fates


@pytest.mark.parametrize("request_id", FATES)
def test_was_this_request_billed(told: Told, request_id: str) -> None:
    (fate,) = fates(told, request_id)
    billed, says = FATES[request_id]
    assert fate.verdict == (billed, verdict(told, says))


def test_copies_and_remarks(told: Told) -> None:
    states = {
        request: sorted(each.state for fate in fates(told, request) for each in fate.copies)
        for request in ("twice", "differs", "void-late", "withdrawn", "stays", "owner")
    }
    assert states == {
        "twice": ["counted", "duplicate"],
        "differs": ["conflict", "counted"],
        "void-late": ["void", "voided"],
        "withdrawn": ["superseded"],
        "stays": ["counted", "superseded"],
        "owner": ["conflict", "counted"],
    }
    assert "counted once" in " ".join(fates(told, "twice")[0].remarks)
    assert "another payload" in " ".join(fates(told, "differs")[0].remarks)
    first, second = fates(told, "again")
    assert list(first.remarks) == []
    assert "stamped anew" in " ".join(second.remarks)


def test_usage_that_no_charge_covers(told: Told) -> None:
    (fate,) = fates(told, "foreign", "birch")
    assert fate.verdict == (
        False,
        "Not billed: it counts as usage, but the tenant had no subscription then.",
    )
    (fate,) = fates(told, "stranger", "nobody")
    assert fate.verdict == (
        False,
        "Not billed: it counts as usage, but the tenant is not in the catalog.",
    )


def test_rejected_and_never_landed(told: Told) -> None:
    answer = find_event(told.connection, "acme", "broken", first_day=date(2026, 1, 1), last_day=date(2026, 1, 31))  # fmt: skip
    assert answer.fates == []
    ((landed_in, line, reason),) = [(each.file_key, each.line_number, each.reason) for each in answer.rejected]  # fmt: skip
    assert (landed_in, line, reason) == ("landed_hour=2026-01-12T10/a.ndjson", 6, "invalid_json")
    nothing = find_event(told.connection, "acme", "never", occurred_at=datetime(2026, 1, 12, tzinfo=UTC))  # fmt: skip
    assert (nothing.fates, nothing.rejected) == ([], [])
    after = find_event(told.connection, "acme", "never", first_day=date(2030, 1, 1))
    assert (after.start, after.end) == (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC))  # fmt: skip


def test_an_event_is_found_by_its_time(told: Told) -> None:
    at = datetime(2026, 1, 12, 10, 5, 0, 250_000, tzinfo=UTC)
    exact = find_event(told.connection, "acme", "plain", "api.request", at)
    near = find_event(told.connection, "acme", "plain", None, at + timedelta(seconds=20))
    assert [each.fates[0].first.fingerprint for each in (exact, near)] == [fates(told, "plain")[0].first.fingerprint] * 2  # fmt: skip
    assert find_event(told.connection, "acme", "plain", "other.thing", at).fates == []


def test_what_has_landed_and_is_not_posted(told: Told) -> None:
    statement = "update landing.hours set posted_at = null where landed_hour = '2026-01-12 10:00Z'"
    gone = f"delete from ledger.usage_events where {OF_PLAIN}"
    with told.tampered(statement, gone):
        (fate,) = fates(told, "plain")
        assert fate.verdict[1].startswith("Not billed yet: it has landed")


# Why it changed


def changes(found: Any) -> dict[str, list[tuple[str, Decimal]]]:
    counted: dict[str, list[tuple[str, Decimal]]] = {}
    for each in found.changes:
        counted.setdefault(each.event.correlation_id, []).append((each.why, each.figures.total))
    return counted


def test_why_it_changed_since_it_was_issued(told: Told) -> None:
    found = history(told.connection, FIRST, small_line(told, FIRST), FIRST)
    assert changes(found) == {
        "owner": [("owner changed", Decimal(-17)), ("owner changed", Decimal(170))],
        "void-late": [("voided", Decimal(-19))],
        "withdrawn": [("withdrawn", Decimal(-23))],
        "late": [("added", Decimal(31))],
        "later": [("added", Decimal(43))],
    }
    assert found.is_explained
    assert found.difference.total == CHANGED + LATER
    assert {state: found.known(state).total for state in found.states} == {
        FIRST: KNOWN_FIRST,
        told.february: KNOWN_FIRST + CHANGED,
        "now": KNOWN_FIRST + CHANGED + LATER,
    }
    (void,) = [each.event for each in found.changes if each.why == "voided"]
    assert (void.file_key, void.line_number) == ("landed_hour=2026-02-10T12/e.ndjson", 2)


def test_why_it_changed_between_two_documents(told: Told) -> None:
    found = history(
        told.connection, told.february, small_line(told, told.february, "adjustment"), FIRST
    )
    assert (found.start, found.end) == (FIRST, told.february)
    assert sorted(changes(found)) == ["late", "owner", "void-late", "withdrawn"]
    assert (found.is_explained, found.difference.total) == (True, CHANGED)


@pytest.mark.parametrize(
    "hour", ["2026-01-12T11", "2026-01-20T08", "2026-02-10T12", "2026-03-11T00"]
)
def test_what_had_landed_by_an_hour(told: Told, hour: str) -> None:
    instant = datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    found = history(told.connection, FIRST, small_line(told, FIRST), instant)
    (row,) = told.life.sells.rows(
        """
        select coalesce(sum(event_count), 0) as count, coalesce(sum(value_sum), 0) as total
        from rollups.usage_as_landed_by('acme', 'units', '2026-01-01Z', '2026-02-01Z', %s)
        where dimensions = '{"model": "small"}'
        """,
        instant,
    )
    known = found.known(found.start)
    assert (known.count, known.total) == (row["count"], row["total"])
    assert found.is_explained


def test_a_change_behind_the_pipeline_is_not_explained(told: Told) -> None:
    with told.tampered(DAMAGES["hours"]) as connection:
        assert not history(connection, FIRST, small_line(told, FIRST), FIRST).is_explained


# Differences


CAUSES = {
    "a ledger row deleted": (
        [f"delete from ledger.usage_events where {OF_PLAIN}"],
        "2026-01-12T10",
        "missing landed, and nowhere in the ledger: api.request 2026-01-12T10:05:00.250000Z plain",
    ),
    "a ledger row that never landed": (
        [f"insert into ledger.usage_events select tenant_id, event_type, occurred_at, 'ghost', gen_random_uuid(), payload_hash, quantity, properties, landed_hour, file_id, 99, recorded_at from ledger.usage_events where {OF_PLAIN}"],
        "2026-01-12T10",
        "extra in the ledger (owned), and not so often landed:",
    ),
    "a quantity changed": (
        [f"update ledger.usage_events set quantity = 4173 where {OF_PLAIN}"],
        "2026-01-12T10",
        "modified posted (owned) with another quantity: api.request",
    ),
    "a landed row lost": (
        [f"delete from landing.usage_events where {OF_PLAIN}"],
        "2026-01-12T10",
        "missing the file has 8 accepted and 1 rejected records; there are 7 and 1 rows",
    ),
    "a landed row doubled": (
        [f"insert into landing.usage_events select * from landing.usage_events where {OF_PLAIN}"],
        "2026-01-12T10",
        "missing landed twice under the same file and line:",
    ),
    "a contribution changed": (
        ["update rollups.usage_contributions set value_sum = value_sum + 1 where tenant_id = 'acme' and landed_hour = '2026-01-20 08:00Z'"],
        "2026-01-20T08",
        "acme units 2026-01-20T08 model small 1 events 29 1 events 30 modified",
    ),
    "an hour changed": (
        [DAMAGES["hours"]],
        "2026-01-20",
        "hourly usage acme units 2026-01-20T08 model small 1 events 29 1 events 30 modified",
    ),
    "a day changed": (
        ["update rollups.usage_daily set value_sum = value_sum + 1 where tenant_id = 'acme' and metric = 'units' and day = '2026-01-20'"],
        "2026-01-20",
        "daily usage acme units the day model small 1 events 29 1 events 30 modified",
    ),
    "a rated day lost": (
        ["delete from rating.period_usage_daily where tenant_id = 'acme' and metric = 'units' and day = '2026-01-20'"],
        "2026-01",
        "acme units 2026-01-20 1 events 29 0 events 0 nothing missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_a_difference_leads_to_its_cause(told: Told, cause: str) -> None:
    statements, window, says = CAUSES[cause]
    span = Span.parse(window)
    assert find_causes(told.connection, span, None, None, 50).differences == []
    with told.tampered(*statements) as connection:
        found = find_causes(connection, span, None, None, 50).differences
    rows = [" ".join(" ".join(row).split()) for each in found for row in each.rows]
    assert any(says in row for row in rows), rows


# Evidence


@pytest.fixture(scope="module")
def evidence(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence") / FIRST
    written = write_evidence(told.connection, FIRST, folder)
    assert written.unproven == []
    return folder


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """The recipe in a process of its own that knows nothing of the project."""
    return subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(folder)],
        capture_output=True, text=True, cwd="/", check=False,
    )  # fmt: skip


def test_evidence_verifies_without_the_project(evidence: Path) -> None:
    checked = verify(evidence)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    events = pq.read_table(evidence / "events.parquet").to_pylist()
    assert sum(Decimal(each["value"]) for each in events if each["dimensions"] == '{"model": "small"}') == KNOWN_FIRST  # fmt: skip
    assert {each["correlation_id"] for each in events} >= {
        "void-late",
        "withdrawn",
        "owner",
        "large",
    }
    assert not {each["correlation_id"] for each in events} & {"late", "later", "void-early"}
    index = json.loads((evidence / "index.json").read_text())
    assert (evidence / "content.json").read_bytes()
    assert hashlib.sha256((evidence / "content.json").read_bytes()).hexdigest() == index["content_sha256"]  # fmt: skip


def test_evidence_is_of_its_tenant_alone(evidence: Path) -> None:
    texts = [path.read_text() for path in evidence.iterdir() if path.suffix != ".parquet"]
    texts += [str(pq.read_table(path).to_pylist()) for path in evidence.glob("*.parquet")]
    for each in ("birch", "secret", "nobody", "stranger", "foreign"):
        assert [text for text in texts if each in text] == [], each


def test_evidence_of_every_document_verifies(told: Told, tmp_path: Path) -> None:
    numbers = [each.number for each in told.life.invoices()]
    assert len(numbers) == 4
    for number in numbers:
        assert write_evidence(told.connection, number, tmp_path / number).unproven == []
        assert list(problems(tmp_path / number)) == []


Change = Callable[[dict[str, Any]], Any]
FORGERIES: dict[str, tuple[str, Change | None, str]] = {
    "an event's payload": ("events", lambda row: row.update(properties="{}"), "its payload hash is not"),
    "an event's correlation id": ("events", lambda row: row.update(correlation_id="x"), "its fingerprint is not"),
    "an event's value": ("events", lambda row: row.update(value="1000"), "hour ("),
    "an event's tenant": ("events", lambda row: row.update(tenant_id="birch"), "of another tenant"),
    "an event lost": ("events", None, "hour ("),
    "a bucket": ("buckets", lambda row: row.update(event_count=2), "day ("),
    "a day": ("days", lambda row: row.update(event_count=99), "its days are not those that were frozen"),
    "a tier": ("slices", lambda row: row.update(amount="99"), "its tiers do not add up to it"),
    "a line's quantity": ("lines", lambda row: row.update(quantity="2"), "the frozen text has another quantity"),
    "a line's amount": ("lines", lambda row: row.update(amount="1.00"), "do not add up to the document"),
    "the total": ("document", lambda row: row.update(total="1.00"), "the frozen text has another total"),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_evidence_is_found(evidence: Path, tmp_path: Path, forgery: str) -> None:
    """Even where the forger has made the hashes of the files anew."""
    table, change, says = FORGERIES[forgery]
    forged = tmp_path / "forged"
    forged.mkdir()
    for path in evidence.iterdir():
        (forged / path.name).write_bytes(path.read_bytes())
    path = forged / f"{table}.parquet"
    content = pq.read_table(path)
    rows = content.to_pylist()
    if change is None:
        del rows[0]
    else:
        change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, content.schema), path)
    assert f"{path.name} does not have its SHA-256" in set(problems(forged))
    hash_anew(forged, path.name)
    found = "\n".join(problems(forged))
    assert "SHA-256" not in found
    assert says in found


def hash_anew(folder: Path, name: str) -> None:
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    index = json.loads((folder / "index.json").read_text())
    index["files"][name]["sha256"] = digest
    (folder / "index.json").write_text(json.dumps(index))
    names = [*index["files"], "index.json"]
    sums = [f"{hashlib.sha256((folder / each).read_bytes()).hexdigest()}  {each}\n" for each in names]  # fmt: skip
    (folder / "SHA256SUMS").write_text("".join(sums))


def test_a_forged_text_is_not_the_document(evidence: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    forged.mkdir()
    for path in evidence.iterdir():
        (forged / path.name).write_bytes(path.read_bytes())
    text = (forged / "content.json").read_text()
    (forged / "content.json").write_text(text.replace('"reason":null', '"reason":"x"'))
    hash_anew(forged, "content.json")
    checked = verify(forged)
    assert checked.returncode == 1
    assert "content.json is not the document that was frozen" in checked.stdout


def test_evidence_says_what_it_cannot_prove(told: Told, tmp_path: Path) -> None:
    with told.tampered(f"delete from ledger.usage_events where {OF_PLAIN}") as connection:
        written = write_evidence(connection, FIRST, tmp_path / "gap")
    assert written.unproven == [f"line {small_line(told, FIRST)}, 2026-01-12"]
    assert "days not proven" in "".join(problems(tmp_path / "gap"))


def test_an_erased_payload_is_said_and_the_rest_proved(told: Told, tmp_path: Path) -> None:
    erasing = "select landing.erase_payloads('acme', '{large,withdrawn}', 'asked', 'dpo', now())"
    with told.tampered(erasing):
        written = write_evidence(told.connection, FIRST, tmp_path / FIRST)
        [(number,)] = told.connection.execute(
            "select line_number from reconciliation.document_lines where document = %s and charge_id = 'basic-large'",
            (FIRST,),
        ).fetchall()
        proof = prove_line(told.connection, FIRST, number)
        assert prove_every_event(told.connection, proof).holds
        answer = find_event(told.connection, "acme", "large")
    assert written.unproven == []
    assert verify(tmp_path / FIRST).stdout == ""
    events = pq.read_table(tmp_path / FIRST / "events.parquet").to_pylist()
    erased = {each["correlation_id"]: each["properties"] for each in events if each["erased_at"]}
    assert erased == {"large": '{"model":"large"}', "withdrawn": '{"model":"small"}'}
    assert proof.holds, proof.steps
    assert [each.erased_at is not None for each in proof.events] == [True]
    assert [(each.erased_by, each.why) for each in answer.erasures] == [("dpo", "asked")]


def test_evidence_is_written_as_a_whole_or_not_at_all(told: Told, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(EvidenceError, match="exists already"):
        write_evidence(told.connection, FIRST, tmp_path / "there")
    for number in ("US-1", told.draft):
        with pytest.raises(UnknownLineError):
            write_evidence(told.connection, number, tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="cannot be written"):
        write_evidence(told.connection, FIRST, tmp_path / "file" / "below")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "there"]


# The commands


@pytest.fixture
def run(told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("METERING_DATABASE_URL", told.life.database.url)
    monkeypatch.setenv("METERING_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(console, "width", 120)  # known since its module was imported
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("US-000099", "There is no document and no draft 'US-000099'."),
        ("US-1", "The nearest: US-000001,"),
        ("US-000001 99", "US-000001 has no line 99: its lines are 1 to 4."),
        ("US-000001 4 --hour 2026-01-31T13", "counts nothing of 2026-01-31T13"),
        ("US-000001 4 --since US-000002", "US-000002 bills nothing of the charge and period"),
        ("US-000001 4 --since US-9", "There is no document and no draft 'US-9'"),
        ("--tenant amce --event plain", "There is no tenant 'amce'"),
    ],
)
def test_what_is_unknown_is_named(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["metering", "explain", *arguments.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Give a document (and a line), or --tenant and --event, or --window."),
        ("US-000001 --event x", "Give a document (and a line), or --tenant and --event, or --window."),
        ("US-000001 zero", "'zero' is not a valid integer"),
        ("US-000001 0", "0 is not in the range"),
        ("US-000001 --all-events", "--all-events does not go with a document."),
        ("US-000001 1 --law L1", "--law does not go with a line."),
        ("--event x", "Whose request? Give --tenant too."),
        ("--tenant acme --event x --at 2026-01-12", "write an instant with its offset"),
        ("--tenant acme --event x --at noon", "write an instant with its offset"),
        ("--tenant acme --event x --from 2026-02-02 --to 2026-02-01", "--to is before --from."),
        ("--window yesterday", "write a landing hour as 2026-01-31T13"),
        ("US-000001 1 --since 2026-01-15", "write an hour in UTC as 2026-01-31T13"),
        ("US-000001 1 --since US-000001 --all-events", "--since answers another question"),
    ],
)  # fmt: skip
def test_wrong_questions_are_refused(run: Callable[..., Result], arguments: str, message: str) -> None:  # fmt: skip
    refused = run("explain", *arguments.split())
    assert refused.exit_code == 2
    assert message in " ".join(refused.output.split())


def test_a_broken_chain_is_an_exit_code(told: Told, run: Callable[..., Result]) -> None:
    number = str(small_line(told, FIRST))
    with told.connection.cursor() as cursor:
        cursor.execute(DAMAGES["hours"].encode())
    try:
        broken = run("explain", FIRST, number)
        red = run("explain", "--window", "2026-01-20")
    finally:
        with told.connection.cursor() as cursor:
            cursor.execute(DAMAGES["hours"].replace("+ 1", "- 1").encode())
    assert (broken.exit_code, red.exit_code) == (1, 1)
    assert "The chain is BROKEN at: hours." in " ".join(broken.output.split())
    assert "metering rebuild --stage rollups" in red.output
    assert run("explain", FIRST, number).exit_code == 0


def examples() -> list[tuple[str, str]]:
    """The page's commands with what it shows that they print."""
    return re.findall(r"```sh\n(.*?)\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def squeezed(text: str) -> list[str]:
    """The lines without rules, times and the width of columns."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
    return [line for line in lines if (line.strip("─ ") and not line.startswith("✓ ")) or (line.startswith("✓ ") and not line.endswith(" s"))]  # fmt: skip


@pytest.mark.parametrize("example", examples(), ids=lambda example: example[0])
def test_the_page_shows_what_is_printed(run: Callable[..., Result], example: tuple[str, str]) -> None:  # fmt: skip
    command, shown = example
    printed = run(*shlex.split(command, comments=True)[1:])
    assert printed.exit_code == 0, printed.output
    assert all(len(line) <= 120 for line in printed.output.splitlines())
    assert squeezed(printed.output) == squeezed(shown)


def test_every_command_of_the_page_is_an_example() -> None:
    commands = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    assert len(commands) == len(examples()) > 8
    assert {shlex.split(each)[1] for each in commands} == {"explain", "evidence"}


def test_the_pages_queries_run(told: Told) -> None:
    queries = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert len(queries) > 4
    for query in queries:
        assert told.connection.execute(query.encode()).fetchall(), query
