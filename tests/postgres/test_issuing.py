"""Issuing: numbers without gaps, a chain that anyone can verify, and a gate that holds who is concerned."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from metering_pipeline.invoices.issuing import (
    BillingDateError,
    DraftsNotCurrentError,
    IssueReport,
    IssuingStoppedError,
    UnknownHoldError,
    hold,
    issue,
    issue_within,
    preview,
    release,
    resume_issuing,
    stop_issuing,
)
from metering_pipeline.reconciliation.laws import evaluate_day_of_usage
from metering_pipeline.settings import PROJECT_ROOT
from tests.postgres.billing_world import FEBRUARY, JANUARY, World, after, at, use

TABLES = ("issued_invoices", "issued_invoice_lines", "issued_usage", "hold_releases")
ALL = [
    ("EU-000001", "cobalt", "40.77", "EUR"),
    ("US-000001", "delta", "10.00", "USD"),
    ("US-000002", "delta", "10.00", "USD"),
    ("US-000003", "acme", "19.82", "USD"),
    ("US-000004", "birch", "20.20", "USD"),
]


def issue_january(world: World) -> IssueReport:
    return issue(world.database, JANUARY, after(JANUARY))


def pass_january(world: World) -> IssueReport:
    """The same in the test's own transaction."""
    return issue_within(world.connection, JANUARY, after(JANUARY))


def issued(world: World) -> list[tuple[str, str, str, str]]:
    return [
        (number, tenant, str(total), currency)
        for number, tenant, total, currency in world.rows(
            "select invoice_number, tenant_id, total, currency from invoices.issued_invoices"
            " order by series, series_number"
        )
    ]


def reasons(report: IssueReport) -> set[tuple[str, str]]:
    return {(each.tenant_id, each.reason) for each in report.held}


def redraft(world: World) -> None:
    """Say that the drafts are current again, where a rebuild would give the same."""
    world.execute("update invoices.draft_state set stale = false")


def check_numbers_and_chain(world: World) -> None:
    """Verify every series from its content alone, with nothing of the pipeline's own."""
    for (series,) in world.rows("select series from invoices.invoice_series"):
        previous = "0" * 64
        documents = world.rows(
            "select series_number, content, content_sha256 from invoices.issued_invoices"
            " where series = %s order by series_number",
            series,
        )
        for number, (series_number, content, content_sha256) in enumerate(documents, start=1):
            document = json.loads(content)
            assert series_number == document["series_number"] == number
            assert document["invoice_number"] == f"{series}-{number:06d}"
            assert document["previous_sha256"] == previous
            lines = [Decimal(line["amount"]) for line in document["lines"]]
            assert sum(lines) == Decimal(document["total"])
            previous = hashlib.sha256(content.encode()).hexdigest()
            assert content_sha256 == previous
        head = world.row(
            "select last_number, last_sha256 from invoices.invoice_series where series = %s", series
        )
        assert head == (len(documents), previous)


def test_what_is_due_is_issued_numbered_and_chained(whole_world: World) -> None:
    report = issue_january(whole_world)
    assert report.held == []
    assert [(each.number, each.tenant_id) for each in report.issued] == [row[:2] for row in ALL]
    assert issued(whole_world) == ALL
    check_numbers_and_chain(whole_world)
    assert whole_world.check() == set()
    assert whole_world.row("select stale from invoices.draft_state") == (True,)
    pinned = whole_world.rows(
        """
        select lines.charge_id, usage.day, usage.event_count, usage.value_sum
        from invoices.issued_usage as usage
        inner join invoices.issued_invoice_lines as lines using (invoice_number, line_number)
        where lines.tenant_id = 'acme'
        order by 1, 2
        """
    )
    day = date(2026, 1, 12)
    assert pinned == [("basic-requests", day, 4, 4), ("basic-tokens", day, 4, 400)]
    (content,) = whole_world.row(
        "select content from invoices.issued_invoices where tenant_id = 'acme'"
    )
    canonical = json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"))
    assert content == canonical


