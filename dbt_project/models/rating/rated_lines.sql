{{ config(materialized='posting', full_refresh=false) }}

{%- set key = ['subscription_id', 'charge_id', 'component', 'slice_start', 'currency'] %}
{%- set key_columns = key | join(', ') %}
{%- set slice_columns =
    key_columns ~ ', tier, quantity, unit_amount, flat_amount, rate_percent, dimension_values, amount' %}
{%- set line_columns = 'subscription_id, tenant_id, charge_id, charge_version, component, metric, slice_start, ' ~
    'slice_end, quantity, billable_quantity, event_count, event_digest, payload_digest, exact_amount, amount, ' ~
    'currency, timing, subscription_version, charged_days, full_days, complete' %}

-- Prices the touched slices: a line each, and its tier slices (rating.tier_slices), whose sum it is before it
-- is rounded; its discount, maximum and minimum are lines of their own beside it. An issued line is rated again
-- only if its usage digest, its span or its version is another than when it was rated; every line that nobody
-- touched stays as it is. A commitment is rated after the lines that count towards it, whenever one of them is.
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

insert into invoices.touched_subscriptions (subscription_id)
select distinct subscription_id
from taken
on conflict do nothing;

analyze taken;

-- What slices of a recurring metric carry from before them: all usage from the subscription's first period on, of
-- whole hours from the rollups, and of hours that an edge cuts the parts.
create temporary table carried on commit drop as
with slices as (
    select
        slices.*,
        (
            select min(periods.period_start)
            from rating.billing_periods as periods
            where periods.subscription_id = slices.subscription_id
        ) as counted_from
    from taken
    inner join rating.charge_slices as slices
        on taken.subscription_id = slices.subscription_id
            and taken.charge_id = slices.charge_id
            and taken.component = slices.component
            and taken.slice_start = slices.slice_start
    inner join catalog.metrics on slices.metric = metrics.metric and metrics.recurring
),

pieces as (
    select
        slices.*,
        hours.event_count,
        hours.value_sum,
        hours.event_digest,
        hours.payload_digest
    from slices
    inner join rollups.usage_hourly as hours
        on slices.tenant_id = hours.tenant_id
            and slices.metric = hours.metric
            and slices.counted_from <= hours.hour
            and slices.slice_start >= hours.hour + interval '1 hour'
            and slices.dimension_route <@ hours.dimensions
    union all
    select
        slices.*,
        parts.event_count,
        parts.value_sum,
        parts.event_digest,
        parts.payload_digest
    from slices
    inner join rating.edge_usage as parts
        on slices.tenant_id = parts.tenant_id
            and slices.metric = parts.metric
            and slices.counted_from <= parts.piece_start
            and slices.slice_start >= parts.piece_end
            and slices.dimension_route <@ parts.dimensions
            and (
                {{ hour_of('parts.piece_start') }} < slices.counted_from
                or {{ hour_of('parts.piece_start') }} + interval '1 hour' > slices.slice_start
            )
)

select
    slices.subscription_id,
    slices.charge_id,
    slices.slice_start,
    slices.counted_from,
    coalesce(sum(pieces.event_count), 0) as event_count,
    coalesce(sum(pieces.value_sum), 0) as value_sum,
    coalesce(sum(pieces.event_digest), 0) as event_digest,
    coalesce(sum(pieces.payload_digest), 0) as payload_digest
from slices
left join pieces using (subscription_id, charge_id, slice_start)
group by slices.subscription_id, slices.charge_id, slices.slice_start, slices.counted_from;

delete from rating.carried_usage
using taken
where
    carried_usage.subscription_id = taken.subscription_id
    and carried_usage.charge_id = taken.charge_id
    and carried_usage.slice_start = taken.slice_start
    and taken.component = 'usage';

insert into rating.carried_usage (
    subscription_id, charge_id, slice_start, day, event_count, value_sum, event_digest, payload_digest
)
select
    subscription_id,
    charge_id,
    slice_start,
    slice_start::date - 1 as day,
    event_count,
    value_sum,
    event_digest,
    payload_digest
from carried
where event_count > 0;

analyze carried;

-- Single values, for what no sum can tell: whole hours of the rollups, and of hours that an edge cuts the events.
create temporary table value_slices on commit drop as
select
    slices.subscription_id,
    slices.charge_id,
    slices.slice_start,
    coalesce(carried.counted_from, slices.slice_start) as counted_from,
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
left join carried
    on slices.subscription_id = carried.subscription_id
        and slices.charge_id = carried.charge_id
        and slices.slice_start = carried.slice_start
where slices.aggregation in ('unique_count', 'percentile');

create temporary table value_parts on commit drop as
select
    *,
    counted_from as part_start,
    least({{ hour_of('counted_from') }} + interval '1 hour', slice_end) as part_end
