-- What each line was issued with, by UTC day.
select *
from invoices.issued_usage
where invoice_number = %(number)s
order by line_number, day
