{{ config(materialized='table_function') }}

-- From a day in which L3 fails to its buckets: what landing hours contributed to an hour of usage against hourly
-- usage, and the day's hours against daily usage. What is touched is a debt, and left out.

{%- set figures -%}
sum(event_count) as event_count, sum(value_sum) as value_sum, sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
{%- endset %}

with contributed as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        array_agg(landed_hour order by landed_hour) as landed_hours,
        {{ figures }}
    from {{ ref('usage_contributions') }}
    where
        hour >= given_usage_day::timestamp at time zone 'UTC'
        and hour < (given_usage_day + 1)::timestamp at time zone 'UTC'
    group by tenant_id, metric, hour, dimensions
    having sum(event_count) > 0
),

hourly as (
    select *
    from {{ ref('usage_hourly') }}
    where
        hour >= given_usage_day::timestamp at time zone 'UTC'
        and hour < (given_usage_day + 1)::timestamp at time zone 'UTC'
),

summed as (
    select
        tenant_id,
        metric,
        dimensions,
        {{ figures }}
    from hourly
    group by tenant_id, metric, dimensions
),

daily as (
    select *
    from {{ ref('usage_daily') }}
    where day = given_usage_day
),

compared as (
    select
        'hourly usage' as table_name,
        tenant_id,
        metric,
        hour,
        dimensions,
        coalesce(contributed.event_count, 0) as wanted_count,
        coalesce(hourly.event_count, 0) as found_count,
        coalesce(contributed.value_sum, 0) as wanted_sum,
        coalesce(hourly.value_sum, 0) as found_sum,
        contributed.landed_hours,
        {{ classified(
            'contributed.event_count', 'hourly.event_count',
            '(contributed.value_sum, contributed.event_digest, contributed.payload_digest)
                = (hourly.value_sum, hourly.event_digest, hourly.payload_digest)'
        ) }} as state
    from contributed
    full join hourly using (tenant_id, metric, hour, dimensions)
    where (tenant_id, metric, hour, dimensions) not in (
        select
            touched.tenant_id,
            touched.metric,
            touched.hour,
            touched.dimensions
        from rollups.touched_buckets as touched
    )
    union all
    select
        'daily usage',
        tenant_id,
        metric,
        null,
        dimensions,
        coalesce(summed.event_count, 0),
        coalesce(daily.event_count, 0),
        coalesce(summed.value_sum, 0),
        coalesce(daily.value_sum, 0),
        null,
        {{ classified(
            'summed.event_count', 'daily.event_count',
            '(summed.value_sum, summed.event_digest, summed.payload_digest)
                = (daily.value_sum, daily.event_digest, daily.payload_digest)'
        ) }}
    from summed
    full join daily using (tenant_id, metric, dimensions)
    where (tenant_id, metric, given_usage_day) not in (
        select
            touched.tenant_id,
            touched.metric,
            touched.day
        from rollups.touched_days as touched
    )
)

select *
from compared
where state <> 'identical'
order by table_name, tenant_id, metric, hour, dimensions