from value_slices
where {{ hour_of('counted_from') }} < counted_from
union all
select
    *,
    {{ hour_of('slice_end') }},
    slice_end
from value_slices
where {{ hour_of('slice_end') }} < slice_end and {{ hour_of('slice_end') }} >= counted_from;

select ledger.require_span(part_start, part_end)
from value_parts;

create temporary table slice_values on commit drop as
with standing as (
    select
        events.*,
        parts.subscription_id,
        parts.charge_id,
        parts.slice_start,
        parts.metric as charged_metric,
        parts.dimension_route,
        parts.aggregation,
        parts.percentile
    from value_parts as parts
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
from value_slices as slices
inner join rollups.unique_values_hourly as hours
    on slices.tenant_id = hours.tenant_id
        and slices.metric = hours.metric
        and slices.counted_from <= hours.hour
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
        }} + case when slices.aggregation = 'unique_count' then 0 else coalesce(carried.value_sum, 0) end
    end as quantity,
    coalesce(figures.event_count, 0) + coalesce(carried.event_count, 0) as event_count,
    coalesce(figures.event_digest, 0) + coalesce(carried.event_digest, 0) as event_digest,
    coalesce(figures.payload_digest, 0) + coalesce(carried.payload_digest, 0) as payload_digest
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
left join carried
    on slices.component = 'usage'
        and slices.subscription_id = carried.subscription_id
        and slices.charge_id = carried.charge_id
        and slices.slice_start = carried.slice_start
where slices.charge_version is not null and slices.component <> 'commitment';

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
-- 3. What is priced of each quantity. Where a percentage charge looks at each event: the events of the ledger.
select ledger.require_span(metered.slice_start, metered.slice_end)
from metered
inner join catalog.percentage_terms as terms
    on metered.charge_id = terms.charge_id and metered.charge_version = terms.version
where {{ reads_events('terms') }};

create temporary table charged_events on commit drop as
with slices as (
    select metered.*
    from metered
    inner join catalog.percentage_terms as terms
        on metered.charge_id = terms.charge_id and metered.charge_version = terms.version
    where {{ reads_events('terms') }}
),

