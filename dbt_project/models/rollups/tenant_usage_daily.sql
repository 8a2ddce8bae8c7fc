{{ config(materialized='view') }}

with merged as (
    select
        days.tenant_id,
        days.metric,
        days.day,
        {{ merged_figures('days') }}
    from {{ ref('usage_daily') }} as days
    group by days.tenant_id, days.metric, days.day
)

select
    merged.tenant_id,
    tenants.name as tenant_name,
    merged.metric,
    merged.day,
    {{ aggregated_quantity('metrics.aggregation', 'merged') }} as quantity,
    metrics.unit,
    merged.event_count
from merged
inner join {{ source('catalog', 'metrics') }} as metrics on merged.metric = metrics.metric
left join {{ source('catalog', 'tenants') }} as tenants on merged.tenant_id = tenants.tenant_id
