-- What was counted when a file version was landed against the rows that are there, file by file; without
-- those whose rows are archived.

with sides as (
    select
        landed_hour,
        file_id,
        file_key,
        accepted_count,
        rejected_count,
        0 as accepted_found,
        0 as rejected_found
    from {{ source('landing', 'files') }}
    union all
    select
        landed_hour,
        file_id,
        null as file_key,
        0 as accepted_count,
        0 as rejected_count,
        count(*) as accepted_found,
        0 as rejected_found
    from {{ source('landing', 'usage_events') }}
    group by landed_hour, file_id
    union all
    select
        landed_hour,
        file_id,
        null as file_key,
        0 as accepted_count,
        0 as rejected_count,
        0 as accepted_found,
        count(*) as rejected_found
    from {{ source('landing', 'rejected_events') }}
    group by landed_hour, file_id
),

compared as (
    select
        landed_hour,
        file_id,
        coalesce(max(file_key), '(no such file in this hour)') as file_key,
        sum(accepted_count)::bigint as accepted_count,
        sum(accepted_found)::bigint as accepted_found,
        sum(rejected_count)::bigint as rejected_count,
        sum(rejected_found)::bigint as rejected_found
    from sides
    group by landed_hour, file_id
)

select
    *,
    {{ classified(
        'accepted_count + rejected_count', 'accepted_found + rejected_found', 'accepted_count = accepted_found'
    ) }} as state
from compared
where landed_hour not in (select archived.landed_hour from {{ source('landing', 'archived_hours') }} as archived)