standing as (
    select
        events.*,
        slices.subscription_id,
        slices.charge_id,
        slices.component,
        slices.slice_start,
        slices.currency,
        slices.charge_version,
        slices.metric as charged_metric,
        slices.dimension_route
    from slices
    inner join ledger.usage_events as events
        on slices.tenant_id = events.tenant_id
            and slices.slice_start <= events.occurred_at
            and slices.slice_end > events.occurred_at
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
    {{ key_columns }},
    charge_version,
    occurred_at,
    fingerprint,
    value as quantity
from measured
where metric = charged_metric and unreadable is null and dimension_route <@ dimensions;

create temporary table billable on commit drop as
with paid as (
    {{ paid_events('charged_events', key) }}
)

select
    metered.*,
    charges.discount_percent,
    charges.discount_amount,
    charges.maximum_amount,
    charges.minimum_amount,
    charges.prorated,
    case
        when metered.component = 'flat' then metered.quantity
        when {{ reads_events('terms') }} then coalesce(paid.billable_quantity, 0)
        else {{ billable_quantity('converted.quantity', 'charges') }}
    end as billable_quantity,
    case when {{ reads_events('terms') }} then coalesce(paid.billable_events, 0) else metered.event_count end
        as billable_events,
    coalesce(paid.limited_events, 0) as limited_events,
    coalesce(paid.limit_amount, 0) as limit_amount
from metered
inner join catalog.charges
    on metered.charge_id = charges.charge_id and metered.charge_version = charges.version
left join catalog.percentage_terms as terms
    on metered.charge_id = terms.charge_id and metered.charge_version = terms.version
left join paid
    on metered.subscription_id = paid.subscription_id
        and metered.charge_id = paid.charge_id
        and metered.component = paid.component
        and metered.slice_start = paid.slice_start
        and metered.currency = paid.currency
cross join lateral (select {{ converted_quantity('metered.quantity', 'charges') }} as quantity) as converted;

-- Of a matrix the usage by dimensions: whole hours of the rollups, and the parts of hours that its edges cut.
create temporary table matrix_usage on commit drop as
with matrices as (
    select *
    from metered
    where charge_model = 'matrix'
),

pieces as (
    select
        matrices.*,
        hours.dimensions,
        hours.event_count as used_count,
        hours.value_sum as used_sum
    from matrices
    inner join rollups.usage_hourly as hours
        on matrices.tenant_id = hours.tenant_id
            and matrices.metric = hours.metric
            and matrices.slice_start <= hours.hour
            and matrices.slice_end >= hours.hour + interval '1 hour'
            and matrices.dimension_route <@ hours.dimensions
    union all
    select
        matrices.*,
        parts.dimensions,
        parts.event_count,
        parts.value_sum
    from matrices
    inner join rating.edge_usage as parts
        on matrices.tenant_id = parts.tenant_id
            and matrices.metric = parts.metric
            and matrices.slice_start <= parts.piece_start
            and matrices.slice_end >= parts.piece_end
            and matrices.dimension_route <@ parts.dimensions
            and (
                {{ hour_of('parts.piece_start') }} < matrices.slice_start
                or {{ hour_of('parts.piece_start') }} + interval '1 hour' > matrices.slice_end
            )
)

select
    {{ key_columns }},
    charge_version,
    dimensions,
    case aggregation when 'count' then sum(used_count) else sum(used_sum) end as quantity
from pieces
group by {{ key_columns }}, charge_version, dimensions, aggregation;

{% for table in ['billable', 'matrix_usage'] -%}
analyze {{ table }};

{% endfor -%}
-- 4. The tiers that it reaches, and the line: their sum, rounded once.
create temporary table priced on commit drop as
with slices as (
    {{ priced_slices('billable', key) }}
    union all
    {{ matrix_slices('matrix_usage', key) }}
)

select
    {{ key_columns }},
    tier,
    {{ cut_quantity('quantity') }} as quantity,
    unit_amount,
    flat_amount,
    rate_percent,
    dimension_values,
    amount
from slices;

create temporary table rated on commit drop as
with sums as (
    select
        {{ key_columns }},
        sum(quantity) as quantity,
        sum(amount) as amount
    from priced
    group by {{ key_columns }}
)

select
    billable.*,
    case when billable.charge_model = 'matrix' then coalesce(sums.quantity, 0) else billable.billable_quantity end
        as priced_quantity,
    coalesce(sums.amount, 0) as exact_amount,
    {{ round_money('coalesce(sums.amount, 0)', 'billable.minor_digits') }} as amount
from billable
left join sums using ({{ key_columns }});

-- 5. What comes beside a line, each rounded once: a discount (a percentage of the rounded amount, rounded, then a
-- fixed amount, never more than is left), what lies above the maximum, and, when the period is over, what is
-- missing to the minimum, by days. Slice 2 of the last two is what they are compared with.
create temporary table beside on commit drop as
select
    rated.subscription_id,
    rated.charge_id,
    parts.component,
    rated.slice_start,
    rated.currency,
    rated.component as beside_component,
    parts.tier,
    parts.quantity,
    parts.flat_amount,
    parts.rate_percent,
    parts.amount
from rated
{{ reduced_amounts('rated') }}
cross join lateral (
    select
        discounted.amount - above.excess as amount,
        case
            when rated.prorated
                then {{ prorated('rated.minimum_amount', 'rated.charged_days', 'rated.full_days') }}
            else rated.minimum_amount
        end as minimum
) as kept
cross join lateral (
    values
    (
        'discount', 1, rated.amount, 0, -least(rated.discount_percent, 100), -first_discount.percentage,
        first_discount.percentage <> 0
    ),
    (
        'discount', 2, 1, -rated.discount_amount, 0, -second_discount.fixed,
        {{ round_money('second_discount.fixed', 'rated.minor_digits') }} <> 0
    ),
    ('maximum', 1, 1, rated.maximum_amount, 0, rated.maximum_amount, above.excess > 0),
    ('maximum', 2, 1, -discounted.amount, 0, -discounted.amount, above.excess > 0),
    (
        'minimum', 1, 1, rated.minimum_amount, 0, kept.minimum,
        rated.complete and {{ round_money('kept.minimum - kept.amount', 'rated.minor_digits') }} > 0
    ),
    (
        'minimum', 2, 1, -kept.amount, 0, -kept.amount,
        rated.complete and {{ round_money('kept.minimum - kept.amount', 'rated.minor_digits') }} > 0
    )
) as parts (component, tier, quantity, flat_amount, rate_percent, amount, due)
where
    parts.due
    and (
        rated.discount_percent > 0
        or rated.discount_amount > 0
        or rated.maximum_amount is not null
        or (rated.minimum_amount > 0 and rated.component = 'usage')
    );

-- 6. Replace the lines and their slices; a slice that is no longer charged leaves no line.
{% for table in ['rated_lines', 'tier_slices'] -%}
delete from rating.{{ table }}
using taken
where
    {{ table }}.subscription_id = taken.subscription_id
    and {{ table }}.charge_id = taken.charge_id
    and {{ table }}.slice_start = taken.slice_start;

{% endfor -%}
insert into rating.tier_slices ({{ slice_columns }})
select {{ slice_columns }}
from priced
union all
select
    {{ key_columns }},
    tier,
    quantity,
    0 as unit_amount,
    flat_amount,
    rate_percent,
    '{}'::jsonb as dimension_values,
    amount
from beside;

insert into {{ this }} ({{ line_columns }})
with besides as (
    select
        {{ key_columns }},
        beside_component,
        sum(amount) as exact_amount
    from beside
    group by {{ key_columns }}, beside_component
),

lines as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        component as beside_component,
        quantity,
        {{ cut_quantity('priced_quantity') }} as billable_quantity,
        exact_amount
    from rated
    union all
    select
        {{ key_columns }},
        beside_component,
        1,
        1,
        exact_amount
    from besides
)

