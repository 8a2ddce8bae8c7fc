-- The holds of due drafts that nobody has released.
select
    held.draft_id,
    held.tenant_id,
    held.reason,
    held.detail,
    held.total,
    held.currency
from invoices.held_invoices as held
inner join due_drafts on held.draft_id = due_drafts.draft_id
where held.released_at is null
order by held.bill_at, held.draft_id, held.reason
