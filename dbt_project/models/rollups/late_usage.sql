{{ config(materialized='view') }}

-- A landing hour that takes events back brings less than nothing.

with late as (
    select
        (landed_hour at time zone 'UTC')::date as landed_day,
        tenant_id,
        metric,
        (hour at time zone 'UTC')::date as usage_day,
        sum(event_count)::bigint as event_count,
        sum(voided_count)::bigint as voided_count,
        sum(value_sum) as value_sum
    from {{ ref('usage_contributions') }}
    where landed_hour - hour > interval '1 day'
    group by (landed_hour at time zone 'UTC')::date, tenant_id, metric, (hour at time zone 'UTC')::date
)

select
    late.landed_day,
    late.tenant_id,
    tenants.name as tenant_name,
    late.metric,
    late.usage_day,
    late.event_count,
    late.voided_count,
    late.value_sum,
    metrics.unit
from late
inner join {{ source('catalog', 'metrics') }} as metrics on late.metric = metrics.metric
left join {{ source('catalog', 'tenants') }} as tenants on late.tenant_id = tenants.tenant_id
