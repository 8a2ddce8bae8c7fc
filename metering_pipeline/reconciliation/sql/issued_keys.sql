-- Issued lines of a range of billing dates with what was issued for their key until then, voids included, and
-- what they pinned. A write-off leaves what was billed as it is.
with
lines as materialized (
    select
        lines.*,
        documents.billing_date,
        documents.series_number,
        documents.issued_at,
        documents.tenant_id as billed_tenant_id
    from invoices.issued_invoice_lines as lines
    inner join invoices.issued_invoices as documents on lines.invoice_number = documents.invoice_number
    where
        documents.billing_date >= (%(window_start)s::timestamptz at time zone 'UTC')::date
        and documents.billing_date < (%(window_end)s::timestamptz at time zone 'UTC')
        and documents.document_kind in ('invoice', 'credit_note')
),

issued_until as (
    select
        lines.invoice_number,
        lines.line_number,
        sum(earlier.amount) as amount
    from lines
    inner join invoices.issued_invoice_lines as earlier
        on lines.subscription_id = earlier.subscription_id
            and lines.charge_id = earlier.charge_id
            and lines.component = earlier.component
            and lines.slice_start = earlier.slice_start
            and lines.currency = earlier.currency
    inner join invoices.issued_invoices as documents on earlier.invoice_number = documents.invoice_number
    where
        (documents.billing_date, documents.series_number) <= (lines.billing_date, lines.series_number)
        and documents.document_kind <> 'write_off'
    group by lines.invoice_number, lines.line_number
),

-- The lines of the same charge and slice, by component: a discount, a maximum and a minimum come from the others.
beside as (
    select
        invoice_number,
        line_number,
        jsonb_object_agg(component, amount::text) as amounts
    from (
        select
            lines.invoice_number,
            lines.line_number,
            earlier.component,
            sum(earlier.amount) as amount
        from lines
        inner join invoices.issued_invoice_lines as earlier
            on lines.subscription_id = earlier.subscription_id
                and lines.charge_id = earlier.charge_id
                and lines.slice_start = earlier.slice_start
                and lines.currency = earlier.currency
        inner join invoices.issued_invoices as documents on earlier.invoice_number = documents.invoice_number
        where
            lines.component in ('discount', 'maximum', 'minimum')
            and (documents.billing_date, documents.series_number) <= (lines.billing_date, lines.series_number)
            and documents.document_kind <> 'write_off'
        group by lines.invoice_number, lines.line_number, earlier.component
    ) as components
    group by invoice_number, line_number
),

slices as (
    select
        slices.invoice_number,
        slices.line_number,
        jsonb_agg(jsonb_build_object(
            'tier', slices.tier, 'quantity', slices.quantity::text, 'amount', slices.amount::text
        )) as slices
    from lines
    inner join catalog.charges on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
    inner join invoices.issued_tier_slices as slices
        on lines.invoice_number = slices.invoice_number and lines.line_number = slices.line_number
    where lines.component = 'commitment' or charges.charge_model in ('matrix', 'percentage')
    group by slices.invoice_number, slices.line_number
),

-- The lines that count towards a commitment: what each had been billed by then, and whether that came later.
counting as (
    select
        lines.invoice_number,
        lines.line_number,
        sum(others.amount) filter (
            where (documents.billing_date, documents.series_number) <= (lines.billing_date, lines.series_number)
        ) as billed,
        bool_or(
            others.kind = 'regular'
            and documents.document_kind in ('invoice', 'credit_note')
            and (documents.billing_date, documents.series_number) > (lines.billing_date, lines.series_number)
        ) as billed_later
    from lines
    inner join catalog.charges as commitments
        on lines.charge_id = commitments.charge_id and lines.charge_version = commitments.version
    inner join invoices.issued_invoice_lines as others
        on lines.subscription_id = others.subscription_id
            and lines.currency = others.currency
            and lines.slice_start <= others.slice_start
            and lines.slice_end > others.slice_start
    inner join catalog.charges
        on others.charge_id = charges.charge_id
            and others.charge_version = charges.version
            and commitments.plan_id = charges.plan_id
    inner join invoices.issued_invoices as documents on others.invoice_number = documents.invoice_number
    where
        lines.component = 'commitment'
        and others.component <> 'commitment'
        and documents.document_kind <> 'write_off'
    group by
        lines.invoice_number, lines.line_number, others.charge_id, others.component, others.slice_start
),

counted as (
    select
        lines.invoice_number,
        lines.line_number,
        coalesce(sum(counting.billed), 0) as amount
    from lines
    left join counting
        on lines.invoice_number = counting.invoice_number and lines.line_number = counting.line_number
    where
        lines.component = 'commitment'
        and not exists (
            select 1
            from rating.rated_lines as rated
            inner join catalog.charges
                on rated.charge_id = charges.charge_id and rated.charge_version = charges.version
            inner join catalog.charges as commitments
                on charges.plan_id = commitments.plan_id
                    and lines.charge_id = commitments.charge_id
                    and lines.charge_version = commitments.version
            where
                rated.subscription_id = lines.subscription_id
                and rated.slice_start >= lines.slice_start
                and rated.slice_start < lines.slice_end
                and rated.currency = lines.currency
                and rated.component <> 'commitment'
                and rated.amount <> 0
                and not exists (
                    select 1
                    from invoices.issued_invoice_lines as issued
                    where
                        issued.subscription_id = rated.subscription_id
                        and issued.charge_id = rated.charge_id
                        and issued.component = rated.component
                        and issued.slice_start = rated.slice_start
                        and issued.currency = rated.currency
                )
        )
    group by lines.invoice_number, lines.line_number
    having not coalesce(bool_or(counting.billed_later and coalesce(counting.billed, 0) = 0), false)
),

pinned as (
    select
        days.invoice_number,
        days.line_number,
        sum(days.event_count) as event_count,
        sum(days.value_sum) as value_sum
    from invoices.issued_usage as days
    inner join lines on days.invoice_number = lines.invoice_number and days.line_number = lines.line_number
    group by days.invoice_number, days.line_number
)

select
    lines.billing_date,
    lines.billed_tenant_id as tenant_id,
    lines.invoice_number as document,
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
    issued_until.amount as billed,
    coalesce(pinned.event_count, 0) as event_count,
    coalesce(pinned.value_sum, 0) as value_sum,
    lines.event_digest,
    lines.payload_digest,
    lines.issued_at,
    coalesce(beside.amounts, '{}') as slice_billed,
    coalesce(slices.slices, '[]') as slices,
    counted.amount as counted
from lines
inner join issued_until
    on lines.invoice_number = issued_until.invoice_number and lines.line_number = issued_until.line_number
left join beside on lines.invoice_number = beside.invoice_number and lines.line_number = beside.line_number
left join slices on lines.invoice_number = slices.invoice_number and lines.line_number = slices.line_number
left join counted on lines.invoice_number = counted.invoice_number and lines.line_number = counted.line_number
left join pinned on lines.invoice_number = pinned.invoice_number and lines.line_number = pinned.line_number
order by lines.invoice_number, lines.line_number
