-- What credits paid of a document, negative.
select
    credit_id,
    amount
from invoices.credit_entries
where invoice_number = %(invoice_number)s
order by entry_id
