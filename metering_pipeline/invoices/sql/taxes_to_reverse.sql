-- The taxes of a document.
select
    line_number,
    tax_code,
    rate,
    taxable_amount,
    tax_amount
from invoices.issued_invoice_taxes
where invoice_number = %(invoice_number)s
order by line_number, tax_code
