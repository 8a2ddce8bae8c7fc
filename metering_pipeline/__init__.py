"""Usage metering that can be trusted with invoices."""

import gc
import warnings

STAGES = ("landing", "ledger", "rollups", "rating", "invoices", "reconciliation")
"""In the order in which the data flows."""

# Dagster says of partitioned checks and single-run backfills that they are young: said in every process
# that loads the definitions, it buries what matters.
warnings.filterwarnings("ignore", message=".*currently in (beta|preview)")

# Dagster's and dbt's imports, and the parsed project, are very many objects that all stay. Looked through after
# every 700 of them, in vain, they cost a quarter of a start: more than a second of CPU.
gc.set_threshold(50_000)
