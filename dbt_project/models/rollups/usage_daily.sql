{{ config(materialized='posting', full_refresh=false) }}

-- Adds to the touched UTC days what they gained, and sums the others again from the hours, late arrivals included:
-- {{ ref('usage_hourly') }}, {{ source('rollups', 'late_arrivals') }}.

-- 1. Take the queue. A contribution that has changed since then is not merged into the hours yet: such days are
-- summed from the hours as they are.
{{ wait_for(rollups_lock()) }};

create temporary table taken on commit drop as
select
    tenant_id,
    metric,
    day,
    case
        when not exists (
            select 1
            from rollups.touched_buckets
            where
                touched_buckets.tenant_id = touched_days.tenant_id
                and touched_buckets.metric = touched_days.metric
                and (touched_buckets.hour at time zone 'UTC')::date = touched_days.day
        ) then gained_hour
    end as gained_hour
from rollups.touched_days;

delete from rollups.touched_days
using taken
where
    touched_days.tenant_id = taken.tenant_id
    and touched_days.metric = taken.metric
    and touched_days.day = taken.day;

analyze taken;

-- 2. Add what was gained.
insert into {{ this }} (
    tenant_id, metric, day, dimensions, {{ figure_columns() }}
)
select
    taken.tenant_id,
    taken.metric,
    taken.day,
    contributions.dimensions,
    {{ merged_figures('contributions') }}
from taken
inner join rollups.usage_contributions as contributions
    on taken.gained_hour = contributions.landed_hour
        and taken.tenant_id = contributions.tenant_id
        and taken.metric = contributions.metric
        and taken.day = (contributions.hour at time zone 'UTC')::date
group by taken.tenant_id, taken.metric, taken.day, contributions.dimensions
order by taken.tenant_id, taken.metric, taken.day, contributions.dimensions
on conflict (tenant_id, metric, day, dimensions) do update set
    {{ figures_gained('usage_daily') }};

-- 3. Sum the others.
delete from taken
where gained_hour is not null;

analyze taken;

delete from {{ this }}
using taken
where
    usage_daily.tenant_id = taken.tenant_id
    and usage_daily.metric = taken.metric
    and usage_daily.day = taken.day;

insert into {{ this }} (
    tenant_id, metric, day, dimensions, {{ figure_columns() }}
)
select
    taken.tenant_id,
    taken.metric,
    taken.day,
    hours.dimensions,
    {{ merged_figures('hours') }}
from taken
inner join rollups.usage_hourly as hours
    on taken.tenant_id = hours.tenant_id
        and taken.metric = hours.metric
        and hours.hour >= taken.day::timestamp at time zone 'UTC'
        and hours.hour < (taken.day + 1)::timestamp at time zone 'UTC'
group by taken.tenant_id, taken.metric, taken.day, hours.dimensions
order by taken.tenant_id, taken.metric, taken.day, hours.dimensions
