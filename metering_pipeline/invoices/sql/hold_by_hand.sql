-- Holds the subscription and currency of a draft until it is released: there is one such hold of them, and
-- an earlier one, or an earlier release of it, no longer counts.
with held_draft as (
    select
        draft_id,
        tenant_id,
        subscription_id,
        bill_at,
        total,
        currency
    from invoices.draft_invoices
    where draft_id = %(draft_id)s
),

replaced as (
    delete from invoices.held_invoices
    using held_draft
    where
        held_invoices.reason = 'held_by_hand'
        and held_invoices.subscription_id = held_draft.subscription_id
        and held_invoices.currency = held_draft.currency
        and held_invoices.draft_id <> held_draft.draft_id
)

insert into invoices.held_invoices (
    draft_id, reason, detail, tenant_id, subscription_id, bill_at, total, currency, held_since
)
select
    draft_id,
    'held_by_hand',
    %(detail)s,
    tenant_id,
    subscription_id,
    bill_at,
    total,
    currency,
    %(now)s
from held_draft
on conflict (draft_id, reason) do update set
    detail = excluded.detail,
    tenant_id = excluded.tenant_id,
    bill_at = excluded.bill_at,
    total = excluded.total,
    held_since = excluded.held_since,
    released_by = null,
    release_reason = null,
    released_at = null
returning draft_id
