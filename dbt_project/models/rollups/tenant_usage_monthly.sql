{{ config(materialized='view') }}

{%- set single_values %}
    (
        select
            hours.tenant_id,
            hours.metric,
            date_trunc('month', hours.hour at time zone 'UTC')::date as month,
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
        date_trunc('month', days.day::timestamp)::date as month,
        {{ merged_figures('days') }}
    from {{ ref('usage_daily') }} as days
    group by days.tenant_id, days.metric, date_trunc('month', days.day::timestamp)::date
),

counted as (
    {{ quantities_from_values(single_values, ['tenant_id', 'metric', 'month']) }}
)

select
    merged.tenant_id,
    tenants.name as tenant_name,
    merged.metric,
    merged.month,
    {{ aggregated_quantity(
        'metrics.aggregation', 'merged', "merged.month::timestamp at time zone 'UTC'", "(merged.month + interval '1 month')::timestamp at time zone 'UTC'", 'counted'
    ) }} as quantity,
    metrics.unit,
    merged.event_count
from merged
inner join {{ source('catalog', 'metrics') }} as metrics on merged.metric = metrics.metric
left join counted
    on merged.tenant_id = counted.tenant_id and merged.metric = counted.metric and merged.month = counted.month
left join {{ source('catalog', 'tenants') }} as tenants on merged.tenant_id = tenants.tenant_id