def test_issuing_the_same_date_again_does_nothing(whole_world: World) -> None:
    issue_january(whole_world)
    before = issued(whole_world)
    again = issue(whole_world.database, JANUARY, after(JANUARY) + timedelta(days=1))
    assert (again.issued, again.held, again.drafts_current) == ([], [], False)
    whole_world.run("2026-01-12", "2026-01-15")
    again = issue_january(whole_world)
    assert (again.issued, again.held, again.drafts_current) == ([], [], True)
    assert issued(whole_world) == before


def test_a_preview_keeps_nothing(whole_world: World) -> None:
    tables = [f"invoices.{table}" for table in TABLES] + [
        "invoices.held_invoices", "invoices.invoice_series", "invoices.draft_invoices",
        "invoices.draft_state", "reconciliation.law_results",
    ]  # fmt: skip
    count = " union all ".join(f"select '{each}', count(*) from {each}" for each in tables)
    before = whole_world.rows(count)
    stop_issuing(whole_world.database, "ana", "audit", at("2026-02-05"))
    report = preview(whole_world.database, JANUARY, after(JANUARY))
    assert [each.number for each in report.issued] == [row[0] for row in ALL]
    assert whole_world.rows(count) == before


def test_the_switch_stops_all_issuing(whole_world: World) -> None:
    stop_issuing(whole_world.database, "ana", "prices under review", at("2026-02-05"))
    with pytest.raises(IssuingStoppedError, match=r"by ana at .*: prices under review"):
        issue_january(whole_world)
    with pytest.raises(ValueError, match="why must not be empty"):
        resume_issuing(whole_world.database, "ana", " ", at("2026-02-05"))
    resume_issuing(whole_world.database, "ana", "reviewed", at("2026-02-05"))
    assert len(issue_january(whole_world).issued) == 5


def test_a_date_that_has_not_ended_says_when_it_will(whole_world: World) -> None:
    with pytest.raises(BillingDateError, match="ends at 2026-02-05T00:00Z"):
        issue(whole_world.database, JANUARY, at("2026-02-04T23:59:59"))


def test_a_date_before_the_last_one_is_refused(world: World) -> None:
    pass_january(world)
    redraft(world)
    with pytest.raises(BillingDateError, match="issued for 2026-02-04; 2026-02-03 precedes it"):
        issue_within(world.connection, JANUARY - timedelta(days=1), after(JANUARY))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("update invoices.draft_state set stale = true", "has changed since"),
        ("insert into rating.touched values ('acme', 'requests', '2026-01-12')", "not rated yet"),
        ("update invoices.draft_state set catalog_version = 0", "version 0 of the catalog"),
    ],
)
def test_drafts_that_are_not_current_are_refused(world: World, change: str, problem: str) -> None:
    world.execute(change)
    with pytest.raises(DraftsNotCurrentError, match=rf"{problem}.*metering run"):
        pass_january(world)
    assert issued(world) == []


@pytest.mark.parametrize(
    ("name", "tampering", "law"),
    [
        ("ledger row lost", "delete from ledger.usage_events where correlation_id = 'birch-3'", "L2"),
        (
            "ledger row doubled",
            """
            insert into ledger.usage_events
            select tenant_id, event_type, occurred_at, correlation_id, md5('x')::uuid, payload_hash,
                quantity, properties, landed_hour, file_id, line_number, recorded_at
            from ledger.usage_events where correlation_id = 'birch-3'
            """,
            "L2",
        ),
        ("landing row lost", "delete from landing.usage_events where correlation_id = 'birch-3'", "L1"),
        (
            "rollup edited",
            "update rollups.usage_hourly set value_sum = value_sum + 1 where tenant_id = 'birch'"
            " and metric = 'tokens' and hour = '2026-01-12 11:00Z'",
            "L3",
        ),
        (
            "slice edited",
            "update rating.tier_slices set amount = 0 where subscription_id = 'sub-birch'"
            " and slice_start = '2026-01-01Z' and charge_id = 'basic-tokens'",
            "L4",
        ),
        (
            "draft edited",
            "update invoices.draft_invoice_lines set amount = amount + 1, rated_amount = rated_amount + 1"
            " where tenant_id = 'birch' and slice_start = '2026-01-01Z' and charge_id = 'basic-tokens'",
            "independently 13.57",
        ),
    ],
)  # fmt: skip
def test_a_failed_law_holds_only_the_tenant_concerned(
    world: World, name: str, tampering: str, law: str
) -> None:
    world.tamper(tampering)
    report = pass_january(world)
    assert reasons(report) == {("birch", "law_failed")}, name
    assert law in report.held[0].detail
    assert issued(world) == ALL[:-1]
    check_numbers_and_chain(world)
    assert world.rows("select tenant_id, reason from invoices.held_invoices") == [
        ("birch", "law_failed")
    ]


