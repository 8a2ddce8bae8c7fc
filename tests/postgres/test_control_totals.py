"""Control totals: what a producer says that it sent is compared with what landed, to the last digit."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from metering_pipeline.invoices.issuing import IssueReport, issue, issue_within
from metering_pipeline.landing.sources import Source
from metering_pipeline.landing.store import Store, land_hours
from metering_pipeline.reconciliation.waivers import NothingToWaiveError, waive
from metering_pipeline.settings import HOUR
from tests.postgres.billing_world import JANUARY, World, after, at
from tests.postgres.test_landing_store import AT, NOW, Landing, event, landing

__all__ = ["landing"]  # the fixture

TOTALS = """
    select source, event_type, sent_count, landed_count, sent_quantity, landed_quantity, rejected_count, state
    from reconciliation.control_totals
    order by landed_hour, source, event_type
"""
PROBLEMS = """
    select reason, detail
    from reconciliation.manifest_problems
    order by landed_hour, source, reason, detail
"""
STATES = "select landed_hour, source, state from reconciliation.source_hours order by 1, 2"


def digest(events: Iterable[dict[str, Any]]) -> int:
    """The published algorithm, in plain Python."""
    total = 0
    for each in events:
        moment = datetime.fromisoformat(each["occurred_at"])
        micros = (moment - datetime.fromisoformat("1970-01-01T00:00:00Z")) // timedelta(
            microseconds=1
        )
        fields = (each["tenant_id"], each["event_type"], str(micros), each["correlation_id"])
        fingerprint = hashlib.sha256("\x1f".join(fields).encode()).digest()[:16]
        total += int.from_bytes(fingerprint[8:], signed=True)
    return total


def says(files: dict[str, bytes], source: str = "gateway", **changes: Any) -> dict[str, Any]:
    """What an honest producer of these files of valid events says."""
    by_type: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for content in files.values():
        for line in content.splitlines():
            sent = json.loads(line)
            by_type[sent["event_type"]].append(sent)
    return {
        "source": source,
        "landed_hour": f"{AT:%Y-%m-%dT%H}",
        "files": [
            {
                "name": name,
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in files.items()
        ],
        "totals": [
            {
                "event_type": event_type,
                "events": len(sent),
                "quantity": str(sum(Decimal(str(each.get("quantity", 1))) for each in sent)),
                "digest": str(digest(sent)),
            }
            for event_type, sent in by_type.items()
        ],
    } | changes


def written(document: object) -> bytes:
    return json.dumps(document).encode()


FILES = {
    "a.ndjson": event("1", quantity="0.000000000000000001") + event("1") + event("2", void=True),
    "b.ndjson": event("3", event_type="é", quantity="99999999999999999999") + event("4", quantity="2.5"),
}  # fmt: skip
"""With a copy and a void: what is sent is compared before anything is counted once."""


@pytest.fixture
def declared(landing: Landing) -> Landing:
    """The files in their folder, and their source declared: a manifest of each hour is expected."""
    for name, content in FILES.items():
        landing.drop(name, content)
    declare(landing, "gateway")
    return landing


def declare(landing: Landing, source: str, pattern: str = "*", since: datetime = AT) -> None:
    with landing.database.connect() as connection:
        connection.execute(
            "insert into catalog.sources values (%s, %s, '{}', true, 2, %s, %s, 'of a test')",
            (source, pattern, since, AT + HOUR),
        )


def problems(landing: Landing) -> list[tuple[str, str]]:
    """The reasons and details of what is wrong after landing and listing."""
    landing.land()
    landing.listing()
    return [(reason, detail) for reason, detail in landing.query(PROBLEMS)]


def states(landing: Landing) -> list[tuple[str, str]]:
    return [(source, state) for _, source, state in landing.query(STATES)]


def test_a_manifest_that_agrees(declared: Landing) -> None:
    declared.drop("_manifest.json", written(says(FILES)))
    landed = declared.land()
    assert (landed.files_landed, landed.manifests_landed, landed.accepted) == (2, 1, 5)
    assert declared.listing().unlanded_hours == ()
    small = Decimal("3.500000000000000001") + 1
    huge = Decimal("99999999999999999999")
    assert declared.query(TOTALS) == [
        ("gateway", "api.request", 4, 4, small, small, 0, "identical"),
        ("gateway", "é", 1, 1, huge, huge, 0, "identical"),
    ]
    assert declared.query(PROBLEMS) == []
    assert states(declared) == [("gateway", "complete")]
    before = declared.query("select *, xmin::text from landing.manifests")
    again = declared.land()
    assert (again.manifests_landed, again.files_unchanged) == (0, 2)
    assert declared.query("select *, xmin::text from landing.manifests") == before


def changed(total: int, **values: object) -> dict[str, Any]:
    said = says(FILES)
    said["totals"][total] |= values
    return said


SAID: dict[str, tuple[dict[str, Any], str]] = {
    "a count off by one": (changed(0, events=5), "totals: api.request sent 5, landed 4"),
    "a count that is too low": (changed(0, events=3), "totals: api.request sent 3, landed 4"),
    "a quantity off in the 18th decimal": (
        changed(0, quantity="4.500000000000000002"),
        "totals: api.request sent 4, landed 4; quantities 4.500000000000000002 and 4.500000000000000001",
    ),
    "a digest that differs": (
        changed(1, digest="7"),
        f"totals: é sent 1, landed 1; the digests differ: 7 and {says(FILES)['totals'][1]['digest']}",
    ),
    "an event type that did not land": (
        says(FILES) | {"totals": [*says(FILES)["totals"], {"event_type": "x", "events": 2, "quantity": 2}]},
        "totals: x sent 2, landed 0",
    ),
    "an event type that is not said": (
        says(FILES) | {"totals": says(FILES)["totals"][:1]},
        "totals: é sent 0, landed 1",
    ),
}  # fmt: skip


def test_totals_that_differ(declared: Landing) -> None:
    for what, (said, detail) in SAID.items():
        declared.drop("_manifest.json", written(said))
        assert problems(declared) == [("totals_differ", detail)], what
        assert states(declared) == [("gateway", "differs")], what


def test_two_errors_that_cancel_out_in_count_and_sum(declared: Landing) -> None:
    """One event lost and another sent twice: only the digest tells."""
    declared.drop(
        "_manifest.json", written(says(FILES) | {"files": [{"name": name} for name in FILES]})
    )
    declared.drop("b.ndjson", FILES["b.ndjson"].replace(b'"4"', b'"5"'))
    [(reason, detail)] = problems(declared)
    assert reason == "totals_differ"
    assert detail.startswith("totals: api.request sent 4, landed 4; the digests differ: ")
    assert declared.query(TOTALS)[0][-1] == "modified"
    without = says(FILES)
    for total in without["totals"]:
        del total["digest"]
    declared.drop(
        "_manifest.json", written(without | {"files": [{"name": name} for name in FILES]})
    )
    assert problems(declared) == []


def test_rejected_records_explain_a_difference(declared: Landing) -> None:
    sent = dict(FILES) | {"a.ndjson": FILES["a.ndjson"] + event("8") + event("9")}
    said = says(sent) | {"files": [{"name": name} for name in sent]}
    declared.drop("a.ndjson", sent["a.ndjson"].replace(b'"8"', b"8").replace(b'"9"', b"9"))
    declared.drop("_manifest.json", written(said))
    detail = "totals: api.request sent 6, landed 4; 2 rejected in its files"
    assert problems(declared) == [("totals_differ", detail)]


def test_a_file_that_is_named_and_absent(declared: Landing) -> None:
    sent = dict(FILES) | {"c.ndjson": event("9")}
    declared.drop("_manifest.json", written(says(sent)))
    assert problems(declared) == [
        ("file_absent", "files: landed_hour=2026-01-31T13/c.ndjson is named and has not landed"),
        ("totals_differ", "totals: api.request sent 5, landed 4"),
    ]
    declared.drop("c.ndjson", sent["c.ndjson"])
    assert problems(declared) == []


def test_a_file_that_is_there_and_not_named(declared: Landing) -> None:
    declared.drop("_manifest.json", written(says(FILES)))
    declared.drop("c.ndjson", event("9"))
    detail = "files: landed_hour=2026-01-31T13/c.ndjson landed with 1 events and is not named"
    assert problems(declared) == [("file_not_named", detail)]


def test_a_file_that_is_another_than_the_one_sent(declared: Landing) -> None:
    said = says(FILES)
    said["files"][0] |= {"size_bytes": 1, "sha256": "0" * 64}
    declared.drop("_manifest.json", written(said))
    [(reason, detail)] = problems(declared)
    assert reason == "file_differs"
    landed = hashlib.sha256(FILES["a.ndjson"]).hexdigest()
    assert (
        f"{len(FILES['a.ndjson'])} bytes and SHA-256 {landed}, not 1 bytes and SHA-256 000"
        in detail
    )


def test_a_manifest_may_come_later_than_the_files(declared: Landing) -> None:
    early = AT + 2 * HOUR
    declared.land(now=early)
    declared.listing(early)
    assert declared.query(PROBLEMS) == [("manifest_awaited", "no manifest of gateway")]
    assert states(declared) == [("gateway", "awaited")]
    assert problems(declared) == [("manifest_absent", "no manifest of gateway")]
    assert states(declared) == [("gateway", "absent")]
    sealed = declared.query("select sealed from landing.hours where landed_hour = %s", AT)
    declared.drop("_manifest.json", written(says(FILES)))
    listing = declared.listing()
    assert (sealed, listing.unlanded_hours) == ([(True,)], (AT,))
    assert listing.digest_of(AT) != replace(listing, files={}).digest_of(AT)
    assert declared.query("select sealed from landing.hours where landed_hour = %s", AT) == [
        (False,)
    ]
    posted = declared.query(
        "select landed_at, posted_at from landing.hours where landed_hour = %s", AT
    )
    assert problems(declared) == []
    assert states(declared) == [("gateway", "complete")]
    assert (
        declared.query("select landed_at, posted_at from landing.hours where landed_hour = %s", AT)
        == posted
    )


def test_a_manifest_changes_and_vanishes(declared: Landing) -> None:
    path = declared.drop("_manifest.json", written(changed(0, events=5)))
    assert len(problems(declared)) == 1
    path.write_bytes(written(says(FILES)))
    assert problems(declared) == []
    versions = "select manifest_id, superseded_by, missing_since from landing.manifests order by 1"
    assert declared.query(versions) == [(1, 2, None), (2, None, None)]
    path.unlink()
    [(reason, _)] = problems(declared)
    assert reason == "manifest_vanished"
    assert declared.query("select holds from reconciliation.manifest_problems") == [(False,)]
    assert states(declared) == [("gateway", "complete")]
    assert declared.query(versions)[1] == (2, None, NOW)
    # a file that changes meanwhile is compared with what the vanished manifest said
    declared.drop("b.ndjson", FILES["b.ndjson"] + event("9"))
    assert ("totals_differ", "totals: api.request sent 4, landed 5") in problems(declared)
    declared.drop("b.ndjson", FILES["b.ndjson"])
    path.write_bytes(written(says(FILES)))
    assert problems(declared) == []
    assert declared.query(versions)[1] == (2, None, None)


MALFORMED: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b"\xff", "the manifest: is no JSON document in UTF-8: 'utf-8'"),
    "no JSON": (written(says(FILES))[:-1], "the manifest: is no JSON document in UTF-8: "),
    "too deep": (b"[" * 100_000, "the manifest: is no JSON document in UTF-8: "),
    "no object": (b"[]", "the manifest: must be a JSON object"),
    "NaN": (written(changed(0, quantity=float("nan"))), "the manifest: is no JSON document in UTF-8: NaN"),
    "a key twice": (
        written(says(FILES)).replace(b'"files"', b'"source": "gateway", "files"'),
        "source: stands twice in one object; write it once",
    ),
    "an unknown key": (written(changed(1, evnts=1)), 'totals[1]."evnts": is no field of a manifest; known here: event_type'),
    "a missing key": (written({"source": "gateway", "landed_hour": f"{AT:%Y-%m-%dT%H}", "files": []}), "totals: is missing"),
    "a text for a number": (written(changed(0, events="4")), "totals[0].events: must be a whole number from 0 on"),
    "a negative count": (written(changed(0, events=-4)), "totals[0].events: must be a whole number from 0 on"),
    "a fraction of an event": (written(changed(0, events=4.5)), "totals[0].events: must be"),
    "19 digits": (written(changed(0, quantity="0.1234567890123456789")), "totals[0].quantity: must be a plain decimal"),
    "a digest of another kind": (written(changed(0, digest="abc")), "totals[0].digest: must be a whole number"),
    "a SHA-256 of another kind": (
        written(says(FILES) | {"files": [{"name": "a.ndjson", "sha256": "ABC"}]}), "files[0].sha256: must be 64",
    ),
    "a path": (written(says(FILES) | {"files": [{"name": "../a.ndjson"}]}), "files[0].name: ../a.ndjson is no name"),
    "a file twice": (
        written(says(FILES) | {"files": [{"name": "a.ndjson"}] * 2}), "files[1].name: a.ndjson stands twice",
    ),
    "an event type twice": (
        written(says(FILES) | {"totals": says(FILES)["totals"][:1] * 2}), "totals[1].event_type: api.request stands twice",
    ),
    "no list": (written(says(FILES) | {"files": {}}), "files: must be a JSON array"),
    "another hour": (
        written(says(FILES) | {"landed_hour": "2026-01-31T14"}), "landed_hour: is 2026-01-31T14, but it lies in",
    ),
    "half a character": (written(says(FILES) | {"source": "\ud800"}), "source: must be 1 to 255 bytes"),
    "no source": (written(says(FILES) | {"source": 7}), "source: must be a text"),
}  # fmt: skip


def test_a_malformed_manifest_is_said_by_file_and_field(declared: Landing) -> None:
    for what, (content, words) in MALFORMED.items():
        declared.drop("_manifest.gateway.json", content)
        [(reason, detail)] = problems(declared)
        assert reason == "malformed", what
        assert detail.startswith(words), detail
    assert declared.query("select file_key, holds from reconciliation.manifest_problems") == [
        ("landed_hour=2026-01-31T13/_manifest.gateway.json", True)
    ]
    assert states(declared) == [("gateway", "differs")]
    # the events land all the same, and a mended one takes its place
    assert declared.query("select count(*) from landing.usage_events") == [(5,)]
    declared.drop("_manifest.gateway.json", written(says(FILES)))
    assert problems(declared) == []
    versions = declared.query("select count(*), count(superseded_by) from landing.manifests")
    assert versions == [(len(MALFORMED) + 1, len(MALFORMED))]


def test_a_huge_manifest_is_not_read(declared: Landing) -> None:
    declared.drop("_manifest.gateway.json", b" " * (5 << 20))
    assert problems(declared) == [
        ("malformed", "the manifest: has 5242880 bytes; at most 4194304 are read")
    ]


def test_the_name_of_the_file_and_its_source_agree(declared: Landing) -> None:
    declared.drop("_manifest.batch.json", written(says(FILES)))
    assert (
        "malformed",
        "source: is gateway, but the file's name says batch; let them agree",
    ) in problems(declared)


def test_two_sources_in_one_hour(landing: Landing) -> None:
    for name, content in FILES.items():
        landing.drop(name, content)
    a, b = ({name: content} for name, content in FILES.items())
    declare(landing, "gateway", "a*")
    declare(landing, "batch_%", "b%*")
    landing.drop("_manifest.json", written(says(a)))
    assert problems(landing) == [("manifest_absent", "no manifest of batch_%")]
    landing.drop("_manifest.batch_%.json", written(says(b, "batch_%")))
    assert problems(landing) == []
    assert [row[:4] for row in landing.query(TOTALS)] == [
        ("batch_%", "api.request", 1, 1), ("batch_%", "é", 1, 1), ("gateway", "api.request", 3, 3),
    ]  # fmt: skip
    landing.drop("bc.ndjson", event("9"))  # of neither, for % is no *: nobody answers for it
    assert problems(landing) == []
    landing.drop("a2.ndjson", event("9"))
    assert [reason for reason, _ in problems(landing)] == ["file_not_named"]
    landing.drop("_manifest.json", written(says(FILES | {"a2.ndjson": event("9")})))
    assert [reason for reason, _ in problems(landing)] == ["file_named_twice", "file_named_twice"]
    landing.drop("_manifest.gateway.json", written(says(a)))
    assert "two_manifests" in [reason for reason, _ in problems(landing)]


def test_an_undeclared_source_holds_nobody_and_is_said(landing: Landing) -> None:
    landing.drop("a.ndjson", event("1"))
    landing.drop("_manifest.json", written(says({"a.ndjson": event("1") * 2}) | {"files": []}))
    assert [reason for reason, _ in problems(landing)] == [
        "file_not_named", "totals_differ", "undeclared_source",
    ]  # fmt: skip
    assert landing.query("select distinct holds from reconciliation.manifest_problems") == [
        (False,)
    ]


def test_nothing_was_sent_this_hour(landing: Landing) -> None:
    declare(landing, "gateway", since=AT - HOUR)
    landing.land()
    landing.listing()
    assert states(landing) == [("gateway", "absent")] * 2
    landing.drop("_manifest.json", written(says({})))
    land_hours(landing.database.url, landing.settings, AT - HOUR, AT, NOW)
    landing.listing()
    assert states(landing) == [("gateway", "absent"), ("gateway", "complete")]
    assert landing.query(
        "select file_count, landed_at from landing.hours where landed_hour = %s", AT
    ) == [(0, None)]


def test_a_source_is_declared_from_some_hour_on_to_another(landing: Landing) -> None:
    declare(landing, "gateway", since=AT)
    landing.listing()
    assert landing.query("select count(*) > 3 from landing.hours") == [(True,)]
    assert landing.query(STATES) == [(AT, "gateway", "absent")]
    assert landing.query(PROBLEMS) == [("manifest_absent", "no manifest of gateway")]


def test_what_is_waived_is_what_was_wrong_then(declared: Landing) -> None:
    declared.drop("_manifest.json", written(changed(0, events=5)))
    assert len(problems(declared)) == 1
    database = declared.database
    [waived] = waive(database, "gateway", AT, AT, "ana", "they know", NOW)
    assert (waived.reason, waived.detail) == (
        "totals_differ",
        "totals: api.request sent 5, landed 4",
    )
    assert states(declared) == [("gateway", "waived")]
    holds = "select holds, waived_by, waiver_reason from reconciliation.manifest_problems"
    assert declared.query(holds) == [(False, "ana", "they know")]
    with pytest.raises(NothingToWaiveError, match="Nothing of 'gateway' holds"):
        waive(database, "gateway", AT, AT, "ana", "again", NOW)
    with pytest.raises(ValueError, match="why must not be empty"):
        waive(database, "gateway", AT, AT, "ana", " ", NOW)
    declared.drop("_manifest.json", written(changed(0, events=6)))
    assert len(problems(declared)) == 1
    assert declared.query(holds) == [(True, None, None)]
    for change in (
        "update reconciliation.waivers set waived_by = 'x'",
        "delete from reconciliation.waivers",
        "truncate reconciliation.waivers",
    ):
        with (
            declared.database.connect() as connection,
            pytest.raises(psycopg.errors.RestrictViolation),
        ):
            connection.execute(change.encode())


def test_the_same_root_landed_elsewhere_says_the_same(declared: Landing, tmp_path: Path) -> None:
    """Whatever came in which order: landed at once into an emptied database the comparison is the same."""
    path = declared.drop("_manifest.json", written(changed(0, events=5)))
    problems(declared)
    path.write_bytes(written(changed(1, events=5)))
    declared.drop("b.ndjson", FILES["b.ndjson"] + event("9"))
    problems(declared)
    found = [declared.query(query) for query in (TOTALS, PROBLEMS, STATES)]
    assert len(found[1]) > 1
    with declared.database.connect() as connection:
        connection.execute(
            "truncate landing.files, landing.hours, landing.usage_events, landing.manifests cascade"
        )
    problems(declared)
    assert [declared.query(query) for query in (TOTALS, PROBLEMS, STATES)] == found


def test_a_dry_run_keeps_no_manifest(declared: Landing) -> None:
    declared.drop("_manifest.json", written(says(FILES)))
    with Store(
        declared.database.url, declared.settings, Source(declared.settings.landing_root), keep=False
    ) as store:
        [landed] = store.land_hours(AT, AT, NOW)
    assert landed.manifests_landed == 1
    assert declared.query("select count(*) from landing.manifests") == [(0,)]


# What holds invoices: a month of usage, made by the real models


def declare_for(world: World, tenants: str, since: str, until: str = "2026-03-01") -> None:
    world.execute(
        "insert into catalog.sources values ('gateway', '*', %s, true, 2, %s, %s, 'of a test')",
        tenants, at(since), at(until),
    )  # fmt: skip


def say(world: World, hour: str, file_key: str, event_type: str, count: int, quantity: str) -> None:
    """A manifest of a file that landed, as landing would have read it; the file added up."""
    world.execute(
        """
        with manifest as (
            insert into landing.manifests (
                file_key, landed_hour, source, problems, content_sha256, size_bytes, landed_at, modified_at
            )
            values ('m' || %(hour)s, %(hour)s, 'gateway', '{}', '', 1, %(hour)s, %(hour)s)
            returning manifest_id
        ),

        named as (
            insert into landing.manifest_files (manifest_id, file_key)
            select manifest_id, %(file_key)s from manifest
        ),

        added as (
            insert into landing.file_totals
            select file_id, event_type, count(*), sum(quantity), 0
            from landing.usage_events
            inner join landing.files using (file_id)
            where file_key = %(file_key)s
            group by file_id, event_type
        )

        insert into landing.manifest_totals (manifest_id, event_type, event_count, quantity)
        select manifest_id, %(event_type)s, %(count)s, %(quantity)s from manifest
        """,
        {
            "hour": at(hour),
            "file_key": file_key,
            "event_type": event_type,
            "count": count,
            "quantity": quantity,
        },
    )


def held(report: IssueReport) -> set[tuple[str, str, str]]:
    return {(each.tenant_id, each.reason, each.detail) for each in report.held}


@pytest.mark.parametrize(
    ("tenants", "since", "expected"),
    [
        ("{birch}", "2026-01-12T10:00", {"birch"}),
        ("{}", "2026-02-03T23:00", {"acme", "birch", "cobalt"}),
        ("{}", "2026-02-04T00:00", set()),
        ("{stranger}", "2026-01-12T10:00", set()),
    ],
)
def test_hours_without_a_manifest_hold_whom_they_concern(
    world: World, tenants: str, since: str, expected: set[str]
) -> None:
    """Up to the cut-off, and from the hour on from which the source is declared; not what is billed in advance."""
    declare_for(world, tenants, since)
    world.seal("2026-02-04", "2026-02-05")
    report = issue_within(world.connection, JANUARY, after(JANUARY))
    hours = (at("2026-02-04") - at(since)) // HOUR
    detail = f"gateway in {hours} landing hours, the first {since[:13]}: no manifest of gateway"
    assert held(report) == {(tenant, "manifest_absent", detail) for tenant in expected}
    assert {each.tenant_id for each in report.issued} == {
        "acme",
        "birch",
        "cobalt",
        "delta",
    } - expected


def test_totals_that_differ_hold_until_they_agree(world: World) -> None:
    declare_for(world, "{birch}", "2026-01-12T10:00", "2026-01-12T11:00")
    say(world, "2026-01-12T10:00", "a.ndjson", "api.request", 9, "8.5")
    report = issue_within(world.connection, JANUARY, after(JANUARY))
    wrong = "totals: api.request sent 9, landed 8"
    detail = f"gateway in 1 landing hours, the first 2026-01-12T10: {wrong}"
    assert held(report) == {("birch", "totals_differ", detail)}
    world.execute("update landing.manifest_totals set event_count = 8")
    world.execute("update invoices.draft_state set stale = false")
    report = issue_within(world.connection, JANUARY, after(JANUARY))
    assert (report.held, [each.tenant_id for each in report.issued]) == ([], ["birch"])


def test_what_is_waived_goes_and_the_history_says_so(whole_world: World) -> None:
    database = whole_world.database
    declare_for(whole_world, "{birch}", "2026-01-12T10:00", "2026-01-12T12:00")
    say(whole_world, "2026-01-12T11:00", "b.ndjson", "api.request", 10, "11")
    report = issue(database, JANUARY, after(JANUARY))
    assert {reason for _, reason, _ in held(report)} == {"manifest_absent", "totals_differ"}
    waive(
        database,
        "gateway",
        at("2026-01-12T10:00"),
        at("2026-01-12T11:00"),
        "ana",
        "outage",
        after(JANUARY),
    )
    whole_world.execute("update invoices.draft_state set stale = false")
    report = issue(database, JANUARY, after(JANUARY))
    assert (report.held, [each.tenant_id for each in report.issued]) == ([], ["birch"])
    assert whole_world.rows(
        "select reason, detail, tenant_id, released_by, release_reason from invoices.hold_releases order by 1"
    ) == [
        ("manifest_absent", "gateway 2026-01-12T10: no manifest of gateway", "birch", "ana", "outage"),
        (
            "totals_differ",
            "gateway 2026-01-12T11: totals: api.request sent 10, landed 9; 1 rejected in its files",
            "birch", "ana", "outage",
        ),
    ]  # fmt: skip
