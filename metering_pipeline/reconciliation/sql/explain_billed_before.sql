-- What documents before this one billed of the line's slice, oldest first. A write-off leaves it billed.
select
    earlier.invoice_number as document,
    earlier.line_number,
    earlier.amount,
    documents.document_kind,
    documents.issued_at
from reconciliation.document_lines as line
inner join invoices.issued_invoice_lines as earlier
    on line.subscription_id = earlier.subscription_id
        and line.charge_id = earlier.charge_id
        and line.component = earlier.component
        and line.slice_start = earlier.slice_start
        and line.currency = earlier.currency
inner join invoices.issued_invoices as documents on earlier.invoice_number = documents.invoice_number
left join invoices.issued_invoices as this on line.document = this.invoice_number
where
    line.document = %(document)s
    and line.line_number = %(line_number)s
    and documents.document_kind <> 'write_off'
    and (
        this.invoice_number is null
        or (documents.issued_at, documents.series_number) < (this.issued_at, this.series_number)
    )
order by documents.issued_at, documents.series_number, earlier.line_number
