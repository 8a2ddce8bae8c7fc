-- A document is a draft or issued, never both: the drafts that went are no drafts any more, and released
-- holds of theirs have served.
with gone as (
    delete from invoices.draft_invoices
    where draft_id = any(%(draft_ids)s::text[])
    returning draft_id
),

served as (
    delete from invoices.held_invoices
    using gone
    where held_invoices.draft_id = gone.draft_id
)

delete from invoices.draft_invoice_lines
using gone
where draft_invoice_lines.draft_id = gone.draft_id
