{{ config(materialized='posting', full_refresh=false) }}

-- The billing periods of every subscription up to the end of the landed hours, and what is charged in each
-- (rating.charge_slices). Computed anew are subscriptions for which the catalog says something else than before,
-- and of the others the periods that ended since, with those that follow. Both are compared with what stands;
-- only what differs is written and handed on: spans of time to attribute anew, slices to rate anew.
-- Depends on the catalog: {{ ref('catalog_versions') }}; the landed hours: {{ source('landing', 'hours') }}.

{%- set columns = {
    'billing_periods': [
        'subscription_id', 'tenant_id', 'plan_id', 'subscription_version', 'currency', 'time_zone',
        'billing_interval', 'interval_count', 'period_start', 'period_end', 'charged_from', 'full_period_start',
        'full_period_end',
    ],
    'charge_slices': [
        'subscription_id', 'charge_id', 'component', 'slice_start', 'slice_end', 'tenant_id',
        'subscription_version', 'currency', 'minor_digits', 'metric', 'aggregation', 'dimension_route',
        'charge_version', 'charge_model', 'timing', 'price_sha256', 'charged_days', 'full_days', 'complete',
    ],
} %}

set local time zone 'UTC';

-- 1. What is to be computed.
create temporary table horizon on commit drop as
select
    -- before the first landed hour there is no period yet
    coalesce(built_from.horizon, '-infinity') as previous,
    landed.instant,
    coalesce(published.version <> built_from.catalog_version, true) as catalog_changed
from rating.built_from
cross join (
    select max(landed_hour) + interval '1 hour' as instant
    from landing.hours
) as landed
cross join (
    select max(catalog_version) as version
    from catalog.versions
) as published;

-- All that decides the price of a version.
create temporary table prices on commit drop as
select
    charges.charge_id,
    charges.version,
    charges.plan_id,
    encode(sha256(convert_to(
        concat_ws(
            e'\n',
            (to_jsonb(charges) - 'description')::text,
            string_agg(to_jsonb(charge_tiers)::text, e'\n' order by charge_tiers.tier),
            min(to_jsonb(percentage_terms)::text)
        ),
        'UTF8'
    )), 'hex') as price_sha256
from catalog.charges
left join catalog.charge_tiers
    on charges.charge_id = charge_tiers.charge_id and charges.version = charge_tiers.version
left join catalog.percentage_terms
    on charges.charge_id = percentage_terms.charge_id and charges.version = percentage_terms.version
group by charges.charge_id, charges.version;

create temporary table plan_charges on commit drop as
select distinct on (charges.charge_id)
    charges.charge_id,
    charges.plan_id,
    charges.component,
    charges.version as first_version,
    coalesce(charges.billing_interval, plans.billing_interval) as billing_interval,
    case
        when charges.billing_interval is null then plans.interval_count
        else coalesce(charges.interval_count, 1)
    end as interval_count
from catalog.charges
inner join catalog.plans on charges.plan_id = plans.plan_id
order by charges.charge_id, charges.version;

create temporary table intervals on commit drop as
select
    plan_id,
    billing_interval,
    interval_count
from catalog.plans
union
select
    plan_id,
    billing_interval,
    interval_count
from plan_charges;

-- All that the catalog says about each subscription, in one digest; not looked at while the catalog is the same.
create temporary table wanted_terms on commit drop as
with plan_terms as (
    select
        plans.plan_id,
        concat_ws(
            e'\n',
            (to_jsonb(plans) - array['name', 'minimum_document_amount'])::text,
            min(currencies.minor_digits),
            string_agg(
                concat_ws(' ', prices.price_sha256, metrics.aggregation, metrics.recurring),
                e'\n' order by prices.charge_id, prices.version
            )
        ) as terms
    from catalog.plans
    inner join catalog.currencies on plans.currency = currencies.currency
    left join prices on plans.plan_id = prices.plan_id
    left join catalog.charges on prices.charge_id = charges.charge_id and prices.version = charges.version
    left join catalog.metrics on charges.metric = metrics.metric
    group by plans.plan_id
),

correction_terms as (
    select
        subscription_id,
        string_agg(to_jsonb(corrections)::text, e'\n' order by correction_id) as terms
    from catalog.corrections
    group by subscription_id
)

