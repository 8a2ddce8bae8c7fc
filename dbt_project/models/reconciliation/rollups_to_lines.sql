-- Hourly usage against what became of it, by UTC month, tenant and metric: rated in a slice of a charge, or
-- unrated with a reason. An unreadable value is no usage of a bucket: it is unrated alone.

with sides as (
    select
        date_trunc('month', hour at time zone 'UTC')::date as usage_month,
        tenant_id,
        metric,
        'rolled up' as became,
        event_count,
        value_sum,
        event_digest,
        payload_digest
    from {{ ref('usage_hourly') }}
    union all
    select
        date_trunc('month', hour at time zone 'UTC')::date as usage_month,
        tenant_id,
        metric,
        'rolled up' as became,
        event_count,
        0 as value_sum,
        0 as event_digest,
        0 as payload_digest
    from {{ source('rollups', 'unreadable_values') }}
    union all
    select
        date_trunc('month', day::timestamp)::date as usage_month,
        tenant_id,
        metric,
        'rated' as became,
        event_count,
        value_sum,
        event_digest,
        payload_digest
    from {{ ref('period_usage_daily') }}
    union all
    select
        date_trunc('month', piece_start at time zone 'UTC')::date as usage_month,
        tenant_id,
        metric,
        'unrated' as became,
        event_count,
        value_sum,
        event_digest,
        payload_digest
    from {{ source('rating', 'unrated_usage') }}
),

compared as (
    select
        usage_month,
        tenant_id,
        metric,
        coalesce(sum(event_count) filter (where became = 'rolled up'), 0) as hourly_count,
        coalesce(sum(event_count) filter (where became = 'rated'), 0) as rated_count,
        coalesce(sum(event_count) filter (where became = 'unrated'), 0) as unrated_count,
        coalesce(sum(value_sum) filter (where became = 'rolled up'), 0) as hourly_sum,
        coalesce(sum(value_sum) filter (where became = 'rated'), 0) as rated_sum,
        coalesce(sum(value_sum) filter (where became = 'unrated'), 0) as unrated_sum,
        sum(case when became = 'rolled up' then value_sum else -value_sum end) = 0
        and sum(case when became = 'rolled up' then event_digest else -event_digest end) = 0
        and sum(case when became = 'rolled up' then payload_digest else -payload_digest end) = 0 as same_usage
    from sides
    group by usage_month, tenant_id, metric
)

select
    usage_month,
    tenant_id,
    metric,
    hourly_count,
    rated_count,
    unrated_count,
    hourly_sum,
    rated_sum,
    unrated_sum,
    {{ classified('hourly_count', 'rated_count + unrated_count', 'same_usage') }} as state
from compared
