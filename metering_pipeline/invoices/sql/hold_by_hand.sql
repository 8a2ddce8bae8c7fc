-- Holds a draft by name until it is released; an earlier release of it no longer counts.
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
from invoices.draft_invoices
where draft_id = %(draft_id)s
on conflict (draft_id, reason) do update set
    detail = excluded.detail,
    held_since = excluded.held_since,
    released_by = null,
    release_reason = null,
    released_at = null
returning draft_id