def test_a_day_of_usage_found_red_holds_its_tenant_until_it_is_well(world: World) -> None:
    """Only where the day lies within the usage billed; the gate looks at it again by itself."""
    change = "update rollups.usage_daily set payload_digest = payload_digest + %s where tenant_id = %s and day = %s"
    world.tamper(change + " and metric = 'tokens'", 1, "birch", "2026-01-13")
    world.execute(
        "insert into rollups.usage_daily select 'acme', metric, '1999-05-05', dimensions, 1, 1, null, 1, 1, 1,"
        " latest_at, latest_fingerprint, 1, 1 from rollups.usage_daily where tenant_id = 'birch' limit 1"
    )
    for day in ("2026-01-13", "1999-05-05"):
        evaluate_day_of_usage(world.connection, at(day), after(JANUARY))
    report = pass_january(world)
    assert reasons(report) == {("birch", "law_failed")}
    assert {each.detail for each in report.held} == {"L3 in 2026-01-13"}

    world.tamper(change + " and metric = 'tokens'", -1, "birch", "2026-01-13")
    redraft(world)
    report = pass_january(world)
    assert (report.held, {each.tenant_id for each in report.issued}) == ([], {"birch"})


def test_a_file_whose_loss_nothing_explains_holds_all_with_rows_in_its_hour(world: World) -> None:
    world.tamper("delete from landing.rejected_events")
    report = pass_january(world)
    held = {("acme", "law_failed"), ("birch", "law_failed"), ("cobalt", "law_failed")}
    assert reasons(report) == held
    assert {each.tenant_id for each in report.issued} == {"delta"}
    assert {each.detail for each in report.held} == {"L1 in 2026-01-12T11"}


@pytest.mark.parametrize(
    ("cause", "reason", "tenants", "detail"),
    [
        (
            "update landing.hours set sealed = false where landed_hour = '2026-02-03 23:00Z'",
            "hour_not_sealed", {"acme", "birch", "cobalt"}, "the first 2026-02-03T23",
        ),
        (
            "delete from reconciliation.law_results where law = 'L2' and window_start = '2026-01-12 11:00Z'",
            "never_evaluated", {"acme", "birch", "cobalt"}, "the first 2026-01-12T11",
        ),
        (
            "insert into ledger.pending values"
            " ('2026-02-03 05:00Z', 'acme', 'api.request', '2026-01-12 05:00Z')",
            "pending_usage", {"acme"}, "1 keys of usage wait",
        ),
        (
            "insert into rollups.touched_days values ('birch', 'requests', '2026-01-31')",
            "pending_usage", {"birch"}, "the earliest of 2026-01-31T00",
        ),
        (
            "with noted as (insert into rollups.unreadable_values values ('2025-12-01Z', 'cobalt', 'requests',"
            " '2026-01-12 05:00Z', 'api.request', 'value_missing', 2, 1, 1))"
            " insert into rating.unrated_usage values ('cobalt', 'requests', '{}', '2026-01-12 05:00Z',"
            " '2026-01-12 06:00Z', 'unreadable_value', true, 2, 0, 0, 0)",
            "unrated_usage", {"cobalt"}, "2 events of requests: unreadable_value",
        ),
    ],
)  # fmt: skip
def test_each_reason_holds_whom_it_concerns_until_it_is_well(
    world: World, cause: str, reason: str, tenants: set[str], detail: str
) -> None:
    with world.past_triggers():
        assert world.execute(cause) == 1
    report = pass_january(world)
    assert reasons(report) == {(tenant, reason) for tenant in tenants}
    assert all(detail in each.detail for each in report.held)
    assert {each.tenant_id for each in report.issued} == {
        "acme",
        "birch",
        "cobalt",
        "delta",
    } - tenants

    world.execute("update landing.hours set sealed = true")
    for table in (
        "ledger.pending", "rollups.touched_days", "rating.unrated_usage", "rollups.unreadable_values",
    ):  # fmt: skip
        world.execute(f"delete from {table}")
    redraft(world)
    report = pass_january(world)
    assert (report.held, {each.tenant_id for each in report.issued}) == ([], tenants)
    assert world.rows("select * from invoices.held_invoices") == []
    check_numbers_and_chain(world)


