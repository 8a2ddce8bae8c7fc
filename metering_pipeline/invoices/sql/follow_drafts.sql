-- A hold by hand is of a subscription and currency: where their draft has another instant, and so another
-- name, or another total, the hold names their first draft of now. Without a draft it waits for one.
with first_drafts as (
    select distinct on (subscription_id, currency)
        subscription_id,
        currency,
        draft_id,
        tenant_id,
        bill_at,
        total
    from invoices.draft_invoices
    order by subscription_id, currency, bill_at, draft_id
)

update invoices.held_invoices
set
    draft_id = first_drafts.draft_id,
    tenant_id = first_drafts.tenant_id,
    bill_at = first_drafts.bill_at,
    total = first_drafts.total
from first_drafts
where
    held_invoices.reason = 'held_by_hand'
    and held_invoices.subscription_id = first_drafts.subscription_id
    and held_invoices.currency = first_drafts.currency
    and not exists (
        select 1
        from invoices.held_invoices as others
        where
            others.reason = 'held_by_hand'
            and others.subscription_id = held_invoices.subscription_id
            and others.currency = held_invoices.currency
            and others.draft_id <> held_invoices.draft_id
    )
