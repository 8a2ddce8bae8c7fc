-- The lines of a document with their amounts negated. What they were rated from stays with the document itself.
select
    line_number,
    subscription_id,
    tenant_id,
    charge_id,
    charge_version,
    subscription_version,
    component,
    metric,
    slice_start,
    slice_end,
    quantity,
    event_count,
    event_digest,
    payload_digest,
    rated_amount,
    -amount as amount,
    currency,
    kind,
    description,
    charge_model,
    package_size,
    aggregation,
    unit,
    null as usage_sha256
from invoices.issued_invoice_lines
where invoice_number = %(invoice_number)s
order by line_number
