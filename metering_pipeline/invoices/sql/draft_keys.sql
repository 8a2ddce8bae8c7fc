-- Lines of the due drafts with what their key will have been billed, and the usage that they pin.
with
lines as materialized (
    select lines.*
    from invoices.draft_invoice_lines as lines
    inner join due_drafts on lines.draft_id = due_drafts.draft_id
),

issued as (
    select
        earlier.subscription_id,
        earlier.charge_id,
        earlier.component,
        earlier.slice_start,
        earlier.currency,
        sum(earlier.amount) as amount
    from invoices.billed_lines as earlier
    where earlier.subscription_id in (select lines.subscription_id from lines)
    group by
        earlier.subscription_id, earlier.charge_id, earlier.component, earlier.slice_start, earlier.currency
),

pinned as (
    select
        days.subscription_id,
        days.charge_id,
        days.slice_start,
        sum(days.event_count) as event_count,
        sum(days.value_sum) as value_sum
    from rating.period_usage_daily as days
    where days.subscription_id in (select lines.subscription_id from lines)
    group by days.subscription_id, days.charge_id, days.slice_start
)

select
    %(billing_date)s::date as billing_date,
    lines.tenant_id,
    lines.draft_id as document,
    lines.line_number,
    lines.charge_id,
    lines.charge_version,
    lines.subscription_id,
    lines.subscription_version,
    lines.component,
    lines.metric,
    lines.slice_start,
    lines.slice_end,
    lines.quantity,
    lines.rated_amount,
    lines.currency,
    coalesce(issued.amount, 0) + lines.amount as billed,
    case when lines.component = 'usage' then coalesce(pinned.event_count, 0) else 0 end as event_count,
    case when lines.component = 'usage' then coalesce(pinned.value_sum, 0) else 0 end as value_sum
from lines
left join issued using (subscription_id, charge_id, component, slice_start, currency)
left join pinned using (subscription_id, charge_id, slice_start)
order by lines.draft_id, lines.line_number
