-- When a source was asked last, and how its newest word compares with ours. Customers who are nobody's count.
select
    (
        select max(fetches.fetched_at)
        from reconciliation.provider_fetches as fetches
        where fetches.source = %(source)s
    ) as fetched_at,
    count(*) as periods,
    count(*) filter (where is_beyond) as beyond,
    count(*) filter (where state = 'within threshold') as within_threshold,
    array_agg(distinct coalesce(tenant_id, 'customer ' || customer)) filter (where is_beyond) as tenants
from reconciliation.provider_periods
where source = %(source)s