select
    subscriptions.subscription_id,
    sha256(convert_to(
        concat_ws(
            e'\n',
            (to_jsonb(subscriptions) - array['recorded_at', 'recorded_by'])::text,
            plan_terms.terms,
            correction_terms.terms
        ),
        'UTF8'
    )) as terms_sha256
from catalog.current_subscriptions as subscriptions
inner join plan_terms on subscriptions.plan_id = plan_terms.plan_id
left join correction_terms on subscriptions.subscription_id = correction_terms.subscription_id
where (select horizon.catalog_changed from horizon);

create temporary table changed on commit drop as
select subscription_id
from wanted_terms
full join rating.built_subscriptions as built using (subscription_id)
where
    wanted_terms.terms_sha256 is distinct from built.terms_sha256
    and (select horizon.catalog_changed from horizon);

delete from rating.built_subscriptions
using changed
where built_subscriptions.subscription_id = changed.subscription_id;

insert into rating.built_subscriptions (subscription_id, terms_sha256)
select
    wanted_terms.subscription_id,
    wanted_terms.terms_sha256
from wanted_terms
inner join changed using (subscription_id);

-- Of the others a period that has ended since is computed again with its successor: should the clock rules of its
-- zone have changed, its end moves. What starts since has no period yet.
create temporary table renewed on commit drop as
with ended as (
    select
        periods.subscription_id,
        periods.billing_interval,
        periods.interval_count,
        periods.period_start
    from rating.billing_periods as periods
    cross join horizon
    where periods.period_end >= horizon.previous and periods.period_end < horizon.instant
    union all
    select
        subscriptions.subscription_id,
        intervals.billing_interval,
        intervals.interval_count,
        subscriptions.started_at
    from catalog.current_subscriptions as subscriptions
    inner join intervals on subscriptions.plan_id = intervals.plan_id
    cross join horizon
    where subscriptions.started_at >= horizon.previous and subscriptions.started_at < horizon.instant
)

select
    ended.subscription_id,
    ended.billing_interval,
    ended.interval_count,
    min(ended.period_start) as from_instant
from ended
where not exists (
    select 1
    from changed
    where changed.subscription_id = ended.subscription_id
)
group by ended.subscription_id, ended.billing_interval, ended.interval_count;

{% for table in ['prices', 'plan_charges', 'intervals', 'changed', 'renewed'] -%}
analyze {{ table }};

{% endfor -%}
-- 2. The periods: of each subscription by its plan's interval, and by those that charges of the plan have of
-- their own. Boundaries are the anchor plus k intervals in local wall time, the day clamped from the anchor.
create temporary table wanted_periods on commit drop as
with work as (
    select
        subscriptions.subscription_id,
        intervals.billing_interval,
        intervals.interval_count,
        subscriptions.started_at as from_instant
    from changed
    inner join catalog.current_subscriptions as subscriptions
        on changed.subscription_id = subscriptions.subscription_id
    inner join intervals on subscriptions.plan_id = intervals.plan_id
    union all
    select
        subscription_id,
        billing_interval,
        interval_count,
        from_instant
    from renewed
),

subscriptions as (
    select
        subscriptions.*,
        plans.currency,
        work.billing_interval,
        work.interval_count,
        work.from_instant,
        {{ interval_months('work.billing_interval', 'work.interval_count') }} as months,
        {{ interval_days('work.billing_interval', 'work.interval_count') }} as days,
        subscriptions.anchor_date + subscriptions.anchor_time as anchor,
        horizon.instant as horizon,
        {{ local_day('work.from_instant', 'subscriptions.time_zone') }} as first_day,
        {{ local_day('least(subscriptions.ended_at, horizon.instant)', 'subscriptions.time_zone') }} as last_day
    from work
    inner join catalog.current_subscriptions as subscriptions
        on work.subscription_id = subscriptions.subscription_id
    inner join catalog.plans on subscriptions.plan_id = plans.plan_id
    cross join horizon
    where subscriptions.started_at < horizon.instant
),

-- A step more at the end, where the last period ends; two before, since a clock change may move a boundary.
boundaries as (
    select
        subscriptions.subscription_id,
        subscriptions.billing_interval,
        subscriptions.interval_count,
        walls.wall_time,
        {{ instant_of('walls.wall_time', 'subscriptions.time_zone') }} as boundary
    from subscriptions
    cross join lateral generate_series(
        {{ steps_apart('subscriptions.anchor_date', 'subscriptions.first_day', 'months', 'days') }} - 2,
        {{ steps_apart('subscriptions.anchor_date', 'subscriptions.last_day', 'months', 'days') }} + 1
    ) as steps (step)
    cross join lateral (
        select
            subscriptions.anchor
            + make_interval(months => subscriptions.months * steps.step, days => subscriptions.days * steps.step)
                as wall_time
    ) as walls
),

