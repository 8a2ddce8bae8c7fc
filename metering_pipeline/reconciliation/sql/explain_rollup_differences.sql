-- The rows of reconciliation.rollup_differences, of one tenant or all.
select *
from reconciliation.rollup_differences(%(window_start)s)
where tenant_id = coalesce(%(tenant_id)s, tenant_id) or tenant_id is null
limit %(at_most)s
