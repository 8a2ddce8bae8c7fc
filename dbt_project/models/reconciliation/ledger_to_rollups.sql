-- What the ledger says that each landing hour contributed to each bucket against the contributions that stand. A key
-- that is pending is a debt and no difference. A landing hour of which events are archived is left out.

-- A void takes its event back in the later of their two landing hours; one branch for each of the two, so that a
-- window of landing hours reaches the tables.
with signed as (
    select
        events.landed_hour as booked_hour,
        1 as sign,
        events.*
    from {{ ref('usage_events') }} as events
    union all
    select
        voids.landed_hour as booked_hour,
        -1 as sign,
        events.*
    from {{ source('ledger', 'voids') }} as voids
    inner join {{ ref('usage_events') }} as events
        on voids.occurred_at = events.occurred_at
            and voids.fingerprint = events.fingerprint
            and voids.landed_hour >= events.landed_hour
    union all
    select
        events.landed_hour as booked_hour,
        -1 as sign,
        events.*
    from {{ ref('usage_events') }} as events
    inner join {{ source('ledger', 'voids') }} as voids
        on events.occurred_at = voids.occurred_at
            and events.fingerprint = voids.fingerprint
            and events.landed_hour > voids.landed_hour
),

metered as (
    {{ metric_events('signed') }}
),

sides as (
    select
        booked_hour as landed_hour,
        tenant_id,
        metric,
        {{ hour_of('occurred_at') }} as hour,
        dimensions,
        event_type,
        false as is_contributed,
        {{ bucket_figures() }}
    from metered
    where unreadable is null
    group by booked_hour, tenant_id, metric, {{ hour_of('occurred_at') }}, dimensions, event_type
    union all
    select
        landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        event_type,
        true as is_contributed,
        event_count,
        voided_count,
        value_sum,
        value_moment,
        value_min,
        value_max,
        value_latest,
        latest_at,
        latest_fingerprint,
        event_digest,
        payload_digest
    from {{ ref('usage_contributions') }}
),

compared as (
    select
        landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        min(event_type) as event_type,
        coalesce(sum(event_count) filter (where not is_contributed), 0)::bigint as ledger_count,
        coalesce(sum(event_count) filter (where is_contributed), 0)::bigint as contributed_count,
        coalesce(sum(value_sum) filter (where not is_contributed), 0) as ledger_sum,
        coalesce(sum(value_sum) filter (where is_contributed), 0) as contributed_sum,
        {{ differing_columns('is_contributed', [
            'event_count', 'voided_count', 'value_sum', 'value_moment', 'value_min', 'value_max', 'event_digest',
            'payload_digest',
        ]) }} as differs_in
    from sides
    group by landed_hour, tenant_id, metric, hour, dimensions
)

select
    landed_hour,
    tenant_id,
    metric,
    hour,
    dimensions,
    ledger_count,
    contributed_count,
    ledger_sum,
    contributed_sum,
    differs_in,
    exists(
        select 1
        from {{ source('ledger', 'pending') }} as pending
        where
            pending.landed_hour = compared.landed_hour
            and pending.tenant_id = compared.tenant_id
            and pending.event_type = compared.event_type
            and pending.event_hour = compared.hour
    ) as is_pending,
    {{ classified('ledger_count', 'contributed_count', "differs_in = '{}'") }} as state
from compared
where not exists (
    select 1
    from {{ source('ledger', 'archived_days') }} as archived
    where (compared.landed_hour at time zone 'UTC')::date = any(archived.landed_days)
)
