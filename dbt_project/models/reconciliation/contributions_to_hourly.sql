-- What landing hours contributed to each bucket of hourly usage against the bucket. One that is queued is a debt and
-- no difference. Where an event was taken back, smallest, largest and latest value do not follow from contributions.

with sides as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        false as is_hourly,
        min(landed_hour) as landed_from,
        max(landed_hour) as landed_to,
        sum(voided_count) as voided_count,
        {{ merged_figures('contributions') }}
    from {{ ref('usage_contributions') }} as contributions
    group by tenant_id, metric, hour, dimensions
    union all
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        true as is_hourly,
        null as landed_from,
        null as landed_to,
        0 as voided_count,
        {{ figure_columns() }}
    from {{ ref('usage_hourly') }}
),

compared as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        min(landed_from) as landed_from,
        max(landed_to) as landed_to,
        coalesce(sum(event_count) filter (where not is_hourly), 0)::bigint as contributed_count,
        coalesce(sum(event_count) filter (where is_hourly), 0)::bigint as hourly_count,
        coalesce(sum(value_sum) filter (where not is_hourly), 0) as contributed_sum,
        coalesce(sum(value_sum) filter (where is_hourly), 0) as hourly_sum,
        case
            when sum(voided_count) > 0
                then {{ differing_columns('is_hourly', [
                    'event_count', 'value_sum', 'value_moment', 'event_digest', 'payload_digest',
                ]) }}
            else {{ differing_columns('is_hourly', [
                'event_count', 'value_sum', 'value_moment', 'value_min', 'value_max', 'value_latest', 'latest_at',
                'latest_fingerprint::text', 'event_digest', 'payload_digest',
            ]) }}
        end as differs_in
    from sides
    group by tenant_id, metric, hour, dimensions
)

select
    tenant_id,
    metric,
    hour,
    dimensions,
    landed_from,
    landed_to,
    contributed_count,
    hourly_count,
    contributed_sum,
    hourly_sum,
    differs_in,
    exists(
        select 1
        from rollups.touched_buckets as queued
        where
            queued.tenant_id = compared.tenant_id
            and queued.hour = compared.hour
            and queued.metric = compared.metric
            and queued.dimensions = compared.dimensions
    ) as is_pending,
    {{ classified('contributed_count', 'hourly_count', "differs_in = '{}'") }} as state
from compared
