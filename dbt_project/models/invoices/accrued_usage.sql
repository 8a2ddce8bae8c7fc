{{ config(materialized='table_function', meta={'requires': [
    {'condition': 'given_before is not null', 'otherwise': "'before must be a date: the first day that is left out.'"},
]}) }}

-- What was rated and not yet billed when a day began, midnight in each subscription's zone: every slice that had
-- begun, with what had been billed of it by documents of earlier billing dates. Rated is what is known now, late
-- usage included. A slice that the day cuts has no amount here unless nothing has landed since; its usage until
-- then is given by whole UTC days.
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
        lines.slice_end > edges.edge and coalesce(built_from.horizon > edges.edge, false) as is_cut
    from rating.rated_lines as lines
    inner join catalog.tenants on lines.tenant_id = tenants.tenant_id and tenants.billable
    inner join catalog.current_subscriptions as subscriptions on lines.subscription_id = subscriptions.subscription_id
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
    from rating.period_usage_daily as days
    where days.day < given_before
    group by days.subscription_id, days.charge_id, days.slice_start
)

select
    begun.subscription_id,
    begun.tenant_id,
    begun.charge_id,
    begun.component,
    begun.metric,
    begun.slice_start,
    begun.slice_end,
    begun.currency,
    begun.is_cut,
    coalesce(used.event_count, 0) as event_count_until,
    coalesce(used.value_sum, 0) as value_sum_until,
    begun.amount as rated_amount,
    coalesce(billed.amount, 0) as billed_amount,
    case when not begun.is_cut then begun.amount - coalesce(billed.amount, 0) end as accrued_amount
from begun
left join billed using (subscription_id, charge_id, component, slice_start, currency)
left join used
    on begun.component = 'usage'
        and begun.subscription_id = used.subscription_id
        and begun.charge_id = used.charge_id
        and begun.slice_start = used.slice_start
where begun.is_cut or begun.amount <> coalesce(billed.amount, 0)
