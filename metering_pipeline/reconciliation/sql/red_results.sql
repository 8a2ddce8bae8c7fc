-- The first failing rows of each law, by the newest evaluation of each window; a tenant's rather than the window's.
with failing as (
    select
        results.*,
        row_number() over (partition by results.law order by results.window_start, results.tenant_id) as place
    from reconciliation.current_law_results as results
    where
        not results.passed
        and (
            results.tenant_id is not null
            or not exists (
                select 1
                from reconciliation.law_results as tenants
                where
                    tenants.evaluation_id = results.evaluation_id
                    and tenants.window_start = results.window_start
                    and tenants.window_end = results.window_end
                    and tenants.tenant_id is not null
            )
        )
)

select
    law,
    window_start,
    window_end,
    tenant_id,
    passed,
    figures,
    evaluated_at
from failing
where place <= %(shown)s
order by law, place
