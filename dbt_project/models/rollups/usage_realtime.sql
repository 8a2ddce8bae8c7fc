{{ config(materialized='view') }}

-- Usage as the ledger knows it at this moment: clean buckets from the hourly rollup, buckets with a debt
-- (pending, or touched and not yet merged) read from the ledger.
-- Depends on {{ source('ledger', 'pending') }} and {{ source('catalog', 'metrics') }}.

-- A tenant's hour with any debt is read as a whole: a metric may have come to read another event type.
with indebted as (
    select
        tenant_id,
        event_hour as hour
    from ledger.pending
    union
    select
        tenant_id,
        hour
    from rollups.touched_buckets
),

standing as (
    select
        events.*,
        1 as sign
    from indebted
    inner join {{ ref('usage_events') }} as events
        on indebted.tenant_id = events.tenant_id
            and indebted.hour <= events.occurred_at
            and events.occurred_at < indebted.hour + interval '1 hour'
    where not exists (
        select 1
        from ledger.voids
        where voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
    )
),

metered as (
    {{ metric_events('standing') }}
),

from_ledger as (
    select
        tenant_id,
        metric,
        {{ hour_of('occurred_at') }} as hour,
        dimensions,
        {{ bucket_figures() }}
    from metered
    where unreadable is null
    group by tenant_id, metric, {{ hour_of('occurred_at') }}, dimensions
)

select
    hours.tenant_id,
    hours.metric,
    hours.hour,
    hours.dimensions,
    {{ figure_columns() }}
from {{ ref('usage_hourly') }} as hours
where not exists (
    select 1
    from indebted
    where
        indebted.tenant_id = hours.tenant_id
        and indebted.hour = hours.hour
)
union all
select
    tenant_id,
    metric,
    hour,
    dimensions,
    {{ figure_columns() }}
from from_ledger
