"""The faults that are seeded, one by one, into the world of fault_world: what somebody or something could do to the
pipeline's data behind its back, the database's guards included."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.settings import HOUR
from metering_pipeline.transform.dbt import run_dbt
from tests.postgres.billing_world import MODELS, at
from tests.postgres.fault_world import NOW, FileWorld, request

Step = str | Callable[[FileWorld], object]
"""A statement that changes exactly one row, or something else to do."""

BUCKET = "tenant_id = 'birch' and metric = 'tokens' and hour = '2026-01-12 11:00Z'"
DAY = "tenant_id = 'birch' and metric = 'tokens' and day = '2026-01-12'"
LINE = (
    "subscription_id = 'sub-acme' and charge_id = 'basic-requests' and slice_start = '2026-02-01Z'"
)
ACME = "invoice_number = 'US-000003'"
LEDGER_COLUMNS = """tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash, quantity, properties,
    landed_hour, file_id, line_number, recorded_at"""


FINDERS = {
    "late_files": "within minutes",
    "no_vanished_files": "every hour",
    "catalog_problems": "on publishing",
    "L4": "every hour",
    "L1": "every night",
    "L2": "every night",
    "L3": "every night",
    "lines_equal_documents": "every night",
    "L5": "every day",
    "gate": "before issuing",
    "days_are_identical": "every week",
}
"""What finds faults, the first to come first, and when it looks at everything."""

LANDING = "`metering rebuild --stage landing`, `--repair`"
LEDGER = "`metering rebuild --stage ledger`, `--repair`"
ROLLUPS = "`metering rebuild --stage rollups`"
BUCKETS = "its key into `rollups.touched_buckets`, then the next run"
DAYS = "its key into `rollups.touched_days`, then the next run"
TOUCHED = "the day into `rating.touched`, then the next run"
SLICES = "the line into `rating.touched_slices`, then the next run"
NEXT = "the next run mends it"
DRAFTS = "the subscription into `invoices.touched_subscriptions`, then the next run"
RUN = "put the file back, or run its hour: it lands as a new version"
FILE = "put the file back; what it held still counts"
BACKUP = "restore the rows from a backup: content and chain say what they were"
SEEDS = "put the seeds back; nothing was published"
PUBLISH = "publish the catalog again (job `catalog`)"
NIGHT = "the next proof evaluates it again"


@dataclass(frozen=True)
class Fault:
    """What is done; what must find it, in the order of FINDERS; words of a finder's message that lead to the row;
    what mends it."""

    stage: str
    what: str
    steps: tuple[Step, ...]
    found_by: tuple[str, ...]
    leads_to: tuple[str, ...]
    mend: str


def fault(stage: str, what: str, *steps: Step, by: str, to: tuple[str, ...], mend: str) -> Fault:
    return Fault(stage, what, steps, tuple(by.split()), to, mend)


def several(statement: str) -> Step:
    """A statement that changes rows, however many."""

    def step(world: FileWorld) -> None:
        with world.past_triggers():
            assert world.execute(statement) > 0

    return step


def file_of(world: FileWorld, name: str) -> Path:
    (path,) = world.root.glob(f"*/{name}")
    return path


def truncate_file(world: FileWorld) -> None:
    path = file_of(world, "d.ndjson")
    path.write_bytes(path.read_bytes()[:-200])


def change_file_in_secret(world: FileWorld) -> None:
    """Other bytes, but the size and the time that they had: as a failing disk would."""
    path = file_of(world, "d.ndjson")
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"tokens": 30', b'"tokens": 90'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_file(world: FileWorld) -> None:
    file_of(world, "d.ndjson").unlink()


def forge_everywhere(world: FileWorld) -> None:
    """An event invented in landing, and everything downstream made to follow it by the pipeline itself."""
    with world.past_triggers():
        world.execute(
            """
            insert into landing.usage_events
            select landed_hour, file_id, 99, tenant_id, event_type, occurred_at, 'birch-99', quantity, properties, void
            from landing.usage_events where correlation_id = 'birch-6'
            """
        )
        world.execute(
            "update landing.files set accepted_count = accepted_count + 1 where file_key like '%d.ndjson'"
        )
        world.execute(
            "update landing.hours set posted_at = null where landed_hour = '2026-02-10 08:00Z'"
        )
    world.post(at("2026-02-10T08:00"))


def lose_a_queue(queue: str) -> Callable[[FileWorld], None]:
    """New usage is landed and posted, and before the next stage has read its queue the queue is emptied."""
    after = {
        "ledger.pending": "usage_events",
        "rollups.touched_buckets": "usage_contributions",
        "rollups.touched_days": "usage_hourly",
        "rating.touched": "usage_daily",
    }

    def step(world: FileWorld) -> None:
        hour = at("2026-02-10T12:00")
        world.drop("2026-02-10T12", "late.ndjson", request("birch", "2026-02-10T11:10", 12))
        land_hours(world.database.url, world.settings, hour, hour, NOW)
        list_hours(world.database.url, world.settings, NOW)
        models = list(MODELS)
        cut = models.index(after[queue]) + 1
        window = Window(hour, hour + HOUR)
        run_dbt(world.database, "run", [f"metering.*.{each}" for each in models[:cut]], window)
        assert world.execute(f"delete from {queue}") > 0
        run_dbt(world.database, "run", models[cut:], window)

    return step


def redraft(world: FileWorld) -> None:
    """All of them anew; an ordinary run draws up those of which something has changed."""
    run_dbt(world.database, "run --full-refresh", ["draft_invoices"])


FAULTS = (
    # Landing
    fault(
        "landing", "a row deleted", "delete from landing.usage_events where correlation_id = 'birch-4'",
        by="L1 L2 L3 days_are_identical", to=("b.ndjson", "accepted count 9", "accepted found 8",), mend=LANDING,
    ),
    fault(
        "landing", "a row doubled", """
        insert into landing.usage_events
        select landed_hour, file_id, 77, tenant_id, event_type, occurred_at, correlation_id, quantity, properties, void
        from landing.usage_events where correlation_id = 'birch-4'""",
        by="L1 L2 L3 days_are_identical", to=("b.ndjson", "accepted count 9", "accepted found 10",), mend=LANDING,
    ),
    fault(
        "landing", "a row's quantity changed", "update landing.usage_events set quantity = 9 where correlation_id = 'birch-4'",
        by="L3 days_are_identical", to=("b.ndjson", "line number 4", "birch-4", "differs in payload_hash, quantity",), mend=LANDING,
    ),
    fault(
        "landing", "two rows' properties swapped", several("""
        update landing.usage_events set properties = case correlation_id
            when 'birch-6' then '{"model":"small","tokens":31}' else '{"model":"small","tokens":30}' end
        where correlation_id in ('birch-6', 'birch-7')"""),
        by="L3 gate days_are_identical", to=("d.ndjson", "line number 4", "birch-6", "properties",), mend=LANDING,
    ),
    fault(
        "landing", "a file's count changed", "update landing.files set accepted_count = accepted_count - 1 where file_key like '%/b.ndjson'",
        by="L1 days_are_identical", to=("b.ndjson", "accepted count 8",), mend=LANDING,
    ),
    fault(
        "landing", "a rejected record deleted", "delete from landing.rejected_events",
        by="L1 days_are_identical", to=("b.ndjson", "rejected found 0",), mend=LANDING,
    ),
    fault(
        "landing", "a partition dropped", lambda world: world.execute("drop table landing.usage_events_20260210"),
        by="L1 L2 L3 gate days_are_identical", to=("d.ndjson", "accepted found 0",), mend=LANDING,
    ),
    fault(
        "landing", "a file truncated after it was landed", truncate_file,
        by="late_files gate days_are_identical", to=("2026-02-10T08",), mend=RUN,
    ),
    fault(
        "landing", "a file's bytes changed, not its size and time", change_file_in_secret,
        by="days_are_identical", to=("d.ndjson", "not those that were landed",), mend=RUN,
    ),
    fault(
        "landing", "a landed file removed", remove_file,
        by="no_vanished_files", to=("d.ndjson",), mend=FILE,
    ),
    fault(
        "landing", "an event invented, and all stages made to follow", forge_everywhere,
        by="days_are_identical", to=("d.ndjson line 99", "birch-99",), mend=LANDING,
    ),
    # Ledger
    fault(
        "ledger", "a row deleted", "delete from ledger.usage_events where correlation_id = 'birch-3'",
        by="L2 L3 days_are_identical", to=("b.ndjson", "line number 3", "birch-3", "missing",), mend=LEDGER,
    ),
    fault(
        "ledger", "a row doubled in another partition", """
        insert into ledger.usage_events select tenant_id, event_type, occurred_at + interval '1 day', correlation_id, md5('x')::uuid,
            payload_hash, quantity, properties, landed_hour, file_id, line_number, recorded_at
        from ledger.usage_events where correlation_id = 'birch-3'""",
        by="L2 L3 days_are_identical", to=("b.ndjson", "line number 3", "birch-3", "posted as owned, owned",), mend=LEDGER,
    ),
    fault(
        "ledger", "a row's time shifted", "update ledger.usage_events set occurred_at = occurred_at + interval '1 minute' where correlation_id = 'birch-3'",
        by="L3 days_are_identical", to=("b.ndjson", "line number 3", "birch-3", "occurred_at",), mend=LEDGER,
    ),
    fault(
        "ledger", "a row's quantity changed", "update ledger.usage_events set quantity = 7 where correlation_id = 'cobalt-1'",
        by="L3 days_are_identical", to=("a.ndjson", "cobalt-1", "quantity",), mend=LEDGER,
    ),
    fault(
        "ledger", "a row's properties changed", """update ledger.usage_events set properties = '{"model":"small","tokens":1}' where correlation_id = 'birch-3'""",
        by="L3 days_are_identical", to=("b.ndjson", "line number 3", "birch-3", "properties",), mend=LEDGER,
    ),
    fault(
        "ledger", "a row's payload hash changed", "update ledger.usage_events set payload_hash = md5('x')::uuid where correlation_id = 'birch-3'",
        by="L3 days_are_identical", to=("b.ndjson", "line number 3", "birch-3", "payload_hash",), mend=LEDGER,
    ),
    fault(
        "ledger", "a row given to another tenant", "update ledger.usage_events set tenant_id = 'birch' where correlation_id = 'acme-1'",
        by="L2 L3 days_are_identical", to=("a.ndjson", "line number 1", "acme-1", "tenant_id",), mend=LEDGER,
    ),
    fault(
        "ledger", "two events' quantities changed so that count and sum stay",
        "update ledger.usage_events set quantity = 1.25 where correlation_id = 'birch-3'",
        "update ledger.usage_events set quantity = 0.75 where correlation_id = 'birch-4'",
        by="L3 days_are_identical", to=("b.ndjson", "line number 3", "birch-3", "quantity",), mend=LEDGER,
    ),
    fault(
        "ledger", "two tenants' quantities swapped",
        "update ledger.usage_events set quantity = 1.5 where correlation_id = 'acme-1'",
        "update ledger.usage_events set quantity = 1 where correlation_id = 'cobalt-1'",
        by="L3 days_are_identical", to=("a.ndjson", "acme-1", "quantity",), mend=LEDGER,
    ),
    fault(
        "ledger", "a partition dropped", lambda world: world.execute("drop table ledger.usage_events_20260113"),
        by="L2 L3 days_are_identical", to=("c.ndjson", "birch-5", "missing",), mend=LEDGER,
    ),
    fault(
        "ledger", "a duplicate deleted", "delete from ledger.duplicates where kind = 'event'",
        by="L2 L3 days_are_identical", to=("a.ndjson", "line number 4", "acme-1", "missing",), mend=LEDGER,
    ),
    fault(
        "ledger", "a duplicate moved to another landing hour", "update ledger.duplicates set landed_hour = landed_hour + interval '1 hour' where kind = 'event'",
        by="L2 L3 days_are_identical", to=("a.ndjson", "line number 4", "acme-1",), mend=LEDGER,
    ),
    fault(
        "ledger", "a conflict made a duplicate",
        f"insert into ledger.duplicates select 'event', {LEDGER_COLUMNS} from ledger.conflicts",
        "delete from ledger.conflicts",
        by="L3 days_are_identical", to=("b.ndjson", "line number 1", "acme-2", "kind",), mend=LEDGER,
    ),
    fault(
        "ledger", "a void deleted", "delete from ledger.voids where correlation_id = 'acme-3'",
        by="L2 L3 days_are_identical", to=("c.ndjson", "line number 3", "acme-3", "missing",), mend=LEDGER,
    ),
    fault(
        "ledger", "a void moved to another landing hour", "update ledger.voids set landed_hour = '2026-01-14 01:00Z' where correlation_id = 'acme-3'",
        by="L2 L3 days_are_identical", to=("c.ndjson", "line number 3", "acme-3",), mend=LEDGER,
    ),
    fault(
        "ledger", "a withdrawn row deleted", "delete from ledger.withdrawn",
        by="days_are_identical", to=("e.ndjson line 2", "ledger.withdrawn", "birch-9",), mend=LEDGER,
    ),
    fault(
        "ledger", "the queue to the rollups lost", lose_a_queue("ledger.pending"),
        by="L3 gate days_are_identical", to=("2026-02-10T12", "birch", "ledger count 1, contributed count 0",), mend=ROLLUPS,
    ),
    # Rollups
    fault(
        "rollups", "a contribution edited", f"update rollups.usage_contributions set value_sum = value_sum + 1 where {BUCKET}",
        by="L3", to=("birch", "tokens", "2026-01-12T11", "value_sum",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "a contribution deleted", f"delete from rollups.usage_contributions where {BUCKET}",
        by="L3", to=("birch", "tokens", "2026-01-12T11", "contributed count 0",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "a contribution doubled under another dimension", """
        insert into rollups.usage_contributions
        select landed_hour, tenant_id, metric, hour, '{"model":"none"}', event_type, event_count, voided_count, value_sum, value_moment,
            value_min, value_max, value_latest, latest_at, latest_fingerprint, event_digest, payload_digest
        from rollups.usage_contributions where tenant_id = 'birch' and metric = 'requests' and hour = '2026-01-12 11:00Z'""",
        by="L3", to=("birch", "requests", '{"model": "none"}', "extra",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "an hour edited", f"update rollups.usage_hourly set value_sum = value_sum + 1 where {BUCKET}",
        by="L4 L3 days_are_identical", to=("birch", "tokens", "2026-01-12T11", "value_sum",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "an hour deleted", f"delete from rollups.usage_hourly where {BUCKET}",
        by="L4 L3 days_are_identical", to=("birch", "tokens", "2026-01-12T11", "hourly count 0",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "an hour invented", f"""
        insert into rollups.usage_hourly
        select tenant_id, metric, '2026-02-03 05:00Z', dimensions, event_count, value_sum, value_moment, value_min, value_max,
            value_latest, latest_at, latest_fingerprint, event_digest, payload_digest
        from rollups.usage_hourly where {BUCKET}""",
        by="L4 L3 gate", to=("birch", "tokens", "2026-02-03T05", "extra",), mend=BUCKETS,
    ),
    fault(
        "rollups", "two hours edited so that count and sum stay",
        f"update rollups.usage_hourly set value_sum = value_sum + 1 where {BUCKET}",
        f"update rollups.usage_hourly set value_sum = value_sum - 1 where {BUCKET.replace('11:00', '10:00')}",
        by="L3 days_are_identical", to=("birch", "tokens", "2026-01-12T1",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "a day edited", f"update rollups.usage_daily set value_sum = value_sum + 1 where {DAY}",
        by="L3", to=("birch", "tokens", "day 2026-01-12", "value_sum",), mend=DAYS,
    ),
    fault(
        "rollups", "a value that cannot be read forgotten", several("delete from rollups.unreadable_values"),
        by="L4 L3 gate", to=("cobalt", "tokens", "2026-02-10T08", "unreadable_values 0",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "unmetered events forgotten", "delete from rollups.unmetered_events",
        by="L3 gate", to=("chat.message", "2026-02-10T08", "unmetered_events",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "the queue from contributions to hours lost", lose_a_queue("rollups.touched_buckets"),
        by="L3 gate days_are_identical", to=("birch", "2026-02-10T11", "hourly count 0",), mend=ROLLUPS,
    ),
    fault(
        "rollups", "the queue from hours to days lost", lose_a_queue("rollups.touched_days"),
        by="L3 gate", to=("birch", "day 2026-02-10",), mend=DAYS,
    ),
    # Rating
    fault(
        "rating", "the queue to the rating lost", lose_a_queue("rating.touched"),
        by="L4 gate", to=("birch", "usage month 2026-02-01", "hourly count 4, rated count 3",), mend=TOUCHED,
    ),
    fault(
        "rating", "a rated line's amount edited", f"update rating.rated_lines set amount = amount + 1 where {LINE}",
        by="L4 lines_equal_documents gate", to=("sub-acme basic-requests usage from 2026-02-01", "rounded",), mend=SLICES,
    ),
    fault(
        "rating", "a rated line and its tier slice edited alike",
        f"update rating.rated_lines set amount = amount + 1, exact_amount = exact_amount + 1 where {LINE}",
        f"update rating.tier_slices set amount = amount + 1 where {LINE} and tier = 1", redraft,
        by="gate", to=("sub-acme/USD/2026-03-04", "line 1: rated 7.38, independently 6.38",), mend=SLICES,
    ),
    fault(
        "rating", "a tier slice edited", f"update rating.tier_slices set amount = amount + 0.01 where {LINE} and tier = 1",
        by="L4 gate", to=("sub-acme basic-requests usage from 2026-02-01", "slices",), mend=SLICES,
    ),
    fault(
        "rating", "a rated line deleted", f"delete from rating.rated_lines where {LINE}",
        by="L4 lines_equal_documents gate", to=("sub-acme basic-requests usage from 2026-02-01", "without a line",), mend=SLICES,
    ),
    fault(
        "rating", "usage both rated and unrated", """
        insert into rating.unrated_usage
        select tenant_id, metric, dimensions, hour, hour + interval '1 hour', 'not_in_plan', false, event_count, value_sum,
            event_digest, payload_digest
        from rollups.usage_hourly where tenant_id = 'birch' and metric = 'tokens' and hour = '2026-02-10 07:00Z'""",
        by="L4 gate", to=("birch", "2026-02-01", "tokens", "unrated count 2",), mend=TOUCHED,
    ),
    fault(
        "rating", "usage that holds an invoice forgotten", several("delete from rating.unrated_usage where reason = 'unreadable_value'"),
        by="L4 gate", to=("cobalt", "2026-02-01", "tokens", "hourly count 1",), mend=NEXT,
    ),
    fault(
        "rating", "a day of a line's usage lost", "delete from rating.period_usage_daily where subscription_id = 'sub-birch' and charge_id = 'basic-tokens' and day = '2026-02-10'",
        by="L4 gate", to=("sub-birch basic-tokens usage from 2026-02-01", "days",), mend=TOUCHED,
    ),
    # Invoices
    fault(
        "invoices", "a draft line edited", f"update invoices.draft_invoice_lines set amount = amount + 1 where {LINE}",
        by="lines_equal_documents gate", to=("sub-acme", "basic-requests", "2026-02-01", "rated amount 6.38", "drafted amount 7.38",), mend=DRAFTS,
    ),
    fault(
        "invoices", "a draft and its lines deleted",
        several("delete from invoices.draft_invoice_lines where subscription_id = 'sub-acme'"),
        several("delete from invoices.draft_invoices where subscription_id = 'sub-acme'"),
        by="lines_equal_documents", to=("sub-acme", "missing", "drafted amount 0",), mend=DRAFTS,
    ),
    fault(
        "invoices", "an issued line's amount changed", f"update invoices.issued_invoice_lines set amount = amount - 1 where {ACME} and line_number = 1",
        by="lines_equal_documents L5 gate", to=("sub-acme", "basic-requests", "US-000003",), mend=BACKUP,
    ),
    fault(
        "invoices", "an issued document's total changed", f"update invoices.issued_invoices set total = total - 1, amount_due = amount_due - 1 where {ACME}",
        by="L5 gate", to=("US-000003", "total",), mend=BACKUP,
    ),
    fault(
        "invoices", "an issued document's content and hash changed", f"""
        update invoices.issued_invoices set content = replace(content, 'acme', 'acne'),
            content_sha256 = encode(sha256(convert_to(replace(content, 'acme', 'acne'), 'UTF8')), 'hex')
        where {ACME}""",
        by="L5 gate", to=("US-000003", "content",), mend=BACKUP,
    ),
    fault(
        "invoices", "an issued document's hash changed", f"update invoices.issued_invoices set content_sha256 = repeat('0', 64) where {ACME}",
        by="L5 gate", to=("US-000003", "hash",), mend=BACKUP,
    ),
    fault(
        "invoices", "an issued document deleted with all its parts",
        several(f"delete from invoices.issued_usage where {ACME}"),
        several(f"delete from invoices.issued_tier_slices where {ACME}"),
        several(f"delete from invoices.credit_entries where {ACME}"),
        several(f"delete from invoices.issued_invoice_lines where {ACME}"),
        f"delete from invoices.issued_invoices where {ACME}",
        by="lines_equal_documents L5 gate", to=("sub-acme", "basic-requests", "drafted amount 0",), mend=BACKUP,
    ),
    fault(
        "invoices", "the newest issued document deleted, and the head of its series moved back",
        several("delete from invoices.issued_usage where invoice_number = 'US-000004'"),
        several("delete from invoices.issued_tier_slices where invoice_number = 'US-000004'"),
        several("delete from invoices.issued_invoice_lines where invoice_number = 'US-000004'"),
        "delete from invoices.issued_invoices where invoice_number = 'US-000004'",
        """update invoices.invoice_series set last_number = 3, last_sha256 = (
            select content_sha256 from invoices.issued_invoices where invoice_number = 'US-000003') where series = 'US'""",
        redraft,
        by="L5 gate", to=("series US", "2026-02-04",), mend=BACKUP,
    ),
    fault(
        "invoices", "the usage that an issued line pins changed", several(f"update invoices.issued_usage set value_sum = value_sum + 1 where {ACME} and line_number = 1"),
        by="L5 gate", to=("US-000003", "usage",), mend=BACKUP,
    ),
    fault(
        "invoices", "a tier slice of an issued line changed", f"update invoices.issued_tier_slices set unit_amount = unit_amount + 1 where {ACME} and line_number = 1 and tier = 1",
        by="L5 gate", to=("US-000003", "content",), mend=BACKUP,
    ),
    fault(
        "invoices", "a credit used by a document changed", f"update invoices.credit_entries set amount = amount + 1 where {ACME}",
        by="L5 gate", to=("US-000003", "credit",), mend=BACKUP,
    ),
    fault(
        "invoices", "a credit's grant raised", "update invoices.credit_entries set amount = 500 where kind = 'grant'",
        by="L5 gate", to=("acme", "credit CR-000001: entry 1 (grant)",), mend=BACKUP,
    ),
    fault(
        "invoices", "a credit's grant deleted", "delete from invoices.credit_entries where kind = 'grant'",
        by="L5 gate", to=("acme", "US-000003", "a credit of it is overdrawn",), mend=BACKUP,
    ),
    # Catalog
    fault(
        "catalog", "a price edited in the seeds after issuing", several("update staging.charge_tiers set unit_amount = '9' where charge_id = 'basic-requests' and tier = '1'"),
        by="catalog_problems", to=("charge_tiers", "basic-requests", "unit_amount", "9",), mend=SEEDS,
    ),
    fault(
        "catalog", "a price edited in the published catalog after issuing", several("update catalog.charge_tiers set unit_amount = 9 where charge_id = 'basic-requests' and tier = 1"),
        by="catalog_problems L5 gate", to=("charge_tiers", "basic-requests", "unit_amount",), mend=PUBLISH,
    ),
    fault(
        "catalog", "a subscription's time zone edited in the seeds", several("update staging.subscriptions set time_zone = 'Asia/Kathmandu' where subscription_id = 'sub-birch'"),
        by="catalog_problems", to=("subscriptions", "sub-birch",), mend=SEEDS,
    ),
    fault(
        "catalog", "a subscription's time zone edited in the published catalog", several("update catalog.subscriptions set time_zone = 'Asia/Kathmandu' where subscription_id = 'sub-birch'"),
        by="catalog_problems gate", to=("subscriptions", "sub-birch",), mend=PUBLISH,
    ),
    # Reconciliation
    fault(
        "reconciliation", "a red law result made green",
        f"update rollups.usage_hourly set value_sum = value_sum + 1 where {BUCKET}",
        lambda world: world.check("L3"),
        several("update reconciliation.law_results set passed = true where not passed"),
        several("delete from reconciliation.law_results where tenant_id is not null"),
        by="L4 L3 days_are_identical", to=("birch", "tokens", "2026-01-12T11",), mend=NIGHT,
    ),
    fault(
        "reconciliation", "law results deleted", several("delete from reconciliation.law_results where law = 'L2' and window_start >= '2026-02-01Z'"),
        by="gate", to=("never_evaluated", "2026-02-10T08",), mend=NIGHT,
    ),
)  # fmt: skip
