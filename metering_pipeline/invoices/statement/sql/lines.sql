-- The lines of an issued document.
select
    line_number,
    charge_version,
    subscription_version,
    component,
    kind,
    description,
    slice_start,
    slice_end,
    quantity,
    event_count,
    event_digest,
    payload_digest,
    rated_amount,
    amount,
    aggregation,
    unit,
    charge_model,
    package_size
from invoices.issued_invoice_lines
where invoice_number = %(number)s
order by line_number
