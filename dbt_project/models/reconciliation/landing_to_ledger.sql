-- What was landed against what was posted, by landing hour and tenant. The content is compared by a hash of
-- each row's own columns, so that a row changed behind the pipeline's back shows as modified.

with landed as (
    select
        events.landed_hour,
        events.tenant_id,
        count(*) as landed_count,
        sum(events.quantity) as landed_quantity,
        sum({{ content_hash('events') }}) as landed_content
    from {{ source('landing', 'usage_events') }} as events
    inner join {{ source('landing', 'files') }} as files on events.file_id = files.file_id
    where files.superseded_by is null
    group by events.landed_hour, events.tenant_id
),

posted_rows as (
    {% for relation, kind in [
        (ref('usage_events'), 'owned'),
        (source('ledger', 'duplicates'), 'duplicate'),
        (source('ledger', 'conflicts'), 'conflict'),
        (source('ledger', 'voids'), 'void'),
    ] -%}
    {% if not loop.first %}union all
    {% endif -%}
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        quantity,
        properties,
        '{{ kind }}' as kind
    from {{ relation }}
    {% endfor %}
),

posted as (
    select
        posted_rows.landed_hour,
        posted_rows.tenant_id,
        count(*) filter (where posted_rows.kind = 'owned') as owned_count,
        count(*) filter (where posted_rows.kind = 'duplicate') as duplicate_count,
        count(*) filter (where posted_rows.kind = 'conflict') as conflict_count,
        count(*) filter (where posted_rows.kind = 'void') as void_count,
        count(*) as posted_count,
        sum(posted_rows.quantity) as posted_quantity,
        sum({{ content_hash('posted_rows') }}) as posted_content
    from posted_rows
    group by posted_rows.landed_hour, posted_rows.tenant_id
)

select
    coalesce(landed.landed_hour, posted.landed_hour) as landed_hour,
    coalesce(landed.tenant_id, posted.tenant_id) as tenant_id,
    coalesce(landed.landed_count, 0) as landed_count,
    coalesce(posted.owned_count, 0) as owned_count,
    coalesce(posted.duplicate_count, 0) as duplicate_count,
    coalesce(posted.conflict_count, 0) as conflict_count,
    coalesce(posted.void_count, 0) as void_count,
    coalesce(landed.landed_quantity, 0) as landed_quantity,
    coalesce(posted.posted_quantity, 0) as posted_quantity,
    {{ classified(
        'landed.landed_count', 'posted.posted_count', 'landed.landed_content = posted.posted_content'
    ) }} as state
from landed
full outer join posted
    on landed.landed_hour = posted.landed_hour and landed.tenant_id = posted.tenant_id
