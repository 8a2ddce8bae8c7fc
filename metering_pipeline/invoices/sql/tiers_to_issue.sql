-- How the rated amounts of the lines that go came about.
select
    lines.draft_id,
    lines.line_number,
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
where lines.draft_id = any(%(draft_ids)s::text[])
order by lines.draft_id, lines.line_number, slices.tier
