{{ config(materialized='view') }}

{%- set single_values %}
    (
        select
            hours.tenant_id,
            hours.metric,
            (hours.hour at time zone 'UTC')::date as day,
            hours.value,
            hours.event_count,
            hours.latest_at,
            hours.latest_fingerprint,
            hours.removed,
            metrics.aggregation,
            metrics.percentile
        from {{ source('rollups', 'unique_values_hourly') }} as hours
        inner join {{ source('catalog', 'metrics') }} as metrics on hours.metric = metrics.metric
    ) as single_values
{%- endset %}

with merged as (
    select
        days.tenant_id,
        days.metric,
        days.day,
        {{ merged_figures('days') }}
    from {{ ref('usage_daily') }} as days
    group by days.tenant_id, days.metric, days.day
),

counted as (
    {{ quantities_from_values(single_values, ['tenant_id', 'metric', 'day']) }}
)

select
    merged.tenant_id,
    tenants.name as tenant_name,
    merged.metric,
    merged.day,
    {{ aggregated_quantity(
        'metrics.aggregation', 'merged', "merged.day::timestamp at time zone 'UTC'", "(merged.day + 1)::timestamp at time zone 'UTC'", 'counted'
    ) }} as quantity,
    metrics.unit,
    merged.event_count
from merged
inner join {{ source('catalog', 'metrics') }} as metrics on merged.metric = metrics.metric
left join counted
    on merged.tenant_id = counted.tenant_id and merged.metric = counted.metric and merged.day = counted.day
left join {{ source('catalog', 'tenants') }} as tenants on merged.tenant_id = tenants.tenant_id
