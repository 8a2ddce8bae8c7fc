-- Hourly usage against what became of it, by UTC month, tenant and metric: rated in a slice of a charge, or
-- unrated with a reason. An unreadable value is no usage of a bucket and is left out.

with rolled_up as (
    select
        date_trunc('month', hour at time zone 'UTC')::date as usage_month,
        tenant_id,
        metric,
        sum(event_count) as hourly_count,
        sum(value_sum) as hourly_sum,
        sum(event_digest) as hourly_digest
    from {{ ref('usage_hourly') }}
    group by date_trunc('month', hour at time zone 'UTC')::date, tenant_id, metric
),

pieces as (
    select
        date_trunc('month', day::timestamp)::date as usage_month,
        tenant_id,
        metric,
        true as is_rated,
        event_count,
        value_sum,
        event_digest
    from {{ ref('period_usage_daily') }}
    union all
    select
        date_trunc('month', piece_start at time zone 'UTC')::date as usage_month,
        tenant_id,
        metric,
        false as is_rated,
        event_count,
        value_sum,
        event_digest
    from {{ source('rating', 'unrated_usage') }}
    where reason <> 'unreadable_value'
),

assigned as (
    select
        usage_month,
        tenant_id,
        metric,
        sum(event_count) as assigned_count,
        coalesce(sum(event_count) filter (where is_rated), 0) as rated_count,
        coalesce(sum(event_count) filter (where not is_rated), 0) as unrated_count,
        coalesce(sum(value_sum) filter (where is_rated), 0) as rated_sum,
        coalesce(sum(value_sum) filter (where not is_rated), 0) as unrated_sum,
        sum(event_digest) as assigned_digest
    from pieces
    group by usage_month, tenant_id, metric
)

select
    coalesce(rolled_up.usage_month, assigned.usage_month) as usage_month,
    coalesce(rolled_up.tenant_id, assigned.tenant_id) as tenant_id,
    coalesce(rolled_up.metric, assigned.metric) as metric,
    coalesce(rolled_up.hourly_count, 0) as hourly_count,
    coalesce(assigned.rated_count, 0) as rated_count,
    coalesce(assigned.unrated_count, 0) as unrated_count,
    coalesce(rolled_up.hourly_sum, 0) as hourly_sum,
    coalesce(assigned.rated_sum, 0) as rated_sum,
    coalesce(assigned.unrated_sum, 0) as unrated_sum,
    {{ classified(
        'rolled_up.hourly_count', 'assigned.assigned_count', 'rolled_up.hourly_digest = assigned.assigned_digest'
    ) }} as state
from rolled_up
full outer join assigned
    on rolled_up.usage_month = assigned.usage_month
        and rolled_up.tenant_id = assigned.tenant_id
        and rolled_up.metric = assigned.metric
