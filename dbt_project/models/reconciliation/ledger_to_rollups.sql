-- What the ledger says that each landing hour contributed against what stands in the contributions, by landing
-- hour, tenant and metric. Keys that are pending are a debt and no difference: they are counted beside it.

with signed as (
    select
        events.landed_hour as booked_hour,
        1 as sign,
        events.*
    from {{ ref('usage_events') }} as events
    union all
    select
        greatest(events.landed_hour, voids.landed_hour) as booked_hour,
        -1 as sign,
        events.*
    from {{ source('ledger', 'voids') }} as voids
    inner join {{ ref('usage_events') }} as events
        on voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
),

metered as (
    {{ metric_events('signed') }}
),

booked as (
    select
        booked_hour as landed_hour,
        tenant_id,
        metric,
        sum(sign) as ledger_count,
        sum(sign * value) as ledger_sum,
        sum(sign * {{ digest_term('fingerprint') }}) as ledger_digest
    from metered
    where unreadable is null
    group by booked_hour, tenant_id, metric
),

contributed as (
    select
        landed_hour,
        tenant_id,
        metric,
        sum(event_count) as contributed_count,
        sum(value_sum) as contributed_sum,
        sum(event_digest) as contributed_digest
    from {{ ref('usage_contributions') }}
    group by landed_hour, tenant_id, metric
),

pending as (
    select
        pending.landed_hour,
        pending.tenant_id,
        metrics.metric,
        count(*) as pending_keys
    from {{ source('ledger', 'pending') }} as pending
    inner join {{ source('catalog', 'metrics') }} as metrics on pending.event_type = metrics.event_type
    group by pending.landed_hour, pending.tenant_id, metrics.metric
),

compared as (
    select
        coalesce(booked.landed_hour, contributed.landed_hour) as landed_hour,
        coalesce(booked.tenant_id, contributed.tenant_id) as tenant_id,
        coalesce(booked.metric, contributed.metric) as metric,
        coalesce(booked.ledger_count, 0) as ledger_count,
        coalesce(contributed.contributed_count, 0) as contributed_count,
        coalesce(booked.ledger_sum, 0) as ledger_sum,
        coalesce(contributed.contributed_sum, 0) as contributed_sum,
        {{ classified(
            'booked.ledger_count',
            'contributed.contributed_count',
            'booked.ledger_sum = contributed.contributed_sum and booked.ledger_digest = contributed.contributed_digest'
        ) }} as state
    from booked
    full outer join contributed
        on booked.landed_hour = contributed.landed_hour
            and booked.tenant_id = contributed.tenant_id
            and booked.metric = contributed.metric
)

select
    compared.landed_hour,
    compared.tenant_id,
    compared.metric,
    compared.ledger_count,
    compared.contributed_count,
    compared.ledger_sum,
    compared.contributed_sum,
    coalesce(pending.pending_keys, 0) as pending_keys,
    compared.state
from compared
left join pending
    on compared.landed_hour = pending.landed_hour
        and compared.tenant_id = pending.tenant_id
        and compared.metric = pending.metric
