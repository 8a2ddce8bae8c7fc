"""The issuing asset: drafts that are due become frozen invoices."""

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.costs import measured
from metering_pipeline.invoices.issuing import issue
from metering_pipeline.partitions import billing_dates
from metering_pipeline.postgres import open_database

SHOWN = 100
"""Documents that a run names in the Dagster UI."""


@dg.asset(
    key=["invoices", "issued_invoices"],
    group_name="invoices",
    kinds={"python", "postgres"},
    owners=["team:metering"],
    deps=[["invoices", "draft_invoices"]],
    partitions_def=billing_dates,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description=(
        "Frozen invoices: append-only, gapless numbers, a hash chain. A run issues every draft that is "
        "due by the end of its billing date; drafts that the gate holds stay in invoices.held_invoices."
    ),
)
def issued_invoices(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    configured = settings.load()
    billing_date = (context.partition_time_window.end - settings.HOUR).date()
    database = open_database(configured)
    with measured(context, database, "invoices"):
        report = issue(database, billing_date, configured.now())
    issued = [
        dg.TableRecord(
            {
                "number": each.number,
                "tenant": each.tenant_id,
                "kind": each.document_kind,
                "net": str(each.total),
                "due": str(each.amount_due),
                "currency": each.currency,
            }
        )
        for each in report.issued[:SHOWN]
    ]
    held = [
        dg.TableRecord({"draft": each.draft_id, "reason": each.reason, "detail": each.detail})
        for each in report.held
    ]
    return dg.MaterializeResult(
        metadata={
            "billing date": billing_date.isoformat(),
            "invoices issued": len(report.issued),
            "invoices held": len({each.draft_id for each in report.held}),
            **({"issued": dg.MetadataValue.table(issued)} if issued else {}),
            **({"held": dg.MetadataValue.table(held)} if held else {}),
        }
    )
