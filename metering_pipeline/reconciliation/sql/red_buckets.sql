-- The tenants in whose rollups L3 found differing buckets, by the newest evaluation of each window.
select
    law,
    window_start,
    window_end,
    tenant_id,
    passed,
    figures,
    evaluated_at
from reconciliation.current_law_results
where
    law = 'L3'
    and tenant_id is not null
    and not passed
    and figures ?| array['ledger_to_contributions', 'contributions_to_hourly', 'hourly_to_daily']
order by window_start, window_end, tenant_id
