-- A source's usage against ours by tenant, metric and period: the largest differences first.
select
    tenant_id,
    customer,
    metric,
    meter,
    period_start,
    period_end,
    theirs,
    ours,
    difference,
    difference_percent,
    state,
    is_beyond
from reconciliation.provider_periods
where source = %(source)s
order by is_beyond desc, difference_percent desc, abs(difference) desc, tenant_id, metric, customer, meter, period_start