full_periods as (
    select
        subscription_id,
        billing_interval,
        interval_count,
        boundary as full_period_start,
        lead(boundary) over (
            partition by subscription_id, billing_interval, interval_count
            order by wall_time
        ) as full_period_end
    from boundaries
)

select
    subscriptions.subscription_id,
    subscriptions.tenant_id,
    subscriptions.plan_id,
    subscriptions.version as subscription_version,
    subscriptions.currency,
    subscriptions.time_zone,
    subscriptions.billing_interval,
    subscriptions.interval_count,
    greatest(full_periods.full_period_start, subscriptions.from_instant) as period_start,
    least(full_periods.full_period_end, subscriptions.ended_at) as period_end,
    least(
        greatest(full_periods.full_period_start, subscriptions.from_instant, subscriptions.trial_ends_at),
        full_periods.full_period_end, subscriptions.ended_at
    ) as charged_from,
    full_periods.full_period_start,
    full_periods.full_period_end,
    {{ local_day('full_periods.full_period_end', 'subscriptions.time_zone') }}
    - {{ local_day('full_periods.full_period_start', 'subscriptions.time_zone') }} as full_days
from subscriptions
inner join full_periods
    on subscriptions.subscription_id = full_periods.subscription_id
        and subscriptions.billing_interval = full_periods.billing_interval
        and subscriptions.interval_count = full_periods.interval_count
where
    full_periods.full_period_end > subscriptions.from_instant
    and greatest(full_periods.full_period_start, subscriptions.from_instant)
    < least(full_periods.full_period_end, subscriptions.ended_at, subscriptions.horizon);

analyze wanted_periods;

-- 3. The slices: each charge of the plan in each period of its interval, from the end of a trial on. A version
-- that takes effect at once cuts a period on its day, unless the day lies inside a slice that was issued: then
-- a correction has to name the cut. A correction says which version prices a slice, else the last issued line
-- pins it, else it is the one in force when the period, or the cut, starts.
create temporary table corrected on commit drop as
select distinct on (subscription_id, charge_id, period_start)
    subscription_id,
    charge_id,
    period_start as slice_start,
    version
from catalog.corrections
order by subscription_id, charge_id, period_start, recorded_at desc, correction_id desc;

create temporary table issued on commit drop as
select distinct on (lines.subscription_id, lines.charge_id, lines.slice_start)
    lines.subscription_id,
    lines.charge_id,
    lines.slice_start,
    lines.slice_end,
    lines.charge_version
from (
    select
        subscription_id,
        min(period_start) as first_start
    from wanted_periods
    group by subscription_id
) as periods
inner join invoices.issued_invoice_lines as lines
    on periods.subscription_id = lines.subscription_id and periods.first_start < lines.slice_end
inner join invoices.issued_invoices as documents on lines.invoice_number = documents.invoice_number
where not {{ rating_afresh() }}
order by
    lines.subscription_id, lines.charge_id, lines.slice_start,
    documents.issued_at desc, documents.series_number desc, lines.line_number desc;

{% for table in ['corrected', 'issued'] -%}
analyze {{ table }};

{% endfor -%}
create temporary table wanted_slices on commit drop as
with cuts as (
    select
        periods.subscription_id,
        plan_charges.charge_id,
        periods.period_start,
        array_agg(days.instant order by days.instant) as instants
    from wanted_periods as periods
    inner join plan_charges using (plan_id, billing_interval, interval_count)
    inner join catalog.charges
        on plan_charges.charge_id = charges.charge_id
            and plan_charges.first_version < charges.version
            and charges.takes_effect = 'at_once'
    cross join lateral (
        select {{ instant_of('charges.effective_from::timestamp', 'periods.time_zone') }} as instant
    ) as days
    where
        days.instant > periods.charged_from
        and days.instant < periods.period_end
        and (
            not exists (
                select 1
                from issued
                where
                    issued.subscription_id = periods.subscription_id
                    and issued.charge_id = plan_charges.charge_id
                    and issued.slice_start < days.instant
                    and issued.slice_end > days.instant
            )
            or exists (
                select 1
                from corrected
                where
                    corrected.subscription_id = periods.subscription_id
                    and corrected.charge_id = plan_charges.charge_id
                    and corrected.slice_start = days.instant
            )
        )
    group by periods.subscription_id, plan_charges.charge_id, periods.period_start
),

