"""Usage metering that can be trusted with invoices."""

import warnings

STAGES = ("landing", "ledger", "rollups", "rating", "invoices", "reconciliation")
"""In the order in which the data flows."""

# Dagster says of partitioned checks and single-run backfills that they are young: said in every process
# that loads the definitions, it buries what matters.
warnings.filterwarnings("ignore", message=".*currently in (beta|preview)")
