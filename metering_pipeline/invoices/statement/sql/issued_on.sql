-- The documents issued for a billing date, in their series' order.
select invoice_number
from invoices.issued_invoices
where billing_date = %(billing_date)s
order by series, series_number
