{{ config(materialized='posting', full_refresh=false) }}

-- Merges the contributions for the touched buckets: {{ ref('usage_contributions') }}.

-- 1. Take the queue, and write the next ones: days for the daily rollup and for rating.
{{ wait_for(rollups_lock()) }};

create temporary table taken on commit drop as
select *
from rollups.touched_buckets;

delete from rollups.touched_buckets
using taken
where
    touched_buckets.tenant_id = taken.tenant_id
    and touched_buckets.metric = taken.metric
    and touched_buckets.hour = taken.hour
    and touched_buckets.dimensions = taken.dimensions;

analyze taken;

insert into rollups.touched_days (tenant_id, metric, day, gained_hour)
select
    tenant_id,
    metric,
    (hour at time zone 'UTC')::date,
    case when count(*) = count(gained_hour) and min(gained_hour) = max(gained_hour) then min(gained_hour) end
from taken
group by tenant_id, metric, (hour at time zone 'UTC')::date
on conflict (tenant_id, metric, day) do update set gained_hour = null;

insert into rating.touched (tenant_id, metric, day)
select distinct
    tenant_id,
    metric,
    (hour at time zone 'UTC')::date
from taken
on conflict do nothing;

-- 2. What buckets have gained is added to them, in the order in which they are read.
insert into {{ this }} (
    tenant_id, metric, hour, dimensions, {{ figure_columns() }}
)
select
    taken.tenant_id,
    taken.metric,
    taken.hour,
    taken.dimensions,
    {{ figure_columns() }}
from taken
inner join rollups.usage_contributions as contributions
    on taken.gained_hour = contributions.landed_hour
        and taken.tenant_id = contributions.tenant_id
        and taken.metric = contributions.metric
        and taken.hour = contributions.hour
        and taken.dimensions = contributions.dimensions
order by taken.hour, taken.tenant_id, taken.metric, taken.dimensions
on conflict (tenant_id, hour, metric, dimensions) do update set
    {{ figures_gained('usage_hourly') }};

delete from taken
where gained_hour is not null;

analyze taken;

-- 3. The others merged again. Where an event was taken back, what cannot be added up is read from the ledger.
create temporary table merged on commit drop as
select
    taken.tenant_id,
    taken.metric,
    taken.hour,
    taken.dimensions,
    min(contributions.event_type) as event_type,
    sum(contributions.voided_count) as voided_count,
    {{ merged_figures('contributions') }}
from taken
inner join rollups.usage_contributions as contributions
    on taken.tenant_id = contributions.tenant_id
        and taken.metric = contributions.metric
        and taken.hour = contributions.hour
        and taken.dimensions = contributions.dimensions
group by taken.tenant_id, taken.metric, taken.hour, taken.dimensions
having sum(contributions.event_count) > 0;

select ledger.require_days(array(
    select distinct (hour at time zone 'UTC')::date
    from merged
    where voided_count > 0
));

create temporary table standing_events on commit drop as
with voided as (
    select
        tenant_id,
        event_type,
        hour
    from merged
    where voided_count > 0
    group by tenant_id, event_type, hour
),

standing as (
    select
        events.*,
        1 as sign
    from ledger.usage_events as events
    inner join voided
        on events.tenant_id = voided.tenant_id
            and events.event_type = voided.event_type
            and events.occurred_at >= voided.hour
            and events.occurred_at < voided.hour + interval '1 hour'
    where
        not exists (
            select 1
            from ledger.voids
            where
                voids.tenant_id = events.tenant_id
                and voids.occurred_at = events.occurred_at
                and voids.fingerprint = events.fingerprint
        )
        and events.occurred_at >= (select min(voided.hour) from voided)
        and events.occurred_at < (select max(voided.hour) + interval '1 hour' from voided)
),

measured as (
    {{ metric_events('standing') }}
)

select
    *,
    {{ hour_of('occurred_at') }} as hour
from measured
where unreadable is null;

with recomputed as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        {{ bucket_figures() }}
    from standing_events
    group by tenant_id, metric, hour, dimensions
)

update merged
set
    value_min = recomputed.value_min,
    value_max = recomputed.value_max,
    value_latest = recomputed.value_latest,
    latest_at = recomputed.latest_at,
    latest_fingerprint = recomputed.latest_fingerprint
from recomputed
where
    merged.voided_count > 0
    and merged.tenant_id = recomputed.tenant_id
    and merged.metric = recomputed.metric
    and merged.hour = recomputed.hour
    and merged.dimensions = recomputed.dimensions;

-- 4. Replace these, and their single values.
{% for table in ['usage_hourly', 'unique_values_hourly'] -%}
delete from rollups.{{ table }}
using taken
where
    {{ table }}.tenant_id = taken.tenant_id
    and {{ table }}.metric = taken.metric
    and {{ table }}.hour = taken.hour
    and {{ table }}.dimensions = taken.dimensions;

{% endfor -%}
insert into {{ this }} (
    tenant_id, metric, hour, dimensions, {{ figure_columns() }}
)
select
    tenant_id,
    metric,
    hour,
    dimensions,
    {{ figure_columns() }}
from merged
order by hour, tenant_id, metric, dimensions;

insert into rollups.unique_values_hourly (
    tenant_id, metric, hour, dimensions, value, event_count, latest_at, latest_fingerprint, removed
)
select
    merged.tenant_id,
    merged.metric,
    merged.hour,
    merged.dimensions,
    contributions.value,
    sum(contributions.event_count),
    max(contributions.latest_at),
    {{ latest_of('contributions', 'latest_fingerprint') }},
    {{ latest_of('contributions', 'removed') }}
from merged
inner join rollups.unique_value_contributions as contributions
    on merged.tenant_id = contributions.tenant_id
        and merged.metric = contributions.metric
        and merged.hour = contributions.hour
        and merged.dimensions = contributions.dimensions
where merged.voided_count = 0
group by merged.tenant_id, merged.metric, merged.hour, merged.dimensions, contributions.value
union all
select
    standing.tenant_id,
    standing.metric,
    standing.hour,
    standing.dimensions,
    standing.unique_value,
    count(*),
    max(standing.occurred_at),
    (array_agg(standing.fingerprint order by standing.occurred_at desc, standing.fingerprint desc))[1],
    (array_agg(standing.removed order by standing.occurred_at desc, standing.fingerprint desc))[1]
from standing_events as standing
inner join merged
    on standing.tenant_id = merged.tenant_id
        and standing.metric = merged.metric
        and standing.hour = merged.hour
        and standing.dimensions = merged.dimensions
where merged.voided_count > 0 and standing.unique_value is not null
group by standing.tenant_id, standing.metric, standing.hour, standing.dimensions, standing.unique_value
