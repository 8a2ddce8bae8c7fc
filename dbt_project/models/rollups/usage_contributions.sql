{{ config(materialized='posting', full_refresh=false) }}

{#- The events that these landing hours book, and those that they take back. -#}
{%- set signed_events %}
    select
        events.landed_hour as booked_hour,
        1 as sign,
        events.*
    from ledger.usage_events as events
    where
        events.landed_hour = any(rollups.batch_hours())
        and events.occurred_at >= rollups.batch_starts_at()
        and events.occurred_at < rollups.batch_ends_at()
    union all
    select *
    from taken_back
{%- endset %}

-- Rewrites the contributions of the pending keys, from the ledger, and nothing else. On time, late and
-- early are the same thing: the work follows what changed. Depends on {{ ref('usage_events') }}, and on
-- what is to be metered: {{ source('catalog', 'metrics') }}.

-- 1. Take the debt within the lookback, and what was released beyond it. The ledger may be posted meanwhile: a posting
-- that owes one of these keys anew is waited for, or waits until this is committed and then owes it again. So nothing
-- else changes under what is taken; of what is not taken nothing is written.
{{ wait_for(rollups_lock()) }};

create temporary table taken on commit drop as
select
    landed_hour,
    tenant_id,
    event_type,
    event_hour
from ledger.pending
where
    landed_hour < {{ window_end() }}
    and (released or landed_hour - event_hour <= catalog.setting_hours('lookback_hours'))
order by landed_hour, tenant_id, event_type, event_hour
for update;

delete from ledger.pending
using taken
where
    pending.landed_hour = taken.landed_hour
    and pending.tenant_id = taken.tenant_id
    and pending.event_type = taken.event_type
    and pending.event_hour = taken.event_hour;

analyze taken;

-- All events of these days of usage are read, and all that these landing hours own: none may be archived.
select ledger.require_days(
    array(select distinct (event_hour at time zone 'UTC')::date from taken),
    array(select distinct (landed_hour at time zone 'UTC')::date from taken)
);

-- The bounds of the batch are settings, which the planner takes as constants: as subqueries it would guess, and read
-- a day's index for an hour.
select
    set_config('metering.landed_hours', coalesce(array_agg(distinct landed_hour), '{}')::text, true),
    set_config('metering.first_event', coalesce(min(event_hour), 'infinity')::text, true),
    set_config('metering.end_event', coalesce(max(event_hour) + interval '1 hour', 'infinity')::text, true)
from taken;

-- A landing hour that was never rolled up, the usual case, is not looked up key by key, and the buckets and days to
-- which it alone contributes are added to, not merged again.
create temporary table known_hours on commit drop as
select hours.landed_hour
from unnest(rollups.batch_hours()) as hours (landed_hour)
where
    exists (
        select 1
        from rollups.usage_contributions as standing
        where standing.landed_hour = hours.landed_hour
    )
    -- it was, and what it contributed was deleted behind the pipeline's back
    or exists (
        select 1
        from rollups.arrival_delays as standing
        where standing.landed_hour = hours.landed_hour
    );

-- 2. What these landing hours contribute now, read once from the ledger: with it what no metric can read, and what
-- no metric reads. A voided event is taken back in the later of its hour and its void's.
create temporary table taken_back on commit drop as
select
    greatest(events.landed_hour, voids.landed_hour) as booked_hour,
    -1 as sign,
    events.*
from ledger.voids
inner join ledger.usage_events as events
    on
        voids.tenant_id = events.tenant_id
        and voids.occurred_at = events.occurred_at
        and voids.fingerprint = events.fingerprint
where
    greatest(events.landed_hour, voids.landed_hour) = any(rollups.batch_hours())
    and voids.occurred_at >= rollups.batch_starts_at()
    and voids.occurred_at < rollups.batch_ends_at();

-- The planner takes a new hour for nearly empty, and cannot know how few groups the expressions make: it would
-- compare each event with each metric, and sort half a million rows by texts.
set local enable_nestloop = off;
set local enable_sort = off;

create temporary table totals on commit drop as
with signed as (
{{ signed_events }}
),

measured as (
    {{ metric_events('signed', unmetered='events.event_type not in (select event_type from catalog.metrics)') }}
),

grouped as (
    select
        booked_hour,
        tenant_id,
        event_type,
        metric,
        {{ hour_of('occurred_at') }} as event_hour,
        dimension_values,
        unreadable,
        sum(sign) as event_count,
        count(*) filter (where sign < 0) as voided_count,
        sum(sign * value) as value_sum,
        sum(sign * moment) as value_moment,
        min(value) filter (where sign > 0) as value_min,
        max(value) filter (where sign > 0) as value_max,
        max(occurred_at) filter (where sign > 0) as latest_at,
        count(*) filter (where sign > 0) as added_count,
        any_value(fingerprint) filter (where sign > 0) as added_fingerprint,
        {{ signed_digest('fingerprint') }} as event_digest,
        {{ signed_digest('payload_hash') }} as payload_digest,
        min(case when unreadable is not null then array[file_id, line_number] end) as sample
    from measured
    group by
        booked_hour, tenant_id, event_type, metric, {{ hour_of('occurred_at') }}, dimension_values, unreadable
)

select
    grouped.*,
    {{ dimensions_of('grouped.dimension_values') }} as dimensions
from grouped
left join (
    {{ metrics_prepared() }}
) as metrics on grouped.metric = metrics.metric;

-- The single values, where a metric needs them: without such a metric nothing is read.
create temporary table unique_values on commit drop as
with signed as (
{{ signed_events }}
),

needed as (
    select *
    from signed
    where
        -- asked once, where the other condition would be asked of every event
        exists (
            select 1
            from catalog.metrics
            where {{ needs_single_values() }}
        )
        and event_type in (
            select event_type
            from catalog.metrics
            where {{ needs_single_values() }}
        )
),

measured as (
    {{ metric_events('needed') }}
)

select
    booked_hour,
    tenant_id,
    event_type,
    metric,
    {{ hour_of('occurred_at') }} as event_hour,
    dimensions,
    unique_value,
    {{ unique_value_figures() }}
from measured
where unique_value is not null and unreadable is null
group by booked_hour, tenant_id, event_type, metric, {{ hour_of('occurred_at') }}, dimensions, unique_value;

-- How late it was: all that these landing hours own, what is beyond the lookback too.
delete from rollups.arrival_delays
where landed_hour = any(rollups.batch_hours());

insert into rollups.arrival_delays (landed_hour, event_type, delay_hours, event_count)
select
    landed_hour,
    event_type,
    extract(epoch from landed_hour - {{ hour_of('occurred_at') }}) / 3600 as delay_hours,
    count(*) as event_count
from ledger.usage_events
where landed_hour = any(rollups.batch_hours())
group by landed_hour, event_type, landed_hour - {{ hour_of('occurred_at') }};

set local enable_nestloop = on;
set local enable_sort = on;

{% for table in ['totals', 'unique_values'] -%}
-- of these hours only the keys that were taken
delete from {{ table }}
where not exists (
    select 1
    from taken
    where
        taken.landed_hour = {{ table }}.booked_hour
        and taken.tenant_id = {{ table }}.tenant_id
        and taken.event_type = {{ table }}.event_type
        and taken.event_hour = {{ table }}.event_hour
);

{% endfor -%}
set local default_statistics_target = 10;

analyze totals;

-- 3. What these keys contributed until now goes; its buckets are merged again, vanished dimensions too.
with removed as (
    delete from rollups.usage_contributions
    using taken
    where
        taken.landed_hour in (select landed_hour from known_hours)
        and usage_contributions.landed_hour = taken.landed_hour
        and usage_contributions.tenant_id = taken.tenant_id
        and usage_contributions.event_type = taken.event_type
        and usage_contributions.hour = taken.event_hour
    returning usage_contributions.*
)

insert into rollups.touched_buckets (tenant_id, metric, hour, dimensions)
select distinct
    tenant_id,
    metric,
    hour,
    dimensions
from removed
on conflict (tenant_id, hour, metric, dimensions) do update set gained_hour = null;

{% for table in ['unique_value_contributions', 'unreadable_values', 'unmetered_events'] -%}
delete from rollups.{{ table }}
using taken
where
    {{ table }}.landed_hour = taken.landed_hour
    and {{ table }}.tenant_id = taken.tenant_id
    and {{ table }}.event_type = taken.event_type
    and {{ table }}.hour = taken.event_hour;

{% endfor -%}
-- 4. Write them. The latest of a bucket's events is known by its instant, and looked up by it; the only one
-- is known as it is.
with candidates as (
    select
        totals.metric as read_by,
        totals.dimensions as in_bucket,
        events.*
    from totals
    inner join ledger.usage_events as events
        on totals.latest_at = events.occurred_at
            -- no equality: else the planner could look each of them up by its landing hour, which it takes for small
            and totals.booked_hour is not distinct from events.landed_hour
            and totals.tenant_id = events.tenant_id
            and totals.event_type = events.event_type
    where totals.metric is not null and totals.unreadable is null and totals.added_count > 1
),

measured as (
    {{ metric_events('candidates') }}
),

latest as (
    select distinct on (landed_hour, tenant_id, metric, occurred_at, dimensions)
        landed_hour,
        tenant_id,
        metric,
        occurred_at,
        dimensions,
        value,
        fingerprint
    from measured
    where metric = read_by and dimensions = in_bucket and unreadable is null
    order by landed_hour, tenant_id, metric, occurred_at, dimensions, fingerprint desc
),

contributed as (
    insert into rollups.usage_contributions (
        landed_hour, tenant_id, metric, hour, dimensions, event_type, event_count, voided_count,
        value_sum, value_moment, value_min, value_max, value_latest, latest_at, latest_fingerprint, event_digest,
        payload_digest
    )
    select
        totals.booked_hour,
        totals.tenant_id,
        totals.metric,
        totals.event_hour,
        totals.dimensions,
        totals.event_type,
        totals.event_count,
        totals.voided_count,
        totals.value_sum,
        totals.value_moment,
        totals.value_min,
        totals.value_max,
        case when totals.added_count = 1 then totals.value_max else latest.value end,
        totals.latest_at,
        case when totals.added_count = 1 then totals.added_fingerprint else latest.fingerprint end,
        totals.event_digest,
        totals.payload_digest
    from totals
    left join latest
        on totals.booked_hour = latest.landed_hour
            and totals.tenant_id = latest.tenant_id
            and totals.metric = latest.metric
            and totals.latest_at = latest.occurred_at
            and totals.dimensions = latest.dimensions
    where totals.metric is not null and totals.unreadable is null
    order by totals.booked_hour, totals.tenant_id, totals.event_hour, totals.metric, totals.dimensions
    returning landed_hour, tenant_id, metric, hour, dimensions, voided_count
),

gains as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        case
            when
                voided_count = 0
                and landed_hour not in (select known_hours.landed_hour from known_hours)
                and metric not in (
                    select metrics.metric
                    from catalog.metrics
                    where {{ needs_single_values() }}
                )
                then landed_hour
        end as gained_hour
    from contributed
)

