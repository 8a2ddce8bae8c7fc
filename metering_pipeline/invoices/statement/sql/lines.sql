-- The lines of an issued document, with the unit of the metric that each measures and how its charge prices.
select
    lines.line_number,
    lines.charge_id,
    lines.charge_version,
    lines.subscription_version,
    lines.component,
    lines.kind,
    lines.description,
    lines.slice_start,
    lines.slice_end,
    lines.quantity,
    lines.event_count,
    lines.event_digest,
    lines.payload_digest,
    lines.rated_amount,
    lines.amount,
    metrics.aggregation,
    metrics.unit,
    charges.charge_model,
    charges.package_size
from invoices.issued_invoice_lines as lines
left join catalog.metrics as metrics on lines.metric = metrics.metric
left join catalog.charges as charges
    on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
where lines.invoice_number = %(number)s
order by lines.line_number