def test_debts_of_other_tenants_and_times_hold_nobody(world: World) -> None:
    world.execute(
        """
        insert into ledger.pending values
            ('2026-02-03 05:00Z', 'stranger', 'api.request', '2026-01-12 05:00Z'),
            ('2026-02-03 05:00Z', 'acme', 'api.request', '2026-02-03 05:00Z')
        """
    )
    assert pass_january(world).held == []


def test_a_release_lets_go_in_spite_of_the_reason_and_is_kept(whole_world: World) -> None:
    whole_world.execute(
        "insert into rollups.touched_days values ('birch', 'requests', '2026-01-31')"
    )
    (held,) = issue_january(whole_world).held
    with pytest.raises(UnknownHoldError, match="not held for 'law_failed'"):
        release(
            whole_world.database,
            held.draft_id,
            "law_failed",
            by="ana",
            why="known",
            now=at("2026-02-05"),
        )
    now = at("2026-02-05T09:00")
    assert release(whole_world.database, held.draft_id, by="ana", why="known", now=now) == [
        "pending_usage"
    ]
    redraft(whole_world)
    assert [each.tenant_id for each in issue_january(whole_world).issued] == ["birch"]
    assert whole_world.rows("select * from invoices.held_invoices") == []
    kept = whole_world.row(
        "select draft_id, reason, total, released_by, release_reason, released_at"
        " from invoices.hold_releases"
    )
    assert kept == (held.draft_id, "pending_usage", Decimal("20.20"), "ana", "known", now)


def test_a_release_holds_good_for_what_it_was_given_for(whole_world: World) -> None:
    whole_world.execute(
        "insert into rollups.touched_days values ('birch', 'requests', '2026-01-31')"
    )
    (held,) = issue_january(whole_world).held
    release(whole_world.database, held.draft_id, by="ana", why="known", now=at("2026-02-05"))
    whole_world.execute(
        "insert into rollups.touched_days values ('birch', 'requests', '2026-01-12')"
    )
    redraft(whole_world)
    report = issue_january(whole_world)
    assert (report.issued, reasons(report)) == ([], {("birch", "pending_usage")})
    assert whole_world.row("select released_by from invoices.held_invoices") == (None,)


def test_a_release_holds_good_for_the_total_it_was_given_for(world: World) -> None:
    world.execute("insert into rollups.touched_days values ('birch', 'requests', '2026-01-31')")
    (held,) = pass_january(world).held
    world.execute(
        "update invoices.held_invoices set released_by = 'ana', release_reason = 'known',"
        " released_at = now()"
    )
    world.execute(
        "update invoices.draft_invoices set total = 600000.61 where draft_id = %s", held.draft_id
    )
    redraft(world)
    report = pass_january(world)
    assert report.issued == []
    assert ("birch", "pending_usage") in reasons(report)
    assert {each.total for each in report.held} == {Decimal("600000.61")}


def test_a_hold_by_hand_follows_the_draft_until_it_is_released(whole_world: World) -> None:
    """Carried to another billing instant the draft has another name; between, there may be none."""
    hold(
        whole_world.database,
        "sub-acme/USD/2026-02-04T00:00Z",
        by="ana",
        why="dispute",
        now=at("2026-02-04"),
    )
    moved = "sub-acme/USD/2026-02-03T12:00Z"
    tables = ("draft_invoices", "draft_invoice_lines")
    for table in tables:
        whole_world.execute(f"create table kept_{table} as table invoices.{table}")
        whole_world.execute(f"delete from invoices.{table} where tenant_id = 'acme'")
    assert len(issue_january(whole_world).issued) == 4
    for table in tables:
        whole_world.execute(
            f"insert into invoices.{table} select * from kept_{table} where tenant_id = 'acme'"
        )
        whole_world.execute(
            f"update invoices.{table} set draft_id = %s, bill_at = '2026-02-03 12:00Z'"
            " where draft_id = 'sub-acme/USD/2026-02-04T00:00Z'",
            moved,
        )
    for _ in range(2):
        redraft(whole_world)
        report = issue_january(whole_world)
        assert [(each.draft_id, each.reason) for each in report.held] == [(moved, "held_by_hand")]
        assert report.issued == []
    assert whole_world.rows("select draft_id, detail from invoices.held_invoices") == [
        (moved, "ana: dispute")
    ]
    hold(whole_world.database, moved, by="ana", why="still open", now=at("2026-02-05"))
    later = "sub-acme/USD/2026-03-04T00:00Z"  # it is of the subscription: any draft's name will do
    released = release(whole_world.database, later, by="ben", why="settled", now=at("2026-02-06"))
    assert released == ["held_by_hand"]
    redraft(whole_world)
    assert [each.tenant_id for each in issue_january(whole_world).issued] == ["acme"]
    assert whole_world.rows("select * from invoices.held_invoices") == []


