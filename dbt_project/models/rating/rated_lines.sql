{{ config(materialized='posting', full_refresh=false) }}

-- Prices the touched slices: a line each, and its tier slices (rating.tier_slices), whose sum it is before it
-- is rounded. An issued line is rated again only if its usage digest, its span or its version is another
-- than when it was rated; every line that nobody touched stays as it is.
-- Depends on {{ ref('period_usage_daily') }}.

set local time zone 'UTC';

-- 1. Take the queue, with the usage of each slice as it is now.
create temporary table taken on commit drop as
select *
from rating.touched_slices;

delete from rating.touched_slices
using taken
where
    touched_slices.subscription_id = taken.subscription_id
    and touched_slices.charge_id = taken.charge_id
    and touched_slices.component = taken.component
    and touched_slices.slice_start = taken.slice_start;

analyze taken;

-- Single values, for what no sum can tell: whole hours of the rollups, and of hours that an edge cuts the events.
create temporary table slice_values on commit drop as
with slices as (
    select
        slices.subscription_id,
        slices.charge_id,
        slices.slice_start,
        slices.slice_end,
        slices.tenant_id,
        slices.metric,
        slices.dimension_route,
        slices.aggregation,
        metrics.percentile
    from taken
    inner join rating.charge_slices as slices
        on taken.subscription_id = slices.subscription_id
            and taken.charge_id = slices.charge_id
            and taken.component = slices.component
            and taken.slice_start = slices.slice_start
    inner join catalog.metrics on slices.metric = metrics.metric
    where slices.aggregation in ('unique_count', 'percentile')
),

parts as (
    select
        *,
        slice_start as part_start,
        least({{ hour_of('slice_start') }} + interval '1 hour', slice_end) as part_end
    from slices
    where {{ hour_of('slice_start') }} < slice_start
    union all
    select
        *,
        {{ hour_of('slice_end') }},
        slice_end
    from slices
    where {{ hour_of('slice_end') }} < slice_end and {{ hour_of('slice_end') }} >= slice_start
),

standing as (
    select
        events.*,
        parts.subscription_id,
        parts.charge_id,
        parts.slice_start,
        parts.metric as charged_metric,
        parts.dimension_route,
        parts.aggregation,
        parts.percentile
    from parts
    inner join ledger.usage_events as events
        on parts.tenant_id = events.tenant_id
            and parts.part_start <= events.occurred_at
            and parts.part_end > events.occurred_at
    where not exists (
        select 1
        from ledger.voids
        where voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
    )
),

measured as (
    {{ metric_events('standing') }}
)

select
    slices.subscription_id,
    slices.charge_id,
    slices.slice_start,
    slices.aggregation,
    slices.percentile,
    hours.value,
    hours.event_count,
    hours.latest_at,
    hours.latest_fingerprint,
    hours.removed
from slices
inner join rollups.unique_values_hourly as hours
    on slices.tenant_id = hours.tenant_id
        and slices.metric = hours.metric
        and slices.slice_start <= hours.hour
        and slices.slice_end >= hours.hour + interval '1 hour'
        and slices.dimension_route <@ hours.dimensions
union all
select
    subscription_id,
    charge_id,
    slice_start,
    aggregation,
    percentile,
    unique_value,
    1,
    occurred_at,
    fingerprint,
    removed
from measured
where metric = charged_metric and unreadable is null and dimension_route <@ dimensions;

create temporary table metered on commit drop as
with counted as (
    {{ quantities_from_values('slice_values', ['subscription_id', 'charge_id', 'slice_start']) }}
),

figures as (
    select
        taken.subscription_id,
        taken.charge_id,
        taken.slice_start,
        {{ merged_figures('usage') }}
    from taken
    inner join rating.period_usage_daily as usage
        on taken.subscription_id = usage.subscription_id
            and taken.charge_id = usage.charge_id
            and taken.slice_start = usage.slice_start
    where taken.component = 'usage'
    group by taken.subscription_id, taken.charge_id, taken.slice_start
)

select
    slices.*,
    case
        when slices.component = 'flat' then 1
        else {{
            aggregated_quantity('slices.aggregation', 'figures', 'slices.slice_start', 'slices.slice_end', 'counted')
        }}
    end as quantity,
    coalesce(figures.event_count, 0) as event_count,
    coalesce(figures.event_digest, 0) as event_digest,
    coalesce(figures.payload_digest, 0) as payload_digest
from taken
inner join rating.charge_slices as slices
    on taken.subscription_id = slices.subscription_id
        and taken.charge_id = slices.charge_id
        and taken.component = slices.component
        and taken.slice_start = slices.slice_start
