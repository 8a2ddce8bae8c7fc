-- A document as it was frozen, the one before it in its series, and the digests of all that its lines count.
select
    documents.*,
    before.invoice_number as previous_invoice_number,
    (
        select coalesce(sum(days.event_digest), 0)
        from invoices.issued_usage as days
        where days.invoice_number = documents.invoice_number
    ) as event_digest,
    (
        select coalesce(sum(days.payload_digest), 0)
        from invoices.issued_usage as days
        where days.invoice_number = documents.invoice_number
    ) as payload_digest
from invoices.issued_invoices as documents
left join invoices.issued_invoices as before
    on documents.series = before.series and documents.series_number - 1 = before.series_number
where documents.invoice_number = %(number)s
