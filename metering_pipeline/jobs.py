"""What can be run: selections of assets, in flow order."""

import dagster as dg

from metering_pipeline.transform.assets import rating_models

LANDING_TO_HOURLY = dg.AssetSelection.assets(
    ["landing", "usage_events"],
    ["ledger", "usage_events"],
    ["rollups", "usage_contributions"],
    ["rollups", "usage_hourly"],
)
CATALOG = dg.AssetSelection.groups("catalog")
LATE_ARRIVALS = dg.AssetSelection.assets(["rollups", "late_arrivals"]) | dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey(["rollups", "usage_hourly"]), "no_late_arrivals")
)
DRAFTS = dg.AssetSelection.assets(["landing", "hours"], *rating_models.keys)
LOOKED_AT_DAILY = dg.AssetSelection.assets(["ledger", "suspects"], ["rollups", "lateness"])
PROOF = dg.AssetSelection.assets(["reconciliation", "law_results"]) | dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey(["invoices", "draft_invoices"]), "lines_equal_documents")
)
PROVIDER = dg.AssetSelection.assets(["reconciliation", "provider_usage"])
REBUILT = dg.AssetSelection.assets(["reconciliation", "rebuilt_days"])
ISSUED = dg.AssetSelection.assets(["invoices", "issued_invoices"])

WRITES = {"metering/writes": "the pipeline"}
"""Tags of the jobs that write what others read: dagster.yaml lets one of them run at a time."""

catalog = dg.define_asset_job(
    "catalog",
    CATALOG,
    tags=WRITES,
    description="Loads, validates and publishes the catalog.",
)
hourly = dg.define_asset_job(
    "hourly",
    LANDING_TO_HOURLY | DRAFTS,
    tags=WRITES,
    description="Landing hours, from the files to the drafts.",
)
late_arrivals = dg.define_asset_job(
    "late_arrivals",
    LATE_ARRIVALS | DRAFTS,
    tags=WRITES,
    description="Rolls up the usage that is later than the lookback, and rates it.",
)
drafts = dg.define_asset_job(
    "drafts", DRAFTS, tags=WRITES, description="Rates what changed and draws up drafts."
)
billing = dg.define_asset_job(
    "billing",
    LOOKED_AT_DAILY | DRAFTS | ISSUED,
    tags=WRITES,
    description="Draws up the drafts and issues those that are due.",
)
nightly = dg.define_asset_job(
    "nightly",
    PROOF,
    description="Proves everything that is kept; it reads, and runs beside the others.",
)
provider = dg.define_asset_job(
    "provider",
    PROVIDER,
    description="Compares usage with the billing provider's; it adds what it fetched, and runs beside the others.",
)

weekly = dg.define_asset_job(
    "weekly",
    REBUILT,
    description="Builds a sample of days anew and compares them row for row; it reads, and runs beside the others.",
)

jobs = [catalog, hourly, late_arrivals, drafts, billing, nightly, weekly, provider]
