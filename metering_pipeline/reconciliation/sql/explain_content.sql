-- What the document's canonical content says of a line, against the frozen rows of the line.
select
    content.line ->> 'quantity' = lines.quantity::text
    and content.line ->> 'amount' = lines.amount::text
    and content.line ->> 'rated_amount' = lines.rated_amount::text
    and content.line ->> 'event_count' = lines.event_count::text
    and content.line ->> 'event_digest' = lines.event_digest::text
    and content.line ->> 'payload_digest' = lines.payload_digest::text as holds
from invoices.issued_invoices as documents
inner join invoices.issued_invoice_lines as lines on documents.invoice_number = lines.invoice_number
cross join lateral jsonb_array_elements(documents.content::jsonb -> 'lines') as content (line)
where
    documents.invoice_number = %(document)s
    and lines.line_number = %(line_number)s
    and content.line ->> 'line_number' = %(line_number)s::text
