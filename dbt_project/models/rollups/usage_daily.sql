{{ config(materialized='posting', full_refresh=false) }}

-- Sums the touched UTC days again from the hours, late arrivals included: {{ ref('usage_hourly') }},
-- {{ source('rollups', 'late_arrivals') }}.

create temporary table taken on commit drop as
select *
from rollups.touched_days;

delete from rollups.touched_days
using taken
where
    touched_days.tenant_id = taken.tenant_id
    and touched_days.metric = taken.metric
    and touched_days.day = taken.day;

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
