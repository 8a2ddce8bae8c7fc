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

-- The lines of the same charge and slice, by component, as they will have been billed.
beside as (
    select
        subscription_id,
        charge_id,
        slice_start,
        currency,
        jsonb_object_agg(component, amount::text) as amounts
    from (
        select
            subscription_id,
            charge_id,
            component,
            slice_start,
            currency,
            sum(amount) as amount
        from (
            select
                subscription_id,
                charge_id,
                component,
                slice_start,
                currency,
                amount
            from issued
            union all
            select
                subscription_id,
                charge_id,
                component,
                slice_start,
                currency,
                amount
            from lines
        ) as amounts
        group by subscription_id, charge_id, component, slice_start, currency
    ) as components
    group by subscription_id, charge_id, slice_start, currency
),

slices as (
    select
        slices.subscription_id,
        slices.charge_id,
        slices.component,
        slices.slice_start,
        slices.currency,
        jsonb_agg(jsonb_build_object(
            'tier', slices.tier, 'quantity', slices.quantity::text, 'amount', slices.amount::text
        )) as slices
    from lines
    inner join catalog.charges on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
    inner join rating.tier_slices as slices
        on lines.subscription_id = slices.subscription_id
            and lines.charge_id = slices.charge_id
            and lines.component = slices.component
            and lines.slice_start = slices.slice_start
            and lines.currency = slices.currency
    where lines.component = 'commitment' or charges.charge_model in ('matrix', 'percentage')
    group by slices.subscription_id, slices.charge_id, slices.component, slices.slice_start, slices.currency
),

-- What the plan's other lines that start within a commitment come to, billed or not.
counted as (
    select
        lines.draft_id,
        lines.line_number,
        sum(others.amount) as amount
    from lines
    inner join catalog.charges as commitments
        on lines.charge_id = commitments.charge_id and lines.charge_version = commitments.version
    inner join rating.rated_lines as others
        on lines.subscription_id = others.subscription_id
            and lines.currency = others.currency
            and lines.slice_start <= others.slice_start
            and lines.slice_end > others.slice_start
    inner join catalog.charges
        on others.charge_id = charges.charge_id
            and others.charge_version = charges.version
            and commitments.plan_id = charges.plan_id
    where lines.component = 'commitment' and others.component <> 'commitment'
    group by lines.draft_id, lines.line_number
),

pinned as (
    select
        days.subscription_id,
        days.charge_id,
        days.slice_start,
        sum(days.event_count) as event_count,
        sum(days.value_sum) as value_sum
    from rating.line_usage as days
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
    case when lines.component = 'usage' then coalesce(pinned.value_sum, 0) else 0 end as value_sum,
    lines.event_digest,
    lines.payload_digest,
    null::timestamptz as issued_at,
    coalesce(beside.amounts, '{}') as slice_billed,
    coalesce(slices.slices, '[]') as slices,
    case when lines.component = 'commitment' then coalesce(counted.amount, 0) end as counted
from lines
left join issued using (subscription_id, charge_id, component, slice_start, currency)
left join beside using (subscription_id, charge_id, slice_start, currency)
left join slices using (subscription_id, charge_id, component, slice_start, currency)
left join counted using (draft_id, line_number)
left join pinned using (subscription_id, charge_id, slice_start)
order by lines.draft_id, lines.line_number
