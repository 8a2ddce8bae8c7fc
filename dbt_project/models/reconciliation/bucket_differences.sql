{{ config(materialized='table_function') }}

-- From a day in which L3 fails to its buckets: what landing hours contributed to an hour of usage against hourly
-- usage, and the day's hours against daily usage. What is queued is a debt, and left out.

select
    'hourly usage' as table_name,
    tenant_id,
    metric,
    hour,
    dimensions,
    contributed_count as wanted_count,
    hourly_count as found_count,
    contributed_sum as wanted_sum,
    hourly_sum as found_sum,
    landed_from,
    landed_to,
    state
from {{ ref('contributions_to_hourly') }}
where
    hour >= given_usage_day::timestamp at time zone 'UTC'
    and hour < (given_usage_day + 1)::timestamp at time zone 'UTC'
    and state <> 'identical'
    and not is_pending
union all
select
    'daily usage' as table_name,
    tenant_id,
    metric,
    null as hour,
    dimensions,
    hourly_count as wanted_count,
    daily_count as found_count,
    hourly_sum as wanted_sum,
    daily_sum as found_sum,
    null as landed_from,
    null as landed_to,
    state
from {{ ref('hourly_to_daily') }}
where
    day = given_usage_day
    and state <> 'identical'
    and not is_pending
order by table_name, tenant_id, metric, hour, dimensions
