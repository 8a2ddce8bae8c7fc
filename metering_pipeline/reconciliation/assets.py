"""What is asked or proven at length as assets: the laws of everything kept, a sample of days built anew, and a
billing provider's usage."""

import logging
import time
from collections.abc import Iterator, Sequence

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.costs import measured
from metering_pipeline.postgres import open_database
from metering_pipeline.reconciliation.checks import explain, law_result, prove_everything
from metering_pipeline.reconciliation.laws import MEANINGS
from metering_pipeline.reconciliation.proof import PROVED
from metering_pipeline.reconciliation.providers.comparing import Comparison, compare
from metering_pipeline.reconciliation.providers.fetching import fetch, provider, usual_span
from metering_pipeline.reconciliation.providers.usage import ProviderError
from metering_pipeline.reconciliation.rebuilt_days import (
    RebuiltDay,
    rebuild_sample,
    standing,
)

KEY = dg.AssetKey(["reconciliation", "law_results"])
REBUILT = dg.AssetKey(["reconciliation", "rebuilt_days"])

log = logging.getLogger(__name__)


@dg.asset(
    key=KEY,
    group_name="reconciliation",
    kinds={"python", "postgres"},
    owners=["team:metering"],
    deps=[
        ["landing", "usage_events"],
        ["ledger", "usage_events"],
        ["rollups", "usage_hourly"],
        ["rollups", "usage_daily"],
    ],
    check_specs=[
        dg.AssetCheckSpec(law, asset=KEY, description=f"Of everything kept: {MEANINGS[law]}.")
        for law in PROVED
    ],
    description=(
        "Every evaluation of a law, as rows that are only ever added. Materializing it, as every night, proves "
        "all that is kept: L1 to L3 for every landing hour, and for every day of usage that contributions, hourly "
        "and daily usage agree bucket by bucket. Its checks name the windows and buckets that differ."
    ),
)
def law_results(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    started = time.monotonic()
    with measured(context, open_database(settings.load()), "reconciliation"):
        tallies = [prove_everything(law, context.log.info) for law in PROVED]
    yield dg.MaterializeResult(
        metadata={
            "windows evaluated": sum(each.windows for each in tallies),
            "windows that fail": sum(each.red_windows for each in tallies),
            "buckets that differ": sum(each.buckets for each in tallies),
            "seconds": round(time.monotonic() - started, 1),
        },
        check_results=[law_result(each, KEY, explain(each)) for each in tallies],
    )


@dg.asset(
    key=REBUILT,
    group_name="reconciliation",
    kinds={"python", "postgres"},
    owners=["team:metering"],
    deps=[
        ["landing", "usage_events"],
        ["ledger", "usage_events"],
        ["rollups", "usage_hourly"],
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "days_are_identical",
            asset=REBUILT,
            description="Each day that was rebuilt is, by its newest rebuild, what the stage before says, row for row.",
        )
    ],
    description=(
        "Days built anew from the stage before and compared row for row, one row a rebuild, day and stage: the files "
        "read again, the ledger from landing, hourly usage from the ledger. Materializing it, as every week, takes up "
        "METERING_REBUILD_DAYS days; it reads and takes no lock."
    ),
)
def rebuilt_days(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    def say(line: str) -> None:
        log.info(line)
        context.log.info(line)

    started = time.monotonic()
    configured = settings.load()
    database = open_database(configured)
    with measured(context, database, "reconciliation"):
        done = rebuild_sample(database, configured, configured.now(), say)
    with database.connect() as connection:
        red = standing(connection)
    yield dg.MaterializeResult(
        metadata={
            "days": ", ".join(f"{day}" for day in dict.fromkeys(each.day for each in done))
            or "none",
            "rows compared": sum(each.rebuilt_count for each in done),
            "rows that differ": sum(each.differing for each in done),
            "not compared": sum(each.left_out_count for each in done),
            "seconds": round(time.monotonic() - started, 1),
        },
        check_results=[rebuilt_result(red)],
    )


def rebuilt_result(red: Sequence[RebuiltDay]) -> dg.AssetCheckResult:
    """The days that stand differing as a check result, each with samples and what mends it."""
    metadata: dict[str, dg.MetadataValue] = {"days and stages": dg.MetadataValue.int(len(red))}
    if red:
        metadata["where"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"day and stage": str(each), "row": sample, "to mend": each.remedy})
                for each in red
                for sample in each.samples
            ]
        )
    return dg.AssetCheckResult(
        asset_key=REBUILT,
        check_name="days_are_identical",
        passed=not red,
        severity=dg.AssetCheckSeverity.ERROR,
        description=(
            f"{red[0]}. The first: {red[0].samples[0]}. To mend: {red[0].remedy}."
            if red
            else "Every day that was rebuilt is what the stage before says."
        ),
        metadata=metadata,
    )


