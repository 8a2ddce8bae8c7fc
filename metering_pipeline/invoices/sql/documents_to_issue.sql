-- The due drafts that nothing holds, in the order in which their series counts them.
select
    due_drafts.draft_id,
    due_drafts.tenant_id,
    due_drafts.subscription_id,
    due_drafts.legal_entity,
    due_drafts.currency,
    due_drafts.bill_at,
    due_drafts.total,
    currencies.minor_digits
from due_drafts
inner join catalog.currencies on due_drafts.currency = currencies.currency
where due_drafts.draft_id <> all(%(held)s::text[])
order by
    due_drafts.legal_entity, due_drafts.bill_at, due_drafts.tenant_id, due_drafts.subscription_id,
    due_drafts.draft_id
