{{ config(materialized='view') }}

-- Usage as the ledger knows it at this moment: clean buckets from the hourly rollup, buckets with a debt
-- (pending, or touched and not yet merged) read from the ledger.
-- Depends on {{ source('ledger', 'pending') }} and {{ source('catalog', 'metrics') }}.

with indebted as (
    select
        tenant_id,
        event_type,
        event_hour as hour
    from ledger.pending
    union
    select
        touched_buckets.tenant_id,
        metrics.event_type,
        touched_buckets.hour
    from rollups.touched_buckets
    inner join catalog.metrics on touched_buckets.metric = metrics.metric
),

standing as (
    select
        events.*,
        1 as sign
    from indebted
    inner join {{ ref('usage_events') }} as events
        on indebted.tenant_id = events.tenant_id
            and indebted.event_type = events.event_type
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
left join catalog.metrics on hours.metric = metrics.metric
where not exists (
    select 1
    from indebted
    where
        indebted.tenant_id = hours.tenant_id
        and indebted.event_type = metrics.event_type
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
