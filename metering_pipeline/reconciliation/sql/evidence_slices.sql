-- How each line's rated amount came about.
select *
from invoices.issued_tier_slices
where invoice_number = %(number)s
order by line_number, tier
