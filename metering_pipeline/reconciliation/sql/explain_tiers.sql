-- How a line's rated amount comes about: as it was frozen, or as the draft has it.
select
    tier,
    quantity,
    unit_amount,
    flat_amount,
    rate_percent,
    dimension_values,
    amount
from invoices.issued_tier_slices
where invoice_number = %(document)s and line_number = %(line_number)s
union all
select
    slices.tier,
    slices.quantity,
    slices.unit_amount,
    slices.flat_amount,
    slices.rate_percent,
    slices.dimension_values,
    slices.amount
from invoices.draft_invoice_lines as lines
inner join rating.tier_slices as slices
    on lines.subscription_id = slices.subscription_id
        and lines.charge_id = slices.charge_id
        and lines.component = slices.component
        and lines.slice_start = slices.slice_start
        and lines.currency = slices.currency
where lines.draft_id = %(document)s and lines.line_number = %(line_number)s
order by tier
