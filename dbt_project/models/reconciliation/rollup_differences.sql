{{ config(materialized='table_function', meta={
    'requires': [whole_hour('landed_hour')],
    'guards': ["ledger.require_days('{}', array[(given_landed_hour at time zone 'UTC')::date])"],
}) }}

-- From a landing hour in which L3 fails to the buckets: what the ledger says that the hour contributed to each hour
-- of usage, against what stands. What is pending is a debt, and left out.

select
    tenant_id,
    metric,
    hour,
    dimensions,
    ledger_count,
    contributed_count,
    ledger_sum,
    contributed_sum,
    state
from {{ ref('ledger_to_rollups') }}
where
    landed_hour = given_landed_hour
    and state <> 'identical'
    and not is_pending
order by tenant_id, metric, hour, dimensions
