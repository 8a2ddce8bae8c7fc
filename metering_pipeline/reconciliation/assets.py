"""The law results as an asset: materializing it proves everything that is kept."""

import time
from collections.abc import Iterator

import dagster as dg

from metering_pipeline.reconciliation.checks import law_result, prove_everything
from metering_pipeline.reconciliation.laws import MEANINGS
from metering_pipeline.reconciliation.proof import PROVED

KEY = dg.AssetKey(["reconciliation", "law_results"])


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
    tallies = [prove_everything(law, context.log.info) for law in PROVED]
    yield dg.MaterializeResult(
        metadata={
            "windows evaluated": sum(each.windows for each in tallies),
            "windows that fail": sum(each.red_windows for each in tallies),
            "buckets that differ": sum(each.buckets for each in tallies),
            "seconds": round(time.monotonic() - started, 1),
        },
        check_results=[law_result(each, KEY) for each in tallies],
    )
