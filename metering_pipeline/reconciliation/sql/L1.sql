-- L1: the records of each file version = its rows in landing + its rejected rows, per landing hour.
-- A failing file names its tenants where the ledger's copies of it explain the whole difference.
with
files as materialized (
    select
        file_id,
        file_key,
        landed_hour,
        accepted_count,
        rejected_count
    from landing.files
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
),

accepted as (
    select
        landed_hour,
        file_id,
        count(*) as found
    from landing.usage_events
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    group by landed_hour, file_id
),

rejected as (
    select
        landed_hour,
        file_id,
        count(*) as found
    from landing.rejected_events
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    group by landed_hour, file_id
),

compared as materialized (
    -- rows of a file that is not recorded, or not in this hour, are a difference too
    select
        landed_hour,
        file_id,
        coalesce(files.file_key, '(no such file in this hour)') as file_key,
        coalesce(files.accepted_count, 0) as accepted_count,
        coalesce(accepted.found, 0) as accepted_found,
        coalesce(files.rejected_count, 0) as rejected_count,
        coalesce(rejected.found, 0) as rejected_found
    from files
    full outer join accepted using (landed_hour, file_id)
    full outer join rejected using (landed_hour, file_id)
),

failing as materialized (
    select *
    from compared
    where accepted_count <> accepted_found or rejected_count <> rejected_found
),

failing_ids as materialized (
    select coalesce(array_agg(distinct file_id), '{}') as file_ids
    from failing
),

-- Read only if a file fails, and of the window's hours alone: the ledger is much larger.
landed as (
    select
        events.landed_hour,
        events.file_id,
        events.line_number,
        events.tenant_id
    from landing.usage_events as events
    where
        events.landed_hour >= %(window_start)s and events.landed_hour < %(window_end)s
        and exists (select 1 from failing)
        and events.file_id = any((select failing_ids.file_ids from failing_ids)::bigint[])
),

posted as (
    select
        landed_hour,
        file_id,
        line_number,
        tenant_id
    from ledger.usage_events
    where
        landed_hour >= %(window_start)s and landed_hour < %(window_end)s
        and exists (select 1 from failing)
        and file_id = any((select failing_ids.file_ids from failing_ids)::bigint[])
    union all
    select
        landed_hour,
        file_id,
        line_number,
        tenant_id
    from ledger.duplicates
    where
        landed_hour >= %(window_start)s and landed_hour < %(window_end)s
        and exists (select 1 from failing)
        and file_id = any((select failing_ids.file_ids from failing_ids)::bigint[])
    union all
    select
        landed_hour,
        file_id,
        line_number,
        tenant_id
    from ledger.conflicts
    where
        landed_hour >= %(window_start)s and landed_hour < %(window_end)s
        and exists (select 1 from failing)
        and file_id = any((select failing_ids.file_ids from failing_ids)::bigint[])
    union all
    select
        landed_hour,
        file_id,
        line_number,
        tenant_id
    from ledger.voids
    where
        landed_hour >= %(window_start)s and landed_hour < %(window_end)s
        and exists (select 1 from failing)
        and file_id = any((select failing_ids.file_ids from failing_ids)::bigint[])
),

odd_lines as materialized (
    select
        landed_hour,
        file_id,
        coalesce(landed.tenant_id, posted.tenant_id) as tenant_id,
        count(*) filter (where landed.tenant_id is null) as missing,
        count(*) filter (where posted.tenant_id is null) as extra
    from landed
    full outer join posted using (landed_hour, file_id, line_number)
    where landed.tenant_id is null or posted.tenant_id is null
    group by landed_hour, file_id, coalesce(landed.tenant_id, posted.tenant_id)
),

explained as (
    select
        failing.*,
        failing.rejected_count = failing.rejected_found
        and failing.accepted_count - failing.accepted_found = coalesce(lines.missing, 0) - coalesce(lines.extra, 0)
            as is_explained
    from failing
    left join (
        select
            landed_hour,
            file_id,
            sum(missing) as missing,
            sum(extra) as extra
        from odd_lines
        group by landed_hour, file_id
    ) as lines using (landed_hour, file_id)
),

windows as (
    select landed_hour from compared
    union
    select window_start
    from reconciliation.law_results
    where law = 'L1' and window_start >= %(window_start)s and window_start < %(window_end)s
),

hour_rows as (
    select
        windows.landed_hour,
        null::text as tenant_id,
        count(explained.file_id) = 0 as passed,
        jsonb_build_object(
            'files', count(compared.file_id),
            'accepted', coalesce(sum(compared.accepted_count), 0),
            'accepted_found', coalesce(sum(compared.accepted_found), 0),
            'rejected', coalesce(sum(compared.rejected_count), 0),
            'rejected_found', coalesce(sum(compared.rejected_found), 0),
            'failing_files', count(explained.file_id),
            'files_without_known_tenants', count(explained.file_id) filter (where not explained.is_explained),
            'samples', coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'file_key', explained.file_key,
                        'file_id', explained.file_id,
                        'accepted', explained.accepted_count,
                        'accepted_found', explained.accepted_found,
                        'rejected', explained.rejected_count,
                        'rejected_found', explained.rejected_found
                    )
                    order by explained.file_id
                ) filter (where explained.file_id is not null),
                '[]'
            )
        ) as figures
    from windows
    left join compared using (landed_hour)
    left join explained using (landed_hour, file_id)
    group by windows.landed_hour
),

tenant_rows as (
    select
        odd_lines.landed_hour,
        odd_lines.tenant_id,
        false as passed,
        jsonb_build_object(
            'missing', sum(odd_lines.missing),
            'extra', sum(odd_lines.extra),
            'file_keys', jsonb_agg(explained.file_key order by explained.file_id)
        ) as figures
    from odd_lines
    inner join explained using (landed_hour, file_id)
    where explained.is_explained
    group by odd_lines.landed_hour, odd_lines.tenant_id
),

results as (
    select
        landed_hour,
        tenant_id,
        passed,
        figures
    from hour_rows
    union all
    select
        landed_hour,
        tenant_id,
        passed,
        figures
    from tenant_rows
)

select
    landed_hour as window_start,
    landed_hour + interval '1 hour' as window_end,
    tenant_id,
    passed,
    figures::text as figures
from results
order by landed_hour, tenant_id nulls first
