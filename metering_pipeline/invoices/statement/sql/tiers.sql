-- How the rated amount of each line came about.
select
    line_number,
    tier,
    quantity,
    unit_amount,
    flat_amount,
    rate_percent,
    dimension_values,
    amount
from invoices.issued_tier_slices
where invoice_number = %(number)s
order by line_number, tier