PROVIDER_KEY = dg.AssetKey(["reconciliation", "provider_usage"])
SHOWN = 20
"""Periods that the check shows."""


@dg.asset(
    key=PROVIDER_KEY,
    group_name="reconciliation",
    kinds={"python", "postgres"},
    owners=["team:metering"],
    deps=[["rollups", "usage_hourly"]],
    check_specs=[
        dg.AssetCheckSpec(
            "provider_agrees",
            asset=PROVIDER_KEY,
            blocking=True,
            description="The billing provider has the same usage as we, within METERING_PROVIDER_THRESHOLD_PERCENT.",
        )
    ],
    description=(
        "What a billing provider, or a table of the company's own, says of our tenants' usage, as rows that are only "
        "ever added. Materializing it asks METERING_PROVIDER_USAGE anew and compares: the check shows what differs, "
        "why, and what to do. With METERING_PROVIDER_GATE=hold the invoices of those who differ are held."
    ),
)
def provider_usage(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    configured = settings.load()
    if configured.provider_usage is None:
        raise ProviderError(
            "No billing provider is configured: set METERING_PROVIDER_USAGE to csv:PATH, stripe or table:SCHEMA.NAME."
        )
    database = open_database(configured)
    now = configured.now()
    source = provider(configured, database, configured.provider_usage)
    fetched = fetch(database, source, usual_span(source.source, now), "schedule", now)
    context.log.info("%s values of %s, %s", fetched.values, fetched.source, fetched.span)
    with database.connect() as connection:
        comparison = compare(connection, fetched.source)
    yield dg.MaterializeResult(
        metadata={
            "source": fetched.source,
            "span": str(fetched.span),
            "values": fetched.values,
            "periods compared": len(comparison.periods),
            "periods that differ": len(comparison.beyond),
        },
        check_results=[provider_result(comparison, holds=configured.provider_gate == "hold")],
    )


def provider_result(comparison: Comparison, holds: bool) -> dg.AssetCheckResult:
    """A comparison as a check result: an error where it holds invoices, else a warning."""
    beyond = comparison.beyond
    metadata: dict[str, dg.MetadataValue] = {"differ": dg.MetadataValue.int(len(beyond))}
    if beyond:
        metadata["where"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "tenant": each.who,
                        "metric": each.what,
                        "period": each.when,
                        "theirs": "nothing" if each.theirs is None else str(each.theirs),
                        "ours": "nothing" if each.ours is None else str(each.ours),
                        "state": each.state,
                        "causes": "; ".join(map(str, comparison.causes.get(each, []))),
                    }
                )
                for each in beyond[:SHOWN]
            ]
        )
        metadata["what to do"] = dg.MetadataValue.md(
            "\n".join(f"- {each}" for each in comparison.advice())
        )
    return dg.AssetCheckResult(
        asset_key=PROVIDER_KEY,
        check_name="provider_agrees",
        passed=not beyond,
        severity=dg.AssetCheckSeverity.ERROR if holds else dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(comparison.periods)} periods of {comparison.source} agree with ours."
            if not beyond
            else f"{len(beyond)} of {len(comparison.periods)} periods of {comparison.source} differ: see "
            "reconciliation.provider_periods where is_beyond."
            + (" Their tenants' invoices are held (metering issue --release)." if holds else "")
        ),
        metadata=metadata,
    )