insert into rollups.touched_buckets (tenant_id, metric, hour, dimensions, gained_hour)
select
    tenant_id,
    metric,
    hour,
    dimensions,
    case when count(*) = 1 then min(gained_hour) end as gained_hour
from gains
group by tenant_id, metric, hour, dimensions
on conflict (tenant_id, hour, metric, dimensions) do update set gained_hour = null;

insert into rollups.unique_value_contributions (
    landed_hour, tenant_id, metric, hour, dimensions, value, event_type, event_count, voided_count, latest_at,
    latest_fingerprint, removed
)
select
    booked_hour,
    tenant_id,
    metric,
    event_hour,
    dimensions,
    unique_value,
    event_type,
    event_count,
    voided_count,
    latest_at,
    latest_fingerprint,
    removed
from unique_values
order by booked_hour, tenant_id, event_hour, metric, dimensions, unique_value;

insert into rollups.unreadable_values (
    landed_hour, tenant_id, metric, hour, event_type, reason, event_count, sample_file_id, sample_line_number
)
select
    booked_hour,
    tenant_id,
    metric,
    event_hour,
    event_type,
    unreadable,
    sum(event_count),
    (min(sample))[1],
    (min(sample))[2]
from totals
where unreadable is not null
group by booked_hour, tenant_id, metric, event_hour, event_type, unreadable;

insert into rollups.unmetered_events (landed_hour, tenant_id, event_type, hour, event_count)
select
    booked_hour,
    tenant_id,
    event_type,
    event_hour,
    event_count
from totals
where metric is null
