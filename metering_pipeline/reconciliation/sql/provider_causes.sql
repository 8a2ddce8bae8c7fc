-- Why a source's usage differs from ours, the largest cause of a period first.
select
    tenant_id,
    customer,
    metric,
    meter,
    period_start,
    cause,
    amount,
    detail
from reconciliation.provider_differences(%(source)s)
order by tenant_id, metric, period_start, abs(amount) desc, cause