left join figures
    on slices.component = 'usage'
        and slices.subscription_id = figures.subscription_id
        and slices.charge_id = figures.charge_id
        and slices.slice_start = figures.slice_start
left join counted
    on slices.component = 'usage'
        and slices.subscription_id = counted.subscription_id
        and slices.charge_id = counted.charge_id
        and slices.slice_start = counted.slice_start
where slices.charge_version is not null;

-- 2. The past is not re-priced by accident: an issued line with the same usage, span and version stays.
create temporary table settled on commit drop as
select
    metered.subscription_id,
    metered.charge_id,
    metered.component,
    metered.slice_start
from metered
inner join {{ this }} as lines
    on metered.subscription_id = lines.subscription_id
        and metered.charge_id = lines.charge_id
        and metered.component = lines.component
        and metered.slice_start = lines.slice_start
        and metered.currency = lines.currency
where
    metered.slice_end = lines.slice_end
    and metered.charge_version = lines.charge_version
    and metered.charged_days = lines.charged_days
    and metered.full_days = lines.full_days
    and (metered.complete = lines.complete or metered.component <> 'usage')
    and metered.event_digest = lines.event_digest
    and metered.payload_digest = lines.payload_digest
    and not {{ rating_afresh() }}
    and exists (
        select 1
        from invoices.issued_invoice_lines as issued
        where
            issued.subscription_id = metered.subscription_id
            and issued.charge_id = metered.charge_id
            and issued.component = metered.component
            and issued.slice_start = metered.slice_start
            and issued.currency = metered.currency
    );

{% for table in ['taken', 'metered'] -%}
delete from {{ table }}
using settled
where
    {{ table }}.subscription_id = settled.subscription_id
    and {{ table }}.charge_id = settled.charge_id
    and {{ table }}.component = settled.component
    and {{ table }}.slice_start = settled.slice_start;

{% endfor -%}
-- 3. The quantity that is priced, and the tiers that it reaches.
create temporary table billable on commit drop as
select
    metered.*,
    case
        when metered.component = 'flat' then metered.quantity
        else {{ billable_quantity('converted.quantity', 'charges') }}
    end as billable_quantity
from metered
inner join catalog.charges
    on metered.charge_id = charges.charge_id and metered.charge_version = charges.version
cross join lateral (select {{ converted_quantity('metered.quantity', 'charges') }} as quantity) as converted;

create temporary table priced on commit drop as
{{ priced_slices('billable', ['subscription_id', 'charge_id', 'component', 'slice_start', 'currency']) }};

-- 4. Replace the lines and their slices; a slice that is no longer charged leaves no line.
{% for table in ['rated_lines', 'tier_slices'] -%}
delete from rating.{{ table }}
using taken
where
    {{ table }}.subscription_id = taken.subscription_id
    and {{ table }}.charge_id = taken.charge_id
    and {{ table }}.component = taken.component
    and {{ table }}.slice_start = taken.slice_start;

{% endfor -%}
insert into rating.tier_slices (
    subscription_id, charge_id, component, slice_start, currency, tier, quantity, unit_amount, flat_amount,
    rate_percent, dimension_values, amount
)
select
    subscription_id,
    charge_id,
    component,
    slice_start,
    currency,
    tier,
    {{ cut_quantity('quantity') }},
    unit_amount,
    flat_amount,
    rate_percent,
    dimension_values,
    amount
from priced;

with exact as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        sum(amount) as exact_amount
    from priced
    group by subscription_id, charge_id, component, slice_start
)

insert into {{ this }} (
    subscription_id, tenant_id, charge_id, charge_version, component, metric, slice_start, slice_end, quantity,
    billable_quantity, event_count, event_digest, payload_digest, exact_amount, amount, currency, timing, subscription_version,
    charged_days, full_days, complete
)
select
    billable.subscription_id,
    billable.tenant_id,
    billable.charge_id,
    billable.charge_version,
    billable.component,
    billable.metric,
    billable.slice_start,
    billable.slice_end,
    billable.quantity,
    {{ cut_quantity('billable.billable_quantity') }},
    billable.event_count,
    billable.event_digest,
    billable.payload_digest,
    exact.exact_amount,
    {{ round_money('exact.exact_amount', 'billable.minor_digits') }},
    billable.currency,
    billable.timing,
    billable.subscription_version,
    billable.charged_days,
    billable.full_days,
    billable.complete
from billable
inner join exact
    on billable.subscription_id = exact.subscription_id
        and billable.charge_id = exact.charge_id
        and billable.component = exact.component
        and billable.slice_start = exact.slice_start;

update invoices.draft_state
set stale = true
where
    not stale
    and exists (
        select 1
        from taken
    )
