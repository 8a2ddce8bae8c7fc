{{ config(materialized='table_function', meta={
    'requires': [whole_hour('landed_hour')],
    'guards': ["ledger.require_days('{}', array[(given_landed_hour at time zone 'UTC')::date])"],
}) }}

-- From a landing hour in which L3 fails, or a row of ledger_to_rollups, to the buckets: what the ledger says that the
-- hour contributed to each hour of usage, against what stands. Keys that are pending are a debt, and left out.

with signed as (
    select
        events.landed_hour as booked_hour,
        1 as sign,
        events.*
    from {{ ref('usage_events') }} as events
    where events.landed_hour = given_landed_hour
    union all
    select
        greatest(events.landed_hour, voids.landed_hour) as booked_hour,
        -1 as sign,
        events.*
    from {{ source('ledger', 'voids') }} as voids
    inner join {{ ref('usage_events') }} as events
        on voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
    where greatest(events.landed_hour, voids.landed_hour) = given_landed_hour
),

metered as (
    {{ metric_events('signed') }}
),

booked as (
    select
        tenant_id,
        metric,
        {{ hour_of('occurred_at') }} as hour,
        dimensions,
        min(event_type) as event_type,
        sum(sign) as event_count,
        sum(sign * value) as value_sum,
        {{ signed_digest('fingerprint') }} as event_digest,
        {{ signed_digest('payload_hash') }} as payload_digest
    from metered
    where unreadable is null
    group by tenant_id, metric, {{ hour_of('occurred_at') }}, dimensions
),

contributed as (
    select *
    from {{ ref('usage_contributions') }}
    where landed_hour = given_landed_hour
),

compared as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        coalesce(booked.event_type, contributed.event_type) as event_type,
        coalesce(booked.event_count, 0) as ledger_count,
        coalesce(booked.value_sum, 0) as ledger_sum,
        coalesce(booked.event_digest, 0) as ledger_digest,
        coalesce(contributed.event_count, 0) as contributed_count,
        coalesce(contributed.value_sum, 0) as contributed_sum,
        coalesce(contributed.event_digest, 0) as contributed_digest,
        {{ classified(
            'booked.event_count',
            'contributed.event_count',
            '(booked.value_sum, booked.event_digest, booked.payload_digest)
                = (contributed.value_sum, contributed.event_digest, contributed.payload_digest)'
        ) }} as state
    from booked
    full join contributed using (tenant_id, metric, hour, dimensions)
)

select
    tenant_id,
    metric,
    hour,
    dimensions,
    ledger_count,
    contributed_count,
    ledger_sum,
    contributed_sum,
    ledger_digest,
    contributed_digest,
    state
from compared
where
    state <> 'identical'
    and not exists (
        select 1
        from {{ source('ledger', 'pending') }} as pending
        where
            pending.landed_hour = given_landed_hour
            and pending.tenant_id = compared.tenant_id
            and pending.event_type = compared.event_type
            and pending.event_hour = compared.hour
    )
order by tenant_id, metric, hour, dimensions
