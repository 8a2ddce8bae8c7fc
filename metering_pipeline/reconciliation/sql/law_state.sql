-- Where each law stands: its windows, the red ones, the newest evaluation and a sample of what failed.
with windows as (
    select
        law,
        count(*) as windows,
        count(*) filter (where not passed) as red_windows,
        max(evaluated_at) as last_evaluated_at
    from reconciliation.current_law_results
    where tenant_id is null
    group by law
),

tenants as (
    select
        law,
        array_agg(distinct tenant_id order by tenant_id) as red_tenants
    from reconciliation.current_law_results
    where not passed and tenant_id is not null
    group by law
),

samples as (
    -- the first red window; a tenant's figures say more than the window's
    select distinct on (law)
        law,
        window_start,
        figures
    from reconciliation.current_law_results
    where not passed
    order by law, window_start, tenant_id nulls last
)

select
    windows.law,
    windows.windows,
    windows.red_windows,
    coalesce(tenants.red_tenants, '{}') as red_tenants,
    windows.last_evaluated_at,
    samples.window_start,
    samples.figures
from windows
left join tenants using (law)
left join samples using (law)
order by windows.law