select
    rated.subscription_id,
    rated.tenant_id,
    rated.charge_id,
    rated.charge_version,
    lines.component,
    rated.metric,
    rated.slice_start,
    rated.slice_end,
    lines.quantity,
    lines.billable_quantity,
    rated.event_count,
    rated.event_digest,
    rated.payload_digest,
    lines.exact_amount,
    {{ round_money('lines.exact_amount', 'rated.minor_digits') }} as amount,
    rated.currency,
    rated.timing,
    rated.subscription_version,
    rated.charged_days,
    rated.full_days,
    rated.complete
from lines
inner join rated
    on lines.subscription_id = rated.subscription_id
        and lines.charge_id = rated.charge_id
        and lines.beside_component = rated.component
        and lines.slice_start = rated.slice_start
        and lines.currency = rated.currency;

-- 7. Commitments, when their period is over: what the plan's other lines that start within it leave of them.
-- Rated whenever one of those lines was.
create temporary table commitments on commit drop as
select
    slices.*,
    charges.plan_id,
    charges.prorated
from rating.charge_slices as slices
inner join catalog.charges
    on slices.charge_id = charges.charge_id and slices.charge_version = charges.version
where
    slices.component = 'commitment'
    and exists (
        select 1
        from taken
        where
            taken.subscription_id = slices.subscription_id
            and taken.slice_start >= slices.slice_start
            and taken.slice_start < slices.slice_end
    );

{% for table in ['rated_lines', 'tier_slices'] -%}
delete from rating.{{ table }}
using commitments
where
    {{ table }}.subscription_id = commitments.subscription_id
    and {{ table }}.charge_id = commitments.charge_id
    and {{ table }}.slice_start = commitments.slice_start;

{% endfor -%}
create temporary table open_commitments on commit drop as
with used as (
    select
        commitments.subscription_id,
        commitments.charge_id,
        commitments.slice_start,
        sum(lines.amount) as amount
    from commitments
    inner join {{ this }} as lines
        on commitments.subscription_id = lines.subscription_id
            and commitments.currency = lines.currency
            and commitments.slice_start <= lines.slice_start
            and commitments.slice_end > lines.slice_start
    where
        lines.component <> 'commitment'
        and lines.charge_id in (
            select charges.charge_id
            from catalog.charges
            where charges.plan_id = commitments.plan_id
        )
    group by commitments.subscription_id, commitments.charge_id, commitments.slice_start
)

select
    commitments.*,
    tiers.flat_amount as committed,
    agreed.amount as agreed,
    coalesce(used.amount, 0) as used,
    {{ round_money('agreed.amount - coalesce(used.amount, 0)', 'commitments.minor_digits') }} as amount
from commitments
inner join catalog.charge_tiers as tiers
    on commitments.charge_id = tiers.charge_id and commitments.charge_version = tiers.version
left join used
    on commitments.subscription_id = used.subscription_id
        and commitments.charge_id = used.charge_id
        and commitments.slice_start = used.slice_start
cross join lateral (
    select
        case
            when commitments.prorated
                then {{ prorated('tiers.flat_amount', 'commitments.charged_days', 'commitments.full_days') }}
            else tiers.flat_amount
        end as amount
) as agreed
where
    commitments.complete
    and {{ round_money('agreed.amount - coalesce(used.amount, 0)', 'commitments.minor_digits') }} > 0;

insert into rating.tier_slices ({{ slice_columns }})
select
    {{ key_columns }},
    parts.tier,
    1 as quantity,
    0 as unit_amount,
    parts.flat_amount,
    0 as rate_percent,
    '{}'::jsonb as dimension_values,
    parts.amount
from open_commitments
cross join lateral (values (1, committed, agreed), (2, -used, -used)) as parts (tier, flat_amount, amount);

insert into {{ this }} ({{ line_columns }})
select
    subscription_id,
    tenant_id,
    charge_id,
    charge_version,
    component,
    metric,
    slice_start,
    slice_end,
    1 as quantity,
    1 as billable_quantity,
    0 as event_count,
    0 as event_digest,
    0 as payload_digest,
    agreed - used as exact_amount,
    amount,
    currency,
    timing,
    subscription_version,
    charged_days,
    full_days,
    complete
from open_commitments;

update invoices.draft_state
set stale = true
where
    not stale
    and exists (
        select 1
        from taken
    );

{{ renew_statistics(['rating.rated_lines', 'rating.tier_slices']) }}