def test_a_draft_held_by_hand_stays_until_it_is_released(whole_world: World) -> None:
    draft_id = "sub-acme/USD/2026-02-04T00:00Z"
    hold(whole_world.database, draft_id, by="ana", why="dispute", now=at("2026-02-04"))
    for _ in range(2):
        report = issue_january(whole_world)
        assert reasons(report) == {("acme", "held_by_hand")}
        redraft(whole_world)
    assert report.held[0].detail == "ana: dispute"
    release(whole_world.database, draft_id, by="ben", why="settled", now=at("2026-02-06"))
    assert [each.tenant_id for each in issue_january(whole_world).issued] == ["acme"]
    with pytest.raises(UnknownHoldError, match="no draft"):
        hold(whole_world.database, "sub-nobody/USD", by="ana", why="dispute", now=at("2026-02-06"))


CHANGES = [
    "update invoices.issued_invoices set total = 0",
    "update invoices.issued_invoice_lines set amount = 0",
    "update invoices.issued_usage set event_count = 0",
    "update invoices.hold_releases set released_by = 'nobody'",
    *(f"delete from invoices.{table}" for table in TABLES),
    *(f"truncate invoices.{table} cascade" for table in TABLES),
]


def test_append_only_tables_refuse_every_change(world: World) -> None:
    assert len(pass_january(world).issued) == 5
    world.execute(
        """
        insert into invoices.hold_releases (
            draft_id, reason, detail, tenant_id, total, currency, held_since, released_by,
            release_reason, released_at
        )
        values ('d', 'law_failed', '', 'acme', 1, 'USD', now(), 'ana', 'known', now())
        """
    )
    for change in CHANGES:
        with (
            pytest.raises(psycopg.errors.RestrictViolation, match="append-only"),
            world.connection.transaction(),
        ):
            world.execute(change)


def test_two_issuers_at_once_leave_no_gap(whole_world: World) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: issue_january(whole_world), range(2)))
    assert sorted(len(each.issued) for each in reports) == [0, 5]
    assert issued(whole_world) == ALL
    check_numbers_and_chain(whole_world)


def test_a_conflict_over_a_series_head_is_tried_again(whole_world: World) -> None:
    """Another transaction moves the head without the pipeline's locks: the row lock still serializes."""
    whole_world.execute(
        "insert into invoices.invoice_series values ('US', 'us', 0, repeat('0', 64)), "
        "('EU', 'eu', 0, repeat('0', 64))"
    )
    with ThreadPoolExecutor(1) as pool:
        with whole_world.database.connect() as other:
            other.execute("update invoices.invoice_series set last_number = last_number")
            running = pool.submit(issue_january, whole_world)
            wait_for_lock(whole_world, "invoice_series")
        assert len(running.result(timeout=20).issued) == 5
    assert issued(whole_world) == ALL
    check_numbers_and_chain(whole_world)


