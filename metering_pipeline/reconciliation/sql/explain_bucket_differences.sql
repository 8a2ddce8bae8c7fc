-- The rows of reconciliation.bucket_differences, of one tenant or all.
select *
from reconciliation.bucket_differences(%(day)s)
where tenant_id = coalesce(%(tenant_id)s, tenant_id) or tenant_id is null
limit %(at_most)s
