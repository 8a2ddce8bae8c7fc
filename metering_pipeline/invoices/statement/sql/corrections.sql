-- Why lines of an issued document are priced by another version of their charge.
select
    lines.line_number,
    corrections.reason
from invoices.issued_invoice_lines as lines
inner join invoices.issued_invoices as documents on lines.invoice_number = documents.invoice_number
cross join lateral (
    select named.reason
    from catalog.corrections as named
    where
        named.subscription_id = lines.subscription_id
        and named.charge_id = lines.charge_id
        and named.version = lines.charge_version
        and named.period_start <= lines.slice_start
        and named.recorded_at <= documents.issued_at
    order by named.period_start desc, named.recorded_at desc, named.correction_id
    limit 1
) as corrections
where lines.invoice_number = %(number)s and lines.kind = 'adjustment'
