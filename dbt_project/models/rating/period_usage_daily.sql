{{ config(materialized='posting', full_refresh=false) }}

-- Gives every piece of usage to the one slice that charges for it, or to rating.unrated_usage with the
-- reason. A piece is a whole hour of the rollups, or the part of an hour between period edges, read from
-- the ledger into rating.edge_usage. Consumes the touched days and the changed spans, works on these only,
-- and hands on the slices whose usage is another than before.
-- Depends on {{ ref('billing_periods') }}, {{ ref('usage_hourly') }}, {{ ref('usage_events') }}.

{%- set usage_columns =
    'subscription_id, charge_id, slice_start, slice_end, tenant_id, metric, day, ' ~ figure_columns() %}

set local time zone 'UTC';

-- 1. Take the queues.
create temporary table taken_days on commit drop as
select *
from rating.touched;

delete from rating.touched
using taken_days as taken
where
    touched.tenant_id = taken.tenant_id
    and touched.metric = taken.metric
    and touched.day = taken.day;

create temporary table taken_ranges on commit drop as
select *
from rating.changed_ranges;

delete from rating.changed_ranges
using taken_ranges as taken
where
    changed_ranges.tenant_id = taken.tenant_id
    and changed_ranges.metric = taken.metric
    and changed_ranges.range_start = taken.range_start
    and changed_ranges.range_end = taken.range_end;

analyze taken_ranges;

-- 2. The days to work on: those that were touched, and of the changed spans those with usage, or that had some.
-- A tenant that the catalog has come to know, or lost, is classified anew.
create temporary table work_days on commit drop as
with spans as (
    select
        tenant_id,
        metric,
        date_trunc('day', range_start) as first_instant,
        date_trunc('day', range_end - interval '1 microsecond') + interval '1 day' as end_instant
    from taken_ranges
)

select
    tenant_id,
    metric,
    day
from taken_days
{% for relation, instant in [
    ('rollups.usage_hourly', 'hour'), ('rating.period_usage_daily', 'day'), ('rating.unrated_usage', 'piece_start'),
] -%}
union
select
    spans.tenant_id,
    spans.metric,
    used.{{ instant }}::date
from spans
inner join {{ relation }} as used
    on spans.tenant_id = used.tenant_id
        and spans.metric = used.metric
        and spans.first_instant <= used.{{ instant }}
        and spans.end_instant > used.{{ instant }}
{% endfor -%}
union
select
    unrated_usage.tenant_id,
    unrated_usage.metric,
    unrated_usage.piece_start::date
from rating.unrated_usage
where
    unrated_usage.reason <> 'unreadable_value'
    and (unrated_usage.reason = 'unknown_tenant') = exists (
        select 1
        from catalog.tenants
        where tenants.tenant_id = unrated_usage.tenant_id
    );

-- 3. The edges that cut an hour of these days: of the tenant's periods and trials, and of the slices that
-- charge for the metric. The parts of cut hours are read again, and of hours that are cut no more.
create temporary table edges on commit drop as
with tenants as (
    select
        tenant_id,
        min(day)::timestamptz as first_instant,
        (max(day) + 1)::timestamptz as end_instant
    from work_days
    group by tenant_id
),

period_edges as (
    select distinct
        tenants.tenant_id,
        sides.edge
    from tenants
    inner join rating.billing_periods as periods
        on tenants.tenant_id = periods.tenant_id
            and tenants.end_instant > periods.period_start
            and tenants.first_instant <= periods.period_end
    cross join lateral (values (periods.period_start), (periods.charged_from), (periods.period_end)) as sides (edge)
    where sides.edge <> {{ hour_of('sides.edge') }}
),

slice_edges as (
    select distinct
        tenants.tenant_id,
        slices.metric,
        slices.slice_start as edge
    from tenants
    inner join rating.charge_slices as slices
        on tenants.tenant_id = slices.tenant_id
            and tenants.first_instant <= slices.slice_start
            and tenants.end_instant > slices.slice_start
    where slices.component = 'usage' and slices.slice_start <> {{ hour_of('slices.slice_start') }}
)

select
    work_days.tenant_id,
    work_days.metric,
    period_edges.edge,
    {{ hour_of('period_edges.edge') }} as hour
from work_days
inner join period_edges
    on work_days.tenant_id = period_edges.tenant_id and work_days.day = period_edges.edge::date
union
select
    work_days.tenant_id,
    work_days.metric,
    slice_edges.edge,
    {{ hour_of('slice_edges.edge') }}
from work_days
inner join slice_edges
    on work_days.tenant_id = slice_edges.tenant_id
        and work_days.metric = slice_edges.metric
        and work_days.day = slice_edges.edge::date;

create temporary table stale_hours on commit drop as
select
    tenant_id,
    metric,
    hour
from edges
union
select
    taken_ranges.tenant_id,
    taken_ranges.metric,
    {{ hour_of('sides.edge') }}
