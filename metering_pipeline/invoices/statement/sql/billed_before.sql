-- What earlier documents said of the periods and charges that this one adjusts, oldest first. A write-off
-- leaves billed what was billed.
select
    lines.line_number,
    earlier.invoice_number,
    earlier.line_number as earlier_line_number,
    earlier.charge_version,
    earlier.subscription_version,
    earlier.quantity,
    earlier.event_count,
    earlier.event_digest,
    earlier.payload_digest,
    earlier.amount,
    documents.document_kind
from invoices.issued_invoice_lines as lines
inner join invoices.issued_invoices as this on lines.invoice_number = this.invoice_number
inner join invoices.issued_invoice_lines as earlier
    on lines.subscription_id = earlier.subscription_id
        and lines.charge_id = earlier.charge_id
        and lines.component = earlier.component
        and lines.slice_start = earlier.slice_start
        and lines.currency = earlier.currency
inner join invoices.issued_invoices as documents on earlier.invoice_number = documents.invoice_number
where
    lines.invoice_number = %(number)s
    and lines.kind = 'adjustment'
    and this.document_kind in ('invoice', 'credit_note')
    and documents.document_kind <> 'write_off'
    and (documents.issued_at, documents.series_number) < (this.issued_at, this.series_number)
order by lines.line_number, documents.issued_at, documents.series_number, earlier.line_number
