-- Writes the holds of this run. A release holds good as long as the detail and the draft's total are the
-- ones that were released: who let a small sum go has not let a large one go.
insert into invoices.held_invoices as held (
    draft_id, reason, detail, tenant_id, subscription_id, bill_at, total, currency, held_since
)
select
    holds.draft_id,
    holds.reason,
    holds.detail,
    drafts.tenant_id,
    drafts.subscription_id,
    drafts.bill_at,
    drafts.total,
    drafts.currency,
    %(now)s
from unnest(%(draft_ids)s::text[], %(reasons)s::text[], %(details)s::text[]) as holds (draft_id, reason, detail)
inner join invoices.draft_invoices as drafts on holds.draft_id = drafts.draft_id
on conflict (draft_id, reason) do update set
    detail = excluded.detail,
    tenant_id = excluded.tenant_id,
    subscription_id = excluded.subscription_id,
    bill_at = excluded.bill_at,
    total = excluded.total,
    currency = excluded.currency,
    released_by = case
        when held.detail = excluded.detail and held.total = excluded.total then held.released_by
    end,
    release_reason = case
        when held.detail = excluded.detail and held.total = excluded.total then held.release_reason
    end,
    released_at = case
        when held.detail = excluded.detail and held.total = excluded.total then held.released_at
    end