from taken_ranges
cross join lateral (values (taken_ranges.range_start), (taken_ranges.range_end)) as sides (edge)
where sides.edge <> {{ hour_of('sides.edge') }};

{% for table in ['work_days', 'edges', 'stale_hours'] -%}
analyze {{ table }};

{% endfor -%}
select ledger.require_days(array(select distinct hour::date from edges));

delete from rating.edge_usage
using stale_hours
where
    edge_usage.tenant_id = stale_hours.tenant_id
    and edge_usage.metric = stale_hours.metric
    and edge_usage.piece_start >= stale_hours.hour
    and edge_usage.piece_start < stale_hours.hour + interval '1 hour';

with starts as (
    select
        tenant_id,
        metric,
        hour,
        hour as piece_start
    from edges
    union
    select
        tenant_id,
        metric,
        hour,
        edge
    from edges
),

pieces as (
    select
        tenant_id,
        metric as cut_metric,
        hour as cut_hour,
        piece_start,
        lead(piece_start, 1, hour + interval '1 hour') over (
            partition by tenant_id, metric, hour
            order by piece_start
        ) as piece_end
    from starts
),

standing as (
    select
        events.*,
        pieces.cut_metric,
        pieces.piece_start,
        pieces.piece_end,
        1 as sign
    from pieces
    inner join catalog.metrics on pieces.cut_metric = metrics.metric
    inner join ledger.usage_events as events
        on pieces.tenant_id = events.tenant_id
            and metrics.event_type = events.event_type
            and pieces.piece_start <= events.occurred_at
            and pieces.piece_end > events.occurred_at
    where not exists (
        select 1
        from ledger.voids
        where voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
    )
),

metered as (
    {{ metric_events('standing') }}
),

figures as (
    select
        metered.tenant_id,
        metered.metric,
        metered.dimensions,
        metered.piece_start,
        metered.piece_end,
        {{ bucket_figures() }}
    from metered
    where metered.metric = metered.cut_metric and metered.unreadable is null
    group by metered.tenant_id, metered.metric, metered.dimensions, metered.piece_start, metered.piece_end
)

insert into rating.edge_usage (
    tenant_id, metric, dimensions, piece_start, piece_end, {{ figure_columns() }}
)
select
    tenant_id,
    metric,
    dimensions,
    piece_start,
    piece_end,
    {{ figure_columns() }}
from figures;

-- 4. Every piece of the days, and the slice that charges for it. The catalog's validation sees to it that
-- there is at most one; a slice with a price goes before one that has none yet. What no row of a matrix names
-- has no price.
create temporary table attributed on commit drop as
with pieces as (
    select
        hours.tenant_id,
        hours.metric,
        work_days.day,
        hours.dimensions,
        hours.hour as piece_start,
        hours.hour + interval '1 hour' as piece_end,
        {{ figure_columns() }}
    from work_days
    inner join rollups.usage_hourly as hours
        on work_days.tenant_id = hours.tenant_id
            and work_days.metric = hours.metric
            and hours.hour >= work_days.day::timestamptz
            and hours.hour < (work_days.day + 1)::timestamptz
    where not exists (
        select 1
        from edges
        where edges.tenant_id = hours.tenant_id and edges.metric = hours.metric and edges.hour = hours.hour
    )
    union all
    select
        parts.tenant_id,
        parts.metric,
        work_days.day,
        parts.dimensions,
        parts.piece_start,
        parts.piece_end,
        {{ figure_columns() }}
    from work_days
    inner join rating.edge_usage as parts
        on work_days.tenant_id = parts.tenant_id
            and work_days.metric = parts.metric
            and parts.piece_start >= work_days.day::timestamptz
            and parts.piece_start < (work_days.day + 1)::timestamptz
)

select
    pieces.*,
    slices.subscription_id,
    slices.charge_id,
    slices.slice_start,
    slices.slice_end,
    case
        when
            slices.charge_model = 'matrix'
            and not exists (
                select 1
                from catalog.charge_tiers as rows
                where
                    rows.charge_id = slices.charge_id
                    and rows.version = slices.charge_version
                    and rows.dimension_values <@ pieces.dimensions
            ) then null
        else slices.charge_version
    end as charge_version
from pieces
left join lateral (
    select
        charge_slices.subscription_id,
        charge_slices.charge_id,
        charge_slices.slice_start,
        charge_slices.slice_end,
        charge_slices.charge_version,
        charge_slices.charge_model
    from rating.charge_slices
    where
        charge_slices.tenant_id = pieces.tenant_id
        and charge_slices.metric = pieces.metric
        and charge_slices.slice_start <= pieces.piece_start
        and charge_slices.slice_end > pieces.piece_start
        and pieces.dimensions @> charge_slices.dimension_route
    order by charge_slices.charge_version is null, charge_slices.subscription_id, charge_slices.charge_id
    limit 1
) as slices on true;

