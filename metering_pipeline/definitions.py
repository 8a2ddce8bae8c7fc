"""The table of contents: the stages in the order the data flows, what checks them, what runs them."""

import dagster as dg

from metering_pipeline.invoices.assets import issued_invoices
from metering_pipeline.jobs import jobs
from metering_pipeline.landing.assets import hours, usage_events
from metering_pipeline.reconciliation.assets import law_results, provider_usage, rebuilt_days
from metering_pipeline.reconciliation.checks import checks
from metering_pipeline.schedules import schedules
from metering_pipeline.sensors import sensors
from metering_pipeline.transform.assets import (
    catalog_models,
    ledger_models,
    rating_models,
    rollup_models,
    suspect_models,
)
from metering_pipeline.transform.late_arrivals import late_arrivals
from metering_pipeline.transform.lateness import lateness
from metering_pipeline.transform.tables import with_tables
from metering_pipeline.watch.assets import nothing_is_wrong, watched

defs = dg.Definitions(
    assets=with_tables(
        [
            catalog_models,
            usage_events,
            hours,
            ledger_models,
            suspect_models,
            rollup_models,
            late_arrivals,
            lateness,
            rating_models,
            issued_invoices,
            law_results,
            provider_usage,
            rebuilt_days,
            *watched,
        ]
    ),
    asset_checks=[*checks, nothing_is_wrong],
    jobs=jobs,
    schedules=schedules,
    sensors=sensors,
    executor=dg.in_process_executor,
)
