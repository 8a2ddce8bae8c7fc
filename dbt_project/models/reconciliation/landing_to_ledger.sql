-- What was landed against what was posted, by landing hour and tenant. The content is compared by a hash of
-- each row's own columns, so that a row changed behind the pipeline's back shows as modified.

with landed as (
    select
        events.landed_hour,
        events.tenant_id,
        'landed' as kind,
        count(*) as row_count,
        sum(events.quantity) as quantity,
        sum({{ content_hash('events') }}) as content
    from {{ source('landing', 'usage_events') }} as events
    inner join {{ source('landing', 'files') }} as files on events.file_id = files.file_id
    where files.superseded_by is null
    group by events.landed_hour, events.tenant_id
),

-- no full join: a window must reach both sides
sides as (
    select * from landed
    {%- for relation, kind in [
        (ref('usage_events'), 'owned'),
        (source('ledger', 'duplicates'), 'duplicate'),
        (source('ledger', 'conflicts'), 'conflict'),
        (source('ledger', 'voids'), 'void'),
    ] %}
    union all
    select
        landed_hour,
        tenant_id,
        '{{ kind }}' as kind,
        count(*) as row_count,
        sum(quantity) as quantity,
        sum({{ content_hash('posted') }}) as content
    from {{ relation }} as posted
    group by landed_hour, tenant_id
    {%- endfor %}
),

compared as (
    select
        landed_hour,
        tenant_id,
        coalesce(sum(row_count) filter (where kind = 'landed'), 0)::bigint as landed_count,
        coalesce(sum(row_count) filter (where kind = 'owned'), 0)::bigint as owned_count,
        coalesce(sum(row_count) filter (where kind = 'duplicate'), 0)::bigint as duplicate_count,
        coalesce(sum(row_count) filter (where kind = 'conflict'), 0)::bigint as conflict_count,
        coalesce(sum(row_count) filter (where kind = 'void'), 0)::bigint as void_count,
        coalesce(sum(row_count) filter (where kind <> 'landed'), 0)::bigint as posted_count,
        coalesce(sum(quantity) filter (where kind = 'landed'), 0) as landed_quantity,
        coalesce(sum(quantity) filter (where kind <> 'landed'), 0) as posted_quantity,
        sum(content) filter (where kind = 'landed') = sum(content) filter (where kind <> 'landed') as same_content
    from sides
    group by landed_hour, tenant_id
)

select
    landed_hour,
    tenant_id,
    landed_count,
    owned_count,
    duplicate_count,
    conflict_count,
    void_count,
    landed_quantity,
    posted_quantity,
    {{ classified('landed_count', 'posted_count', 'same_content') }} as state
from compared
where landed_hour not in (select archived.landed_hour from {{ source('landing', 'archived_hours') }} as archived)
