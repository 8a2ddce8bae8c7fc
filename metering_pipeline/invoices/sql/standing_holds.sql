-- The holds of due drafts that nobody has released. One by hand holds every draft of its subscription and
-- currency.
select
    due_drafts.draft_id,
    due_drafts.tenant_id,
    held.reason,
    held.detail,
    due_drafts.total,
    due_drafts.currency
from invoices.held_invoices as held
inner join due_drafts
    on held.subscription_id = due_drafts.subscription_id
        and held.currency = due_drafts.currency
        and (held.reason = 'held_by_hand' or held.draft_id = due_drafts.draft_id)
where held.released_at is null
order by due_drafts.bill_at, due_drafts.draft_id, held.reason
