-- Drafts that a failed law concerns, law by law, from the newest evaluation of each window.
with failed as materialized (
    select
        law,
        window_start,
        window_end,
        tenant_id,
        figures
    from reconciliation.current_law_results
    where not passed
),

-- L1 to L3: the tenants that failed in a landing hour; where none is known, all that have rows in it.
failed_hours as materialized (
    select *
    from failed
    where law in ('L1', 'L2', 'L3') and window_end = window_start + interval '1 hour'
),

hours_without_tenant as materialized (
    select
        law,
        window_start,
        window_end
    from failed_hours
    where
        tenant_id is null
        and (
            coalesce((figures ->> 'files_without_known_tenants')::bigint, 0) > 0
            or not exists (
                select 1
                from failed_hours as known
                where
                    known.law = failed_hours.law
                    and known.window_start = failed_hours.window_start
                    and known.tenant_id is not null
            )
        )
),

rows_of_hours as (
    select
        landed_hour,
        tenant_id
    from landing.usage_events
    where landed_hour in (select hours_without_tenant.window_start from hours_without_tenant)
    union
    select
        landed_hour,
        tenant_id
    from ledger.usage_events
    where landed_hour in (select hours_without_tenant.window_start from hours_without_tenant)
    union
    select
        landed_hour,
        tenant_id
    from rollups.usage_contributions
    where landed_hour in (select hours_without_tenant.window_start from hours_without_tenant)
),

concerned_in_hours as (
    select
        law,
        window_start,
        window_end,
        tenant_id
    from failed_hours
    where tenant_id is not null
    union
    select
        hours.law,
        hours.window_start,
        hours.window_end,
        rows_of_hours.tenant_id
    from hours_without_tenant as hours
    inner join rows_of_hours on hours.window_start = rows_of_hours.landed_hour
),

broken_series as (
    select distinct
        failed.window_start,
        names.series
    from failed
    cross join lateral jsonb_array_elements_text(failed.figures -> 'broken_series') as names (series)
    where failed.law = 'L5' and failed.tenant_id is null
),

concerned as (
    select
        due_drafts.draft_id,
        hours.law,
        hours.window_start,
        'YYYY-MM-DD"T"HH24' as window_format
    from due_drafts
    inner join concerned_in_hours as hours
        on due_drafts.tenant_id = hours.tenant_id
            and due_drafts.first_landing_hour <= hours.window_start
    where due_drafts.bears_usage
    union
    select
        due_drafts.draft_id,
        failed.law,
        failed.window_start,
        case failed.law when 'L4' then 'YYYY-MM' else 'YYYY-MM-DD' end as window_format
    from due_drafts
    inner join failed
        on due_drafts.tenant_id = failed.tenant_id
            and due_drafts.usage_start < failed.window_end
            and due_drafts.usage_end > failed.window_start
    where
        due_drafts.bears_usage
        -- by usage, not by landing: a month of L4, a day of L3
        and (failed.law = 'L4' or (failed.law = 'L3' and failed.window_end > failed.window_start + interval '1 hour'))
    union
    -- what is due is reckoned from what was issued, so a faulty document holds every further one
    select
        due_drafts.draft_id,
        failed.law,
        failed.window_start,
        'YYYY-MM-DD' as window_format
    from due_drafts
    inner join failed on due_drafts.tenant_id = failed.tenant_id
    where failed.law = 'L5'
    union
    select
        due_drafts.draft_id,
        'L5' as law,
        broken_series.window_start,
        'YYYY-MM-DD' as window_format
    from due_drafts
    inner join catalog.legal_entities using (legal_entity)
    inner join broken_series on legal_entities.series = broken_series.series
)

select
    draft_id,
    law,
    array_agg(to_char(window_start at time zone 'UTC', window_format) order by window_start) as windows
from concerned
group by draft_id, law
order by draft_id, law