spans as (
    select
        periods.*,
        plan_charges.charge_id,
        plan_charges.component,
        plan_charges.first_version,
        parts.slice_start,
        parts.slice_end,
        {{ local_day('periods.period_start', 'periods.time_zone') }} as period_day,
        {{ local_day('parts.slice_start', 'periods.time_zone') }} as first_day,
        {{ local_day('parts.slice_end', 'periods.time_zone') }} as end_day
    from wanted_periods as periods
    inner join plan_charges using (plan_id, billing_interval, interval_count)
    left join cuts
        on periods.subscription_id = cuts.subscription_id
            and plan_charges.charge_id = cuts.charge_id
            and periods.period_start = cuts.period_start
    cross join lateral unnest(
        array[periods.charged_from] || cuts.instants, cuts.instants || array[periods.period_end]
    ) as parts (slice_start, slice_end)
    where periods.charged_from < periods.period_end
),

versioned as (
    select
        spans.*,
        coalesce(
            corrected.version,
            issued.charge_version,
            (
                select max(charges.version)
                from catalog.charges
                where
                    charges.charge_id = spans.charge_id
                    and charges.effective_from
                    <= case charges.takes_effect when 'at_once' then spans.first_day else spans.period_day end
            )
        ) as charge_version
    from spans
    left join corrected using (subscription_id, charge_id, slice_start)
    left join issued using (subscription_id, charge_id, slice_start)
)

select
    versioned.subscription_id,
    versioned.charge_id,
    versioned.component,
    versioned.slice_start,
    versioned.slice_end,
    versioned.tenant_id,
    versioned.subscription_version,
    versioned.currency,
    currencies.minor_digits,
    charges.metric,
    metrics.aggregation,
    charges.dimension_route,
    versioned.charge_version,
    charges.charge_model,
    charges.timing,
    prices.price_sha256,
    -- Where clocks go back over midnight, a day may come twice: never more days than the full period has.
    greatest(0, least(versioned.end_day - versioned.first_day, versioned.full_days)) as charged_days,
    versioned.full_days,
    versioned.slice_end <= horizon.instant as complete
from versioned
cross join horizon
inner join catalog.charges
    on versioned.charge_id = charges.charge_id
        and coalesce(versioned.charge_version, versioned.first_version) = charges.version
inner join catalog.currencies on versioned.currency = currencies.currency
left join catalog.metrics on charges.metric = metrics.metric
left join prices
    on versioned.charge_id = prices.charge_id and versioned.charge_version = prices.version
where
    -- Usage without a price in force is reported; a fee that is not yet in force is simply not due.
    versioned.charge_version is not null or versioned.component = 'usage';

-- 4. Slices whose end has landed are complete, whatever else stays as it is.
with completed as (
    update rating.charge_slices
    set complete = true
    from horizon
    where not charge_slices.complete and charge_slices.slice_end <= horizon.instant
    returning
        charge_slices.subscription_id,
        charge_slices.charge_id,
        charge_slices.component,
        charge_slices.slice_start
)

insert into rating.touched_slices (subscription_id, charge_id, component, slice_start)
select
    subscription_id,
    charge_id,
    component,
    slice_start
from completed
on conflict do nothing;

-- 5. What differs from what stands is replaced.
create temporary table standing_periods on commit drop as
select periods.*
from changed
inner join rating.billing_periods as periods on changed.subscription_id = periods.subscription_id
union all
select periods.*
from renewed
inner join rating.billing_periods as periods
    on renewed.subscription_id = periods.subscription_id
        and renewed.billing_interval = periods.billing_interval
        and renewed.interval_count = periods.interval_count
        and renewed.from_instant <= periods.period_start;

create temporary table standing_slices on commit drop as
select slices.*
from changed
inner join rating.charge_slices as slices on changed.subscription_id = slices.subscription_id
union all
select slices.*
from renewed
inner join rating.charge_slices as slices
    on renewed.subscription_id = slices.subscription_id and renewed.from_instant <= slices.slice_start
inner join plan_charges
    on slices.charge_id = plan_charges.charge_id
        and renewed.billing_interval = plan_charges.billing_interval
        and renewed.interval_count = plan_charges.interval_count;

