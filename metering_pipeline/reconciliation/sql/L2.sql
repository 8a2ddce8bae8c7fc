-- L2: accepted rows of current file versions = owned + duplicates + conflicts + voids, per landing hour and tenant.
with
landed as (
    select
        events.landed_hour,
        events.tenant_id,
        count(*) as landed
    from landing.usage_events as events
    where
        events.landed_hour >= %(window_start)s and events.landed_hour < %(window_end)s
        and events.file_id = any(array(
            select files.file_id
            from landing.files
            where
                files.landed_hour >= %(window_start)s and files.landed_hour < %(window_end)s
                and files.superseded_by is null
        ))
    group by events.landed_hour, events.tenant_id
),

owned as (
    select
        landed_hour,
        tenant_id,
        count(*) as owned
    from ledger.usage_events
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    group by landed_hour, tenant_id
),

duplicates as (
    select
        landed_hour,
        tenant_id,
        count(*) as duplicates
    from ledger.duplicates
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    group by landed_hour, tenant_id
),

conflicts as (
    select
        landed_hour,
        tenant_id,
        count(*) as conflicts
    from ledger.conflicts
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    group by landed_hour, tenant_id
),

voids as (
    select
        landed_hour,
        tenant_id,
        count(*) as voids
    from ledger.voids
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    group by landed_hour, tenant_id
),

compared as (
    select
        landed_hour,
        tenant_id,
        coalesce(landed.landed, 0) as landed,
        coalesce(owned.owned, 0) as owned,
        coalesce(duplicates.duplicates, 0) as duplicates,
        coalesce(conflicts.conflicts, 0) as conflicts,
        coalesce(voids.voids, 0) as voids
    from landed
    full outer join owned using (landed_hour, tenant_id)
    full outer join duplicates using (landed_hour, tenant_id)
    full outer join conflicts using (landed_hour, tenant_id)
    full outer join voids using (landed_hour, tenant_id)
),

judged as materialized (
    select
        *,
        landed = owned + duplicates + conflicts + voids as passed
    from compared
),

windows as (
    select landed_hour from judged
    union
    select landed_hour
    from landing.files
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    union
    select window_start
    from reconciliation.law_results
    where law = 'L2' and window_start >= %(window_start)s and window_start < %(window_end)s
),

results as (
    select
        landed_hour,
        null::text as tenant_id,
        coalesce(bool_and(judged.passed), true) as passed,
        jsonb_build_object(
            'landed', coalesce(sum(judged.landed), 0),
            'owned', coalesce(sum(judged.owned), 0),
            'duplicates', coalesce(sum(judged.duplicates), 0),
            'conflicts', coalesce(sum(judged.conflicts), 0),
            'voids', coalesce(sum(judged.voids), 0),
            'failing_tenants', count(*) filter (where not judged.passed)
        ) as figures
    from windows
    left join judged using (landed_hour)
    group by landed_hour
    union all
    select
        landed_hour,
        tenant_id,
        false as passed,
        jsonb_build_object(
            'landed', landed,
            'owned', owned,
            'duplicates', duplicates,
            'conflicts', conflicts,
            'voids', voids,
            'difference', owned + duplicates + conflicts + voids - landed
        ) as figures
    from judged
    where not passed
)

select
    landed_hour as window_start,
    landed_hour + interval '1 hour' as window_end,
    tenant_id,
    passed,
    figures::text as figures
from results
order by landed_hour, tenant_id nulls first
