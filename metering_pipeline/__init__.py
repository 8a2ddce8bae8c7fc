"""Usage metering that can be trusted with invoices."""

import warnings

# Dagster says of partitioned checks and single-run backfills that they are young: said in every process
# that loads the definitions, it buries what matters.
warnings.filterwarnings("ignore", message=".*currently in (beta|preview)")
