-- One of the three newest UTC days whose daily figures are not the sum of its hours: the daily rollup missed
-- a touched day. Touch it again (rollups.touched_days). Days that are still queued are left out. It does not
-- look at older days: every night law L3 looks at all of them.

{{ config(meta={'dagster': {'ref': {'name': 'usage_daily'}}}) }}

with newest as (
    select max(day) - 2 as first_day
    from {{ ref('usage_daily') }}
),

hours as (
    select
        tenant_id,
        metric,
        (hour at time zone 'UTC')::date as day,
        dimensions,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        sum(event_digest) as event_digest
    from {{ ref('usage_hourly') }}
    where hour >= (select newest.first_day from newest)::timestamp at time zone 'UTC'
    group by tenant_id, metric, (hour at time zone 'UTC')::date, dimensions
),

days as (
    select *
    from {{ ref('usage_daily') }}
    where day >= (select newest.first_day from newest)
)

select
    tenant_id,
    metric,
    day,
    dimensions
from days
full outer join hours using (tenant_id, metric, day, dimensions)
where
    (
        days.event_count is distinct from hours.event_count
        or days.value_sum is distinct from hours.value_sum
        or days.event_digest is distinct from hours.event_digest
    )
    and not exists (
        select 1
        from rollups.touched_days as queued
        where
            queued.tenant_id = coalesce(days.tenant_id, hours.tenant_id)
            and queued.metric = coalesce(days.metric, hours.metric)
            and queued.day = coalesce(days.day, hours.day)
    )