-- 5. The slices' usage by UTC day: replaced where it differs, and such a slice is to be rated again.
create temporary table wanted_usage on commit drop as
select
    subscription_id,
    charge_id,
    slice_start,
    slice_end,
    tenant_id,
    metric,
    day,
    {{ merged_figures('attributed') }}
from attributed
where charge_version is not null
group by subscription_id, charge_id, slice_start, slice_end, tenant_id, metric, day;

create temporary table standing_usage on commit drop as
select usage.*
from {{ this }} as usage
inner join work_days
    on usage.tenant_id = work_days.tenant_id
        and usage.metric = work_days.metric
        and usage.day = work_days.day;

{% for name, these, those in [
    ('old_usage', 'standing_usage', 'wanted_usage'), ('new_usage', 'wanted_usage', 'standing_usage'),
] -%}
create temporary table {{ name }} on commit drop as
select {{ usage_columns }}
from {{ these }}
except
select {{ usage_columns }}
from {{ those }};

{% endfor -%}
delete from {{ this }}
using old_usage as old
where
    period_usage_daily.subscription_id = old.subscription_id
    and period_usage_daily.charge_id = old.charge_id
    and period_usage_daily.slice_start = old.slice_start
    and period_usage_daily.day = old.day;

insert into {{ this }} ({{ usage_columns }})
select {{ usage_columns }}
from new_usage;

insert into rating.touched_slices (subscription_id, charge_id, component, slice_start)
select
    subscription_id,
    charge_id,
    'usage',
    slice_start
from old_usage
union
select
    subscription_id,
    charge_id,
    'usage',
    slice_start
from new_usage
union
-- a recurring metric carries the day's usage into every later slice, whatever charge held it
select
    slices.subscription_id,
    slices.charge_id,
    'usage',
    slices.slice_start
from work_days
inner join catalog.metrics on work_days.metric = metrics.metric and metrics.recurring
inner join rating.charge_slices as slices
    on work_days.tenant_id = slices.tenant_id
        and work_days.metric = slices.metric
        and slices.component = 'usage'
        and work_days.day::timestamptz < slices.slice_start
on conflict do nothing;

-- 6. What belongs to no charge. Where a price is missing or a value cannot be read, the invoice is held.
delete from rating.unrated_usage
using work_days
where
    unrated_usage.tenant_id = work_days.tenant_id
    and unrated_usage.metric = work_days.metric
    and unrated_usage.piece_start >= work_days.day::timestamptz
    and unrated_usage.piece_start < (work_days.day + 1)::timestamptz
    and unrated_usage.reason <> 'unreadable_value';

with reasoned as (
    select
        attributed.*,
        case
            when not exists (
                select 1
                from catalog.tenants
                where tenants.tenant_id = attributed.tenant_id
            ) then 'unknown_tenant'
            when attributed.charge_id is not null then 'no_price'
            when periods.charged_from > attributed.piece_start then 'in_trial'
            when periods.charged_from is not null then 'not_in_plan'
            else 'outside_subscription'
        end as reason
    from attributed
    left join lateral (
        select max(billing_periods.charged_from) as charged_from
        from rating.billing_periods
        where
            billing_periods.tenant_id = attributed.tenant_id
            and billing_periods.period_start <= attributed.piece_start
            and billing_periods.period_end > attributed.piece_start
    ) as periods on true
    where attributed.charge_version is null
)

insert into rating.unrated_usage (
    tenant_id, metric, dimensions, piece_start, piece_end, reason, holds, event_count, value_sum, event_digest,
    payload_digest
)
select
    tenant_id,
    metric,
    dimensions,
    piece_start,
    piece_end,
    reason,
    reason = 'no_price' as holds,
    event_count,
    value_sum,
    event_digest,
    payload_digest
from reasoned;

-- Values that a metric could not read are few: compared as a whole.
create temporary table unreadable on commit drop as
select
    tenant_id,
    metric,
    '{}'::jsonb as dimensions,
    hour as piece_start,
    hour + interval '1 hour' as piece_end,
    'unreadable_value' as reason,
    true as holds,
    sum(event_count)::bigint as event_count,
    0::numeric as value_sum,
    0::numeric as event_digest,
    0::numeric as payload_digest
from rollups.unreadable_values
group by tenant_id, metric, hour
having sum(event_count) > 0;

delete from rating.unrated_usage
where
    reason = 'unreadable_value'
    and not exists (
        select 1
        from unreadable
        where
            unreadable.tenant_id = unrated_usage.tenant_id
            and unreadable.metric = unrated_usage.metric
            and unreadable.piece_start = unrated_usage.piece_start
            and unreadable.event_count = unrated_usage.event_count
    );

insert into rating.unrated_usage (
    tenant_id, metric, dimensions, piece_start, piece_end, reason, holds, event_count, value_sum, event_digest,
    payload_digest
)
select *
from unreadable
on conflict do nothing;

update invoices.draft_state
set stale = true
where
    not stale
    and exists (
        select 1
        from rating.touched_slices
    );

{{ renew_statistics(['rating.period_usage_daily', 'rating.edge_usage']) }}
