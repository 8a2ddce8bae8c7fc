{{ config(materialized='view') }}

{%- set single_values %}
    (
        select
            merged.hour,
            metrics.aggregation,
            metrics.percentile,
            found.*
        from {{ ref('unique_values_between') }}(
            merged.tenant_id, merged.metric, merged.hour, merged.hour + interval '1 hour'
        ) as found
        where metrics.aggregation in ('unique_count', 'percentile')
    ) as single_values
{%- endset %}

-- Today is the UTC day of the newest landing hour.

with today as (
    select date_bin('1 day', max(landed_hour), '2000-01-01 00:00:00+00'::timestamptz) as starts_at
    from {{ source('landing', 'hours') }}
),

merged as (
    select
        hours.tenant_id,
        hours.metric,
        hours.hour,
        {{ merged_figures('hours') }}
    from {{ ref('usage_realtime') }} as hours
    where
        hours.hour >= (select starts_at from today)
        and hours.hour < (select starts_at + interval '1 day' from today)
    group by hours.tenant_id, hours.metric, hours.hour
)

select
    merged.tenant_id,
    tenants.name as tenant_name,
    merged.metric,
    merged.hour,
    {{ aggregated_quantity(
        'metrics.aggregation', 'merged', 'merged.hour', "merged.hour + interval '1 hour'", 'counted'
    ) }} as quantity,
    metrics.unit,
    merged.event_count
from merged
inner join {{ source('catalog', 'metrics') }} as metrics on merged.metric = metrics.metric
left join lateral (
    {{ quantities_from_values(single_values, ['hour']) }}
) as counted on true
left join {{ source('catalog', 'tenants') }} as tenants on merged.tenant_id = tenants.tenant_id
