-- The newest evaluation of each law for a window that starts at an instant, the failing tenants included.
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
    window_start = %(window_start)s
    and window_end = %(window_end)s
    and law = coalesce(%(law)s, law)
order by law, tenant_id nulls first
