"""The laws and the warnings as asset checks. They show rows; they do not replace them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.partitions import Window, tagged_window
from metering_pipeline.postgres import open_database
from metering_pipeline.reconciliation import findings
from metering_pipeline.reconciliation.buckets import Bucket, sampled_buckets
from metering_pipeline.reconciliation.differences import (
    SCHEMA,
    Differences,
    RedWindow,
    explained,
)
from metering_pipeline.reconciliation.drafts import compare_all, compare_unchecked
from metering_pipeline.reconciliation.findings import ALWAYS, Finding, Found, Hours
from metering_pipeline.reconciliation.proof import (
    PROVED,
    SESSIONS,
    Tally,
    by_hour,
    evaluated,
    prove,
)
from metering_pipeline.settings import HOUR, hour_of

LANDED = dg.AssetKey(["landing", "usage_events"])
HOURS = dg.AssetKey(["landing", "hours"])
POSTED = dg.AssetKey(["ledger", "usage_events"])
SUSPECTS = dg.AssetKey(["ledger", "suspects"])
ROLLED_UP = dg.AssetKey(["rollups", "usage_hourly"])
LATE_ARRIVALS = dg.AssetKey(["rollups", "late_arrivals"])
RATED = dg.AssetKey(["rating", "rated_lines"])
ISSUED = dg.AssetKey(["invoices", "issued_invoices"])

log = logging.getLogger(__name__)

DRAFTS = dg.AssetKey(["invoices", "draft_invoices"])

SAMPLES = 5
"""Records shown for each reason of a finding."""

EXPLAINED = 3
"""Failing rows of a law whose rows are looked up for its check."""


def law_check(law: str, asset: dg.AssetKey, blocking: bool, about: str) -> dg.AssetChecksDefinition:
    """The check that evaluates a law and shows what it found.

    A blocking one: for the landing hours of the run. The others, and any that is executed by itself:
    for everything until now. Not partitioned, since Dagster shows a partitioned check that a range
    run evaluated once as skipped.
    """

    @dg.asset_check(asset=asset, name=law, description=about, blocking=blocking)
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        configured = settings.load()
        now = configured.now()
        window = tagged_window(context.run.tags) if blocking else None
        if window is None and law in PROVED:
            tally = prove_everything(law, context.log.info)
            return law_result(tally, asset, explain(tally))
        tally = Tally(law)
        spans = _spans(window) if window else [(configured.first_hour, now)]
        for results in evaluated(open_database(configured), spans, by_hour(law, now)):
            tally.add(results)
        return law_result(tally, asset, explain(tally))

    return check


def _spans(window: Window) -> list[tuple[datetime, datetime]]:
    """A long backfill is evaluated as it was made, day by day; a day in as many parts as are evaluated at a time."""
    days = [*window.days()]
    parts = days if len(days) > 1 else window.cut(SESSIONS)
    return [(part.start, part.end) for part in parts]


def prove_everything(law: str, progress: Callable[[str], None]) -> Tally:
    """Prove a law of PROVED for all that is kept until now. Progress goes to the log too."""

    def say(line: str) -> None:
        log.info(line)
        progress(line)

    configured = settings.load()
    now = configured.now()
    database = open_database(configured)
    return prove(database, law, configured.first_hour, hour_of(now) + HOUR, now, say)


def explain(tally: Tally) -> list[RedWindow]:
    """The first failing rows of a law, each with the rows behind it. Nothing is read where nothing fails."""
    if not tally.failing:
        return []
    with open_database(settings.load()).connect() as connection:
        return [explained(connection, each) for each in tally.failing[:EXPLAINED]]


def law_result(
    tally: Tally, asset: dg.AssetKey, red: Sequence[RedWindow] = ()
) -> dg.AssetCheckResult:
    """Evaluations as one check result: how many windows, which of them failed, in which rows, what mends them."""
    metadata: dict[str, dg.MetadataValue] = {
        "windows evaluated": dg.MetadataValue.int(tally.windows),
        "failed": dg.MetadataValue.int(tally.red_windows),
    }
    if tally.failing:
        metadata["where"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "window": each.window_start.isoformat(),
                        "until": each.window_end.isoformat(),
                        "tenant": each.tenant_id or "(all)",
                        "figures": str(each.figures),
                    }
                )
                for each in tally.failing
            ]
        )
    if tally.buckets:
        metadata["buckets that differ"] = dg.MetadataValue.int(tally.buckets)
        metadata["the first of them"] = dg.MetadataValue.table(
            [
                dg.TableRecord(_bucket_record(bucket))
                for each in tally.failing
                for bucket in sampled_buckets(each)
            ]
        )
    metadata |= _differences_shown([found for each in red for found in each.differences])
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=tally.law,
        passed=tally.red_windows == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=(
            f"{tally.law} holds in {tally.windows} windows."
            if tally.red_windows == 0
            else f"{tally.law} fails in {tally.red_windows} of {tally.windows} windows. "
            + " ".join(_in_words(each) for each in red[:1])
        ),
        metadata=metadata,
    )


def _in_words(red: RedWindow) -> str:
    """The first thing to know: where, which row, what to do."""
    rows = [*red.facts, *(found.first for found in red.differences)]
    remedies = [f"To mend: {found.remedy}." for found in red.differences[:1]]
    return " ".join([f"The first: {red}:", *(f"{each}." for each in rows[:1]), *remedies])


def _differences_shown(differences: Sequence[Differences]) -> dict[str, dg.MetadataValue]:
    """For each relation with differing rows: its asset, the rows, the query for all of them, what mends them."""
    shown: dict[str, dg.MetadataValue] = {}
    by_name: dict[str, list[Differences]] = {}
    for each in differences:
        by_name.setdefault(each.relation.name, []).append(each)
    for name, found in by_name.items():
        rows = [row for each in found for row in each.rows]
        shown[f"{name}: rows"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
        shown[f"{name}: all rows"] = dg.MetadataValue.text("\n".join(each.query for each in found))
        shown[f"{name}: to mend"] = dg.MetadataValue.text(
            "\n".join(dict.fromkeys(each.remedy for each in found))
        )
        shown[f"{name}: relation"] = dg.MetadataValue.asset(dg.AssetKey([SCHEMA, name]))
    return shown


def _bucket_record(bucket: Bucket) -> dict[str, str]:
    one, other = bucket.sides
    return {
        "tenant": bucket.tenant_id,
        "metric": bucket.metric,
        "hour or day": bucket.hour_or_day,
        "dimensions": bucket.dimensions,
        "one side": str(one),
        "other side": str(other),
        "differs in": ", ".join(bucket.differs_in),
    }


def finding_check(
    name: str, asset: dg.AssetKey, finding: Finding, advice: str
) -> dg.AssetChecksDefinition:
    """A check that warns of a finding, with samples; the advice says what a person can do.

    Of what is standing it warns until it is mended. Of the rest it warns once: in the run of the landing
    hours that brought it, so that an old one does not hide a new one. Executed by itself: of all there is.
    """

    @dg.asset_check(
        asset=asset, name=name, description=f"{finding.name.capitalize()}: {finding.says}."
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        # a standing one is looked for in runs of billing dates too, whose tags are not hours
        asked = None if finding.standing else tagged_window(context.run.tags)
        hours = Hours(asked.start, asked.end) if asked else ALWAYS
        with open_database(settings.load()).connect() as connection:
            counts = finding.counts(connection, hours)
            samples = [
                sample
                for reason in counts
                for sample in finding.samples(connection, hours, reason, SAMPLES)
            ]
        return finding_result(counts, samples, advice)

    return check


def finding_result(
    counts: Mapping[str | None, int], samples: Sequence[Found], advice: str
) -> dg.AssetCheckResult:
    """Counts by reason and samples as one check result."""
    found = sum(counts.values())
    metadata: dict[str, dg.MetadataValue] = {"count": dg.MetadataValue.int(found)}
    for reason, count in counts.items():
        if reason is not None:
            metadata[reason] = dg.MetadataValue.int(count)
    if samples:
        metadata["the newest"] = dg.MetadataValue.table(
            [dg.TableRecord(_shown(sample)) for sample in samples]
        )
    return dg.AssetCheckResult(
        passed=found == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description="None." if found == 0 else f"{found:,} found. {advice}",
        metadata=metadata,
    )


def _shown(sample: Found) -> dict[str, str]:
    return {
        "file": sample.file_key or "",
        "line": str(sample.line_number or ""),
        "reason": sample.reason or "",
        "tenant": sample.tenant_id or "",
        "event type": sample.event_type or "",
        "occurred at": sample.occurred_at.isoformat() if sample.occurred_at else "",
        "correlation id": sample.correlation_id or "",
        "detail": sample.detail or "",
    }


def warning_check(
    name: str,
    asset: dg.AssetKey,
    count: str,
    about: str,
    advice: str,
    after: Sequence[dg.AssetKey] = (),
) -> dg.AssetChecksDefinition:
    """A check that warns while a query counts anything; the advice says what a person can do.

    It runs after its asset and, in a job that has them, after the others named.
    """

    @dg.asset_check(asset=asset, name=name, description=about, additional_deps=after)
    def check() -> dg.AssetCheckResult:
        with open_database(settings.load()).connect() as connection:
            row = connection.execute(count.encode()).fetchone()
        found = int(row[0]) if row else 0
        return dg.AssetCheckResult(
            passed=found == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description="None." if found == 0 else f"{found:,} found. {advice}",
            metadata={"count": found},
        )

    return check


def lines_check() -> dg.AssetChecksDefinition:
    """The check that each rated line is billed or drafted; a draft that is lost or edited shows before it is due.

    In a run that draws drafts up: of the subscriptions whose drafts it drew up anew. At night, and executed by
    itself: of every line there is.
    """

    @dg.asset_check(
        asset=DRAFTS,
        name="lines_equal_documents",
        description="Each rated line is what has been billed and what the drafts would bill.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        configured = settings.load()
        drawn_up = DRAFTS in context.job_def.asset_layer.selected_asset_keys
        compare = compare_unchecked if drawn_up else compare_all
        found = compare(open_database(configured), configured.first_hour, configured.now())
        return dg.AssetCheckResult(
            passed=not found.rows,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{found.first}. To mend: {found.remedy}." if found.rows else "They are.",
            metadata=_differences_shown([found]) if found.rows else {},
        )

    return check


checks: list[dg.AssetChecksDefinition] = [
    law_check("L1", LANDED, True, "Records in a file version = accepted + rejected."),
    law_check(
        "L2", POSTED, True,
        "Accepted rows of current file versions = owned + duplicates + conflicts + voids.",
    ),
    law_check(
        "L3", ROLLED_UP, True,
        "Digests, counts and sums agree from landing through the ledger to the rollups.",
    ),
    law_check(
        "L4", RATED, False,
        "Each bucket lies in exactly one slice of one charge or in rating.unrated_usage; slices = lines.",
    ),
    law_check(
        "L5", ISSUED, False,
        "Lines = document; the hash chain verifies; issued = an independent rating of the pinned usage.",
    ),
    lines_check(),
    finding_check(
        "no_rejected_events", LANDED, findings.REJECTED,
        "See landing.rejected_events: reason and detail say what to mend; land the mended file again.",
    ),
    finding_check(
        "no_vanished_files", HOURS, findings.VANISHED,
        "If a file was removed by mistake, put it back; to take its usage back, land it again without those lines.",
    ),
    finding_check(
        "control_totals_agree", HOURS, findings.MANIFESTS,
        "See reconciliation.control_totals and manifest_problems: land what is missing, or let the producer mend its "
        "manifest; metering waive lets an hour pass. A declared source's tenants are not invoiced before.",
    ),
    finding_check(
        "no_withdrawn_events", POSTED, findings.WITHDRAWN,
        "A producer replaced a file that was landed: see ledger.withdrawn. Billed usage becomes an adjustment.",
    ),
    finding_check(
        "no_conflicts", POSTED, findings.CONFLICTS,
        "See ledger.conflicts: ask the producer which is right; correct by a void and a new correlation id.",
    ),
    finding_check(
        "no_suspects", SUSPECTS, findings.SUSPECTS,
        "See ledger.suspects: if the producer stamps its retries anew, void the later ones.",
    ),
    warning_check(
        "no_late_arrivals", ROLLED_UP,
        "select count(*) from rollups.late_arrivals",
        "Usage later than the lookback that waits for a run of its own.",
        "The sensor late_arrivals launches that run; or run the job late_arrivals. See docs/runbooks/late-data.md.",
        after=[LATE_ARRIVALS],
    ),
    warning_check(
        "no_unmetered_events", ROLLED_UP,
        "select coalesce(sum(event_count), 0) from rollups.unmetered_events",
        "Events whose type no metric reads.",
        "See rollups.unmetered_events; add a metric to the catalog if they are to be billed.",
    ),
    warning_check(
        "no_unreadable_values", ROLLED_UP,
        "select coalesce(sum(event_count), 0) from rollups.unreadable_values",
        "Events with a value that a metric cannot read.",
        "See rollups.unreadable_values: a sample file and line are named; they hold their tenants' invoices.",
    ),
]  # fmt: skip
