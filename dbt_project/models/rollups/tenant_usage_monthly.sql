{{ config(materialized='view') }}

with merged as (
    select
        days.tenant_id,
        days.metric,
        date_trunc('month', days.day::timestamp)::date as month,
        {{ merged_figures('days') }}
    from {{ ref('usage_daily') }} as days
    group by days.tenant_id, days.metric, date_trunc('month', days.day::timestamp)::date
)

select
    merged.tenant_id,
    tenants.name as tenant_name,
    merged.metric,
    merged.month,
    {{ aggregated_quantity('metrics.aggregation', 'merged') }} as quantity,
    metrics.unit,
    merged.event_count
from merged
inner join {{ source('catalog', 'metrics') }} as metrics on merged.metric = metrics.metric
left join {{ source('catalog', 'tenants') }} as tenants on merged.tenant_id = tenants.tenant_id
