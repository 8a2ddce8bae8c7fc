{{ config(materialized='table_function', meta={'requires': [{
    'condition': 'given_starts_at <= given_ends_at',
    'otherwise': "'The span must not end before it starts: give two instants, the earlier one first.'",
}], 'guards': [ledger_has_span()]}) }}

-- Every record with a correlation id that landed for a tenant and occurred in a span of instants, and what became
-- of it. A span of one microsecond is found by the ledger's key, a longer one is read through, day by day.

with wanted as (
    select distinct
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        fingerprint
    from (
        {% for table in ['usage_events', 'duplicates', 'conflicts', 'voids', 'withdrawn'] -%}
        select
            tenant_id,
            event_type,
            occurred_at,
            correlation_id,
            fingerprint
        from ledger.{{ table }}
        where
            tenant_id = given_tenant_id
            and correlation_id = given_correlation_id
            and occurred_at >= given_starts_at
            and occurred_at < given_ends_at
        {{ 'union all' if not loop.last }}
        {% endfor %}
    ) as found
),

copies as (
    {{ all_copies('wanted') }}
),

-- Depends on {{ ref('usage_events') }}. Landed, but not posted yet:
waiting as (
    select
        case when raw.void then 'void' else 'event' end as kind,
        'not_posted' as stands_as,
        raw.tenant_id,
        raw.event_type,
        raw.occurred_at,
        raw.correlation_id,
        {{ fingerprint('raw') }} as fingerprint,
        {{ payload_hash('raw') }} as payload_hash,
        trim_scale(raw.quantity) as quantity,
        raw.properties::jsonb as properties,
        raw.landed_hour,
        raw.file_id,
        raw.line_number
    from {{ source('landing', 'hours') }} as hours
    inner join {{ source('landing', 'usage_events') }} as raw on hours.landed_hour = raw.landed_hour
    where
        hours.landed_at is not null
        and hours.posted_at is null
        and raw.tenant_id = given_tenant_id
        and raw.correlation_id = given_correlation_id
        and raw.occurred_at >= given_starts_at
        and raw.occurred_at < given_ends_at
),

everywhere as (
    select * from copies
    union all
    select
        waiting.*,
        files.file_key,
        files.landed_at,
        null
    from waiting
    inner join {{ source('landing', 'files') }} as files
        on waiting.file_id = files.file_id and files.superseded_by is null
    where not exists (
        select 1
        from copies
        where copies.file_id = waiting.file_id and copies.line_number = waiting.line_number
    )
)

select
    everywhere.event_type,
    everywhere.occurred_at,
    everywhere.fingerprint,
    everywhere.kind,
    case
        when everywhere.stands_as is null then 'superseded'
        when everywhere.stands_as <> 'event' then everywhere.stands_as
        when exists (
            select 1
            from {{ source('ledger', 'voids') }} as voids
            where voids.occurred_at = everywhere.occurred_at and voids.fingerprint = everywhere.fingerprint
        ) then 'voided'
        else 'counted'
    end as state,
    suspects.first_occurred_at,
    everywhere.payload_hash,
    everywhere.quantity,
    everywhere.properties,
    everywhere.landed_hour,
    everywhere.file_key,
    everywhere.line_number,
    everywhere.known_from,
    everywhere.known_until
from everywhere
left join {{ ref('suspects') }} as suspects
    on everywhere.occurred_at = suspects.occurred_at and everywhere.fingerprint = suspects.fingerprint
order by everywhere.occurred_at, everywhere.fingerprint, everywhere.known_from, everywhere.landed_hour,
    everywhere.file_key, everywhere.line_number