def test_a_kill_in_the_middle_leaves_nothing_half_written(whole_world: World) -> None:
    script = (
        "import sys; from datetime import datetime, date\n"
        "from metering_pipeline.postgres import Database\n"
        "from metering_pipeline.invoices.issuing import issue\n"
        "issue(Database(sys.argv[1], ''), date.fromisoformat(sys.argv[2]), "
        "datetime.fromisoformat(sys.argv[3]))\n"
    )
    with whole_world.database.connect() as other:
        other.execute("lock table invoices.issued_usage in share mode")
        process = subprocess.Popen(
            [sys.executable, "-c", script, whole_world.database.url, str(JANUARY),
             after(JANUARY).isoformat()],
            cwd=PROJECT_ROOT,
        )  # fmt: skip
        try:
            wait_for_lock(whole_world, "issued_usage")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
    report = issue_january(whole_world)  # waits for the lock that the dead one's session held
    assert len(report.issued) == 5
    assert issued(whole_world) == ALL
    check_numbers_and_chain(whole_world)
    assert whole_world.check() == set()


ISSUED_TAMPERING = {
    "a line changed": "update invoices.issued_invoice_lines set amount = amount + 1"
    " where tenant_id = 'acme' and charge_id = 'basic-tokens'",
    "a line's quantity changed": "update invoices.issued_invoice_lines set quantity = 1"
    " where tenant_id = 'acme' and charge_id = 'basic-tokens'",
    "the total changed": "update invoices.issued_invoices set total = 1, amount_due = 1"
    " where tenant_id = 'acme'",
    "the content changed": "update invoices.issued_invoices"
    " set content = replace(content, '\"amount\":\"6.50\"', '\"amount\":\"6.49\"')"
    " where tenant_id = 'acme'",
    "the pinned usage changed": "update invoices.issued_usage set value_sum = value_sum + 1"
    " from invoices.issued_invoice_lines as lines where lines.tenant_id = 'acme'"
    " and lines.charge_id = 'basic-tokens' and issued_usage.invoice_number = lines.invoice_number"
    " and issued_usage.line_number = lines.line_number",
    "a line removed": "delete from invoices.issued_invoice_lines where tenant_id = 'acme'"
    " and charge_id = 'basic-tokens'",
}  # fmt: skip


def next_month_is_due(world: World) -> None:
    """February is sealed; its drafts (flat amounts without usage) are there since January."""
    world.seal("2026-02-04", "2026-03-04")
    redraft(world)


@pytest.mark.parametrize("name", ISSUED_TAMPERING)
def test_a_changed_document_is_caught_and_holds_the_tenants_next_ones(
    world: World, name: str
) -> None:
    pass_january(world)
    world.tamper(ISSUED_TAMPERING[name])
    assert world.check("L5") == {("L5", None), ("L5", "acme")}
    next_month_is_due(world)
    report = issue_within(world.connection, FEBRUARY, after(FEBRUARY))
    assert reasons(report) == {("acme", "law_failed")}
    assert "L5 in 2026-02-04" in report.held[0].detail
    assert {each.tenant_id for each in report.issued} == {"birch", "cobalt"}


def test_a_document_rewritten_with_its_hash_breaks_the_chain(world: World) -> None:
    """One who changes content, columns and hash alike is betrayed by the next document."""
    pass_january(world)
    world.tamper(
        """
        update invoices.issued_invoices
        set bill_at = '2026-01-02Z',
            content = replace(content, '2026-02-04T00:00:00', '2026-01-02T00:00:00'),
            content_sha256 = encode(sha256(convert_to(
                replace(content, '2026-02-04T00:00:00', '2026-01-02T00:00:00'), 'UTF8')), 'hex')
        where tenant_id = 'acme'
        """
    )
    assert world.check("L5") == {("L5", None), ("L5", "acme"), ("L5", "birch")}


@pytest.mark.parametrize("number", ["US-000003", "US-000004"])
def test_a_vanished_document_holds_its_series(world: World, number: str) -> None:
    pass_january(world)
    with world.past_triggers():
        for table in ("issued_usage", "issued_invoice_lines", "issued_invoices"):
            world.execute(f"delete from invoices.{table} where invoice_number = %s", number)
    assert world.check("L5") == {("L5", None)}
    next_month_is_due(world)
    report = issue_within(world.connection, FEBRUARY, after(FEBRUARY))
    assert [each.tenant_id for each in report.issued] == ["cobalt"]
    assert {each.reason for each in report.held} == {"law_failed"}