{% for table, wanted, standing, key in [
    (
        'billing_periods', 'wanted_periods', 'standing_periods',
        ['subscription_id', 'billing_interval', 'interval_count', 'period_start'],
    ),
    (
        'charge_slices', 'wanted_slices', 'standing_slices',
        ['subscription_id', 'charge_id', 'component', 'slice_start'],
    ),
] -%}
{% for name, these, those in [('old', standing, wanted), ('new', wanted, standing)] -%}
create temporary table {{ name }}_{{ table }} on commit drop as
select {{ columns[table] | join(', ') }}
from {{ these }}
except
select {{ columns[table] | join(', ') }}
from {{ those }};

{% endfor -%}
delete from rating.{{ table }}
using old_{{ table }} as old
where
    {%- for column in key %}
    {{ 'and ' if not loop.first }}{{ table }}.{{ column }} = old.{{ column }}
    {%- endfor %};

insert into rating.{{ table }} ({{ columns[table] | join(', ') }})
select {{ columns[table] | join(', ') }}
from new_{{ table }};

{% endfor -%}
-- 6. Hand on. A period that came, went or moved concerns all usage in it; a slice, that of its metric. A row
-- whose span and route stay as they are needs no new attribution.
with moved_periods as (
    select
        coalesce(old.tenant_id, new.tenant_id) as tenant_id,
        old.period_start as old_start,
        old.period_end as old_end,
        new.period_start as new_start,
        new.period_end as new_end
    from old_billing_periods as old
    full join new_billing_periods as new
        on old.subscription_id = new.subscription_id
            and old.tenant_id = new.tenant_id
            and old.billing_interval = new.billing_interval
            and old.interval_count = new.interval_count
            and old.period_start = new.period_start
    where
        old.period_end is distinct from new.period_end
        or old.charged_from is distinct from new.charged_from
),

moved_slices as (
    select
        coalesce(old.tenant_id, new.tenant_id) as tenant_id,
        coalesce(old.metric, new.metric) as metric,
        old.slice_start as old_start,
        old.slice_end as old_end,
        new.slice_start as new_start,
        new.slice_end as new_end
    from old_charge_slices as old
    full join new_charge_slices as new
        on old.subscription_id = new.subscription_id
            and old.charge_id = new.charge_id
            and old.component = new.component
            and old.tenant_id = new.tenant_id
            and old.metric = new.metric
            and old.slice_start = new.slice_start
    where
        coalesce(old.metric, new.metric) is not null
        and (
            old.slice_end is distinct from new.slice_end
            or old.dimension_route is distinct from new.dimension_route
            or (old.charge_version is null) <> (new.charge_version is null)
            -- a matrix prices the usage that its rows name, no other
            or (
                'matrix' in (old.charge_model, new.charge_model)
                and old.price_sha256 is distinct from new.price_sha256
            )
        )
),

ranges as (
    select
        moved_periods.tenant_id,
        metrics.metric,
        spans.range_start,
        spans.range_end
    from moved_periods
    cross join catalog.metrics
    cross join lateral (values (old_start, old_end), (new_start, new_end)) as spans (range_start, range_end)
    union
    select
        moved_slices.tenant_id,
        moved_slices.metric,
        spans.range_start,
        spans.range_end
    from moved_slices
    cross join lateral (values (old_start, old_end), (new_start, new_end)) as spans (range_start, range_end)
)

insert into rating.changed_ranges (tenant_id, metric, range_start, range_end)
select
    tenant_id,
    metric,
    range_start,
    range_end
from ranges
where range_start is not null
on conflict do nothing;

insert into rating.touched_slices (subscription_id, charge_id, component, slice_start)
select
    subscription_id,
    charge_id,
    component,
    slice_start
from old_charge_slices
union
select
    subscription_id,
    charge_id,
    component,
    slice_start
from new_charge_slices
on conflict do nothing;

-- 7. What this was built from; changed slices make the drafts stale.
update rating.built_from
set
    catalog_version = (
        select max(versions.catalog_version)
        from catalog.versions
    ),
    horizon = (
        select horizon.instant
        from horizon
    );

update invoices.draft_state
set stale = true
where
    not stale
    and exists (
        select 1
        from rating.touched_slices
    );

{{ renew_statistics(['rating.billing_periods', 'rating.charge_slices']) }}
