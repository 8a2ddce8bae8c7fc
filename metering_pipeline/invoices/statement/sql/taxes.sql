-- The taxes of a document by code and rate; each line's tax was rounded on its own.
select
    tax_code,
    rate,
    sum(taxable_amount) as taxable_amount,
    sum(tax_amount) as tax_amount
from invoices.issued_invoice_taxes
where invoice_number = %(number)s
group by tax_code, rate
order by tax_code, rate
