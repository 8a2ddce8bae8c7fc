-- The rows of reconciliation.landing_differences, of one tenant or all.
select *
from reconciliation.landing_differences(%(window_start)s)
where tenant_id = coalesce(%(tenant_id)s, tenant_id) or tenant_id is null
limit %(at_most)s
