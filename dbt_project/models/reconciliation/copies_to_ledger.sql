-- Each landed copy of an event against the row that the ledger made of it, by file and line. The hashes are
-- computed anew. A further copy whose owner says otherwise than it must differs in its kind.

{%- set compared = [
    'kind', 'tenant_id', 'event_type', 'occurred_at', 'correlation_id', 'fingerprint', 'payload_hash', 'quantity',
    'properties',
] %}

with sides as (
    select
        events.landed_hour,
        events.file_id,
        events.line_number,
        false as is_posted,
        case when events.void then 'void' else 'event' end as kind,
        null as posted_as,
        events.tenant_id,
        events.event_type,
        events.occurred_at,
        events.correlation_id,
        {{ fingerprint('events') }}::text as fingerprint,
        {{ payload_hash('events') }}::text as payload_hash,
        events.quantity,
        events.properties::jsonb::text as properties
    from {{ source('landing', 'usage_events') }} as events
    inner join {{ source('landing', 'files') }} as files on events.file_id = files.file_id
    where files.superseded_by is null
    {%- for relation, posted_as, kind in [
        (ref('usage_events'), 'owned', "'event'"),
        (source('ledger', 'duplicates'), 'duplicate', "case
            when posted.kind = 'event' and exists (
                select 1
                from ledger.usage_events as owners
                where
                    owners.occurred_at = posted.occurred_at
                    and owners.fingerprint = posted.fingerprint
                    and owners.payload_hash = posted.payload_hash
            ) then 'event'
            when posted.kind = 'void' and exists (
                select 1
                from ledger.voids as owners
                where owners.occurred_at = posted.occurred_at and owners.fingerprint = posted.fingerprint
            ) then 'void'
            else 'no duplicate'
        end"),
        (source('ledger', 'conflicts'), 'conflict', "case
            when exists (
                select 1
                from ledger.usage_events as owners
                where
                    owners.occurred_at = posted.occurred_at
                    and owners.fingerprint = posted.fingerprint
                    and owners.payload_hash <> posted.payload_hash
            ) then 'event'
            else 'no conflict'
        end"),
        (source('ledger', 'voids'), 'void', "'void'"),
    ] %}
    union all
    select
        posted.landed_hour,
        posted.file_id,
        posted.line_number,
        true as is_posted,
        {{ kind }} as kind,
        '{{ posted_as }}' as posted_as,
        posted.tenant_id,
        posted.event_type,
        posted.occurred_at,
        posted.correlation_id,
        posted.fingerprint::text as fingerprint,
        posted.payload_hash::text as payload_hash,
        posted.quantity,
        posted.properties::text as properties
    from {{ relation }} as posted
    {%- endfor %}
),

compared as (
    select
        landed_hour,
        file_id,
        line_number,
        coalesce(min(tenant_id) filter (where not is_posted), min(tenant_id)) as tenant_id,
        coalesce(min(event_type) filter (where not is_posted), min(event_type)) as event_type,
        coalesce(min(occurred_at) filter (where not is_posted), min(occurred_at)) as occurred_at,
        coalesce(min(correlation_id) filter (where not is_posted), min(correlation_id)) as correlation_id,
        string_agg(posted_as, ', ' order by posted_as) as posted_as,
        count(*) filter (where not is_posted) as landed_count,
        count(*) filter (where is_posted) as posted_count,
        {{ differing_columns('is_posted', compared) }} as differs_in
    from sides
    group by landed_hour, file_id, line_number
)

select
    compared.landed_hour,
    files.file_key,
    compared.file_id,
    compared.line_number,
    compared.tenant_id,
    compared.event_type,
    compared.occurred_at,
    compared.correlation_id,
    compared.posted_as,
    compared.differs_in,
    {{ classified('compared.landed_count', 'compared.posted_count', "compared.differs_in = '{}'") }} as state
from compared
left join {{ source('landing', 'files') }} as files on compared.file_id = files.file_id
where
    compared.landed_hour not in (
        select archived.landed_hour from {{ source('landing', 'archived_hours') }} as archived
    )