def test_a_price_changed_behind_an_issued_line_is_caught(world: World) -> None:
    pass_january(world)
    world.tamper(
        "update catalog.charge_tiers set unit_amount = 0.03 where charge_id = 'eur-tokens'"
    )
    assert world.check("L5") == {("L5", None), ("L5", "cobalt")}


def test_late_usage_and_voids_become_adjustments_and_credit_notes(whole_world: World) -> None:
    """Billed plus adjustments is always an independent rating of what is pinned last."""
    issue_january(whole_world)
    whole_world.seal("2026-02-04", "2026-03-04")
    whole_world.land("2026-02-10T00:00", "late.ndjson", [
        use("birch", "2026-01-31T23:59", 20),
        *(use("acme", occurred_at, number, void=True) for number, occurred_at in (
            (1, "2026-01-12T10:05"), (2, "2026-01-12T10:06"), (4, "2026-01-12T11:30"),
        )),
    ])  # fmt: skip
    whole_world.execute("update ledger.pending set released = true")
    whole_world.run("2026-02-10", "2026-02-11")
    whole_world.execute("update ledger.pending set released = true")
    whole_world.run("2026-02-10", "2026-02-11")
    assert whole_world.check() == set()
    with whole_world.database.connect() as connection:
        assert connection.execute("select count(*) from ledger.pending").fetchone() == (0,)
    report = issue(whole_world.database, FEBRUARY, after(FEBRUARY))
    assert report.held == []
    totals = {each.tenant_id: (each.document_kind, each.total) for each in report.issued}
    # birch: 3.00 for February, 0.13 - 0.00 (6.625 to 6.75 rounded), and 100 tokens more
    assert totals["birch"] == ("invoice", Decimal("6.45"))
    assert totals["acme"] == ("credit_note", Decimal("-8.99"))
    check_numbers_and_chain(whole_world)
    assert whole_world.check() == set()
    adjusted = whole_world.rows(
        """
        select tenant_id, charge_id, sum(amount), count(*)
        from invoices.issued_invoice_lines
        where slice_start = '2026-01-01Z' and tenant_id in ('acme', 'birch')
        group by tenant_id, charge_id order by tenant_id, charge_id
        """
    )
    assert adjusted == [
        ("acme", "basic-requests", Decimal("4.50"), 2),
        ("acme", "basic-tokens", Decimal("3.33"), 2),
        ("birch", "basic-requests", Decimal("6.75"), 2),
        ("birch", "basic-tokens", Decimal("16.90"), 2),
    ]


def test_hundreds_of_documents_are_issued_in_seconds(world: World) -> None:
    """Set-based from end to end; the clock is generous, a statement a document would miss it."""
    world.execute(
        """
        insert into catalog.tenants select 't' || n, 't', 'us', true from generate_series(1, 1000) as n
        """
    )
    world.execute(
        """
        insert into catalog.subscriptions
        select 'sub-t' || n, 1, 't' || n, 'access', 'UTC', '2026-01-01', '00:00', '2026-01-01Z', null,
            null, '2025-12-01Z', 'test'
        from generate_series(1, 1000) as n
        """
    )
    world.execute(
        """
        insert into invoices.draft_invoices
        select 'd' || n, 'sub-t' || n, 't' || n, 'us', 'USD', '2026-01-01Z', '2026-01-01Z',
            '2026-02-01Z', null, 1, 10.00
        from generate_series(1, 1000) as n
        """
    )
    world.execute(
        """
        insert into invoices.draft_invoice_lines
        select 'd' || n, 1, 'sub-t' || n, 't' || n, 'access-fee', 1, 'flat', null, '2026-01-01Z',
            '2026-02-01Z', 1, 0, 0, 0, 10.00, 0, 10.00, 'USD', 'regular', 'advance', 1, '2026-01-01Z', 'fee'
        from generate_series(1, 1000) as n
        """
    )
    started = time.monotonic()
    report = pass_january(world)
    assert time.monotonic() - started < 15
    assert (len(report.issued), report.held) == (1005, [])
    check_numbers_and_chain(world)


def wait_for_lock(world: World, table: str) -> None:
    """Wait until a session waits for a lock in a statement about the table."""
    waiting = """
        select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like %s
    """
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while world.row(waiting, f"%{table}%") == (0,):
        assert datetime.now(UTC) < deadline, "nobody came to wait for the lock"
        time.sleep(0.05)
