{{ config(materialized='table_function', meta={'requires': [
    {'condition': 'given_before is not null', 'otherwise': "'before must be a date: the first day that is left out.'"},
]}) }}

{%- set key = ['subscription_id', 'charge_id', 'component', 'slice_start', 'currency'] %}
{%- set key_columns = key | join(', ') %}

-- What was earned and not yet billed when a day began, midnight in each subscription's zone: every slice that had
-- begun, with what had been billed of it by documents of earlier billing dates. Rated is what is known now, late
-- usage included. Of a slice that the day cuts, usage counts by its UTC days before the day and is priced as if the
-- period ended there; a fee counts by its local days. What follows from neither is not known.
-- Depends on {{ ref('rated_lines') }}.

with billed as (
    select
        lines.subscription_id,
        lines.charge_id,
        lines.component,
        lines.slice_start,
        lines.currency,
        sum(lines.amount) as amount
    from invoices.issued_invoice_lines as lines
    inner join invoices.issued_invoices as documents on lines.invoice_number = documents.invoice_number
    where documents.billing_date < given_before and documents.document_kind <> 'write_off'
    group by lines.subscription_id, lines.charge_id, lines.component, lines.slice_start, lines.currency
),

begun as (
    select
        lines.*,
        currencies.minor_digits,
        metrics.aggregation,
        given_before - {{ local_day('lines.slice_start', 'subscriptions.time_zone') }} as days_until,
        {{ local_day('lines.slice_end', 'subscriptions.time_zone') }}
        - {{ local_day('lines.slice_start', 'subscriptions.time_zone') }} as all_days,
        -- Time goes on by itself, usage with what lands.
        lines.slice_end > edges.edge
        and (lines.metric is null or coalesce(built_from.horizon > edges.edge, false)) as is_cut,
        case
            when lines.component in ('minimum', 'commitment') then 'due_at_the_end'
            when metrics.aggregation not in ('count', 'sum') then 'not_additive'
            when charges.charge_model = 'matrix' or {{ reads_events('terms') }} then 'not_by_quantity'
        end as unknown_if_cut
    from rating.rated_lines as lines
    inner join catalog.tenants on lines.tenant_id = tenants.tenant_id and tenants.billable
    inner join catalog.current_subscriptions as subscriptions on lines.subscription_id = subscriptions.subscription_id
    inner join catalog.currencies on lines.currency = currencies.currency
    inner join catalog.charges on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
    left join catalog.metrics on lines.metric = metrics.metric
    left join catalog.percentage_terms as terms
        on lines.charge_id = terms.charge_id and lines.charge_version = terms.version
    cross join lateral (
        select given_before::timestamp at time zone subscriptions.time_zone as edge
    ) as edges
    cross join rating.built_from
    where lines.slice_start < edges.edge
),

used as (
    select
        days.subscription_id,
        days.charge_id,
        days.slice_start,
        sum(days.event_count) as event_count,
        sum(days.value_sum) as value_sum
    from rating.line_usage as days
    where days.day < given_before
    group by days.subscription_id, days.charge_id, days.slice_start
),

-- Usage until then, priced as the rated lines are.
cut_usage as (
    select
        begun.*,
        charges.discount_percent,
        charges.discount_amount,
        charges.maximum_amount,
        coalesce(used.event_count, 0) as billable_events,
        0 as limited_events,
        0 as limit_amount,
        {{ billable_quantity('converted.quantity', 'charges') }} as quantity_until
    from begun
    inner join catalog.charges on begun.charge_id = charges.charge_id and begun.charge_version = charges.version
    left join used
        on begun.subscription_id = used.subscription_id
            and begun.charge_id = used.charge_id
            and begun.slice_start = used.slice_start
    cross join lateral (
        select coalesce(case begun.aggregation when 'count' then used.event_count else used.value_sum end, 0)
            as quantity
    ) as metered
    cross join lateral (select {{ converted_quantity('metered.quantity', 'charges') }} as quantity) as converted
    where begun.component = 'usage' and begun.is_cut and begun.unknown_if_cut is null
),

to_price as (
    select
        {{ key_columns }},
        charge_version,
        quantity_until as billable_quantity,
        billable_events,
        limited_events,
        limit_amount,
        charged_days,
        full_days
    from cut_usage
),

priced as (
    {{ priced_slices('to_price', key) }}
),

sums as (
    select
        {{ key_columns }},
        sum(amount) as amount
    from priced
    group by {{ key_columns }}
),

rounded as (
    select
        cut_usage.subscription_id,
        cut_usage.tenant_id,
        cut_usage.charge_id,
        cut_usage.metric,
        cut_usage.slice_start,
        cut_usage.slice_end,
        cut_usage.currency,
        cut_usage.discount_percent,
        cut_usage.discount_amount,
        cut_usage.maximum_amount,
        cut_usage.minor_digits,
        {{ round_money('coalesce(sums.amount, 0)', 'cut_usage.minor_digits') }} as amount
    from cut_usage
    left join sums using ({{ key_columns }})
),

-- What would lower the part need not be what lowers the whole: of that there may be no rated line.
usage_until as (
    select
        rounded.subscription_id,
        rounded.tenant_id,
        rounded.charge_id,
        parts.component,
        rounded.metric,
        rounded.slice_start,
        rounded.slice_end,
        rounded.currency,
        parts.amount
    from rounded
    {{ reduced_amounts('rounded') | indent(4) }}
    cross join lateral (
        values
        ('usage', rounded.amount),
        ('discount', discounted.amount - rounded.amount),
        ('maximum', -above.excess)
    ) as parts (component, amount)
),

until_then as (
    select
        {{ key_columns }},
        usage_until.tenant_id,
        usage_until.metric,
        usage_until.slice_end,
        true as is_cut,
        coalesce(begun.amount, 0) as rated_amount,
        usage_until.amount,
        null as unknown_because
    from usage_until
    left join begun using ({{ key_columns }})
    union all
    select
        {{ key_columns }},
        begun.tenant_id,
        begun.metric,
        begun.slice_end,
        begun.is_cut,
        begun.amount,
        case
            when not begun.is_cut then begun.amount
            when begun.unknown_if_cut is null then {{ round_money(
                prorated('begun.amount', 'least(begun.days_until, begun.all_days)', 'begun.all_days'), 'begun.minor_digits'
            ) }}
        end,
        case when begun.is_cut then begun.unknown_if_cut end
    from begun
    left join usage_until using ({{ key_columns }})
    where usage_until.amount is null
)

select
    until_then.subscription_id,
    until_then.tenant_id,
    until_then.charge_id,
    until_then.component,
    until_then.metric,
    until_then.slice_start,
    until_then.slice_end,
    until_then.currency,
    until_then.is_cut,
    coalesce(used.event_count, 0) as event_count_until,
    coalesce(used.value_sum, 0) as value_sum_until,
    until_then.rated_amount,
    until_then.amount as amount_until,
    coalesce(billed.amount, 0) as billed_amount,
    until_then.amount - coalesce(billed.amount, 0) as accrued_amount,
    until_then.unknown_because
from until_then
left join billed using ({{ key_columns }})
left join used
    on until_then.component = 'usage'
        and until_then.subscription_id = used.subscription_id
        and until_then.charge_id = used.charge_id
        and until_then.slice_start = used.slice_start
where
    until_then.unknown_because is not null
    or until_then.amount <> coalesce(billed.amount, 0)
    or (until_then.is_cut and (until_then.component = 'usage' or until_then.rated_amount <> 0))
