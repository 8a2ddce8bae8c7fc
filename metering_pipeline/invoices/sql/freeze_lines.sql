-- Copies the lines of drafts into the documents that they have become.
insert into invoices.issued_invoice_lines (
    invoice_number, line_number, subscription_id, tenant_id, charge_id, charge_version, subscription_version,
    component, metric, slice_start, slice_end, quantity, event_count, event_digest, payload_digest,
    rated_amount, amount, currency, kind, description
)
select
    numbers.invoice_number,
    lines.line_number,
    lines.subscription_id,
    lines.tenant_id,
    lines.charge_id,
    lines.charge_version,
    lines.subscription_version,
    lines.component,
    lines.metric,
    lines.slice_start,
    lines.slice_end,
    lines.quantity,
    lines.event_count,
    lines.event_digest,
    lines.payload_digest,
    lines.rated_amount,
    lines.amount,
    lines.currency,
    lines.kind,
    lines.description
from unnest(%(draft_ids)s::text[], %(invoice_numbers)s::text[]) as numbers (draft_id, invoice_number)
inner join invoices.draft_invoice_lines as lines on numbers.draft_id = lines.draft_id
order by numbers.invoice_number, lines.line_number
