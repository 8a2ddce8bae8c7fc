-- The hours of each UTC day of usage against the day. One that is queued is a debt and no difference.

with sides as (
    select
        tenant_id,
        metric,
        (hour at time zone 'UTC')::date as day,
        dimensions,
        false as is_daily,
        {{ merged_figures('hours') }}
    from {{ ref('usage_hourly') }} as hours
    group by tenant_id, metric, (hour at time zone 'UTC')::date, dimensions
    union all
    select
        tenant_id,
        metric,
        day,
        dimensions,
        true as is_daily,
        {{ figure_columns() }}
    from {{ ref('usage_daily') }}
),

compared as (
    select
        tenant_id,
        metric,
        day,
        dimensions,
        coalesce(sum(event_count) filter (where not is_daily), 0)::bigint as hourly_count,
        coalesce(sum(event_count) filter (where is_daily), 0)::bigint as daily_count,
        coalesce(sum(value_sum) filter (where not is_daily), 0) as hourly_sum,
        coalesce(sum(value_sum) filter (where is_daily), 0) as daily_sum,
        {{ differing_columns('is_daily', [
            'event_count', 'value_sum', 'value_moment', 'value_min', 'value_max', 'value_latest', 'latest_at',
            'latest_fingerprint::text', 'event_digest', 'payload_digest',
        ]) }} as differs_in
    from sides
    group by tenant_id, metric, day, dimensions
)

select
    tenant_id,
    metric,
    day,
    dimensions,
    hourly_count,
    daily_count,
    hourly_sum,
    daily_sum,
    differs_in,
    exists(
        select 1
        from rollups.touched_days as queued
        where
            queued.tenant_id = compared.tenant_id
            and queued.metric = compared.metric
            and queued.day = compared.day
    ) as is_pending,
    {{ classified('hourly_count', 'daily_count', "differs_in = '{}'") }} as state
from compared
