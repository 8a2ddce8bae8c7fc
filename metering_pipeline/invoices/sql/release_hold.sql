-- Releases the standing holds of a draft, for one reason or all, and keeps for good who did it and why. One by
-- hand goes by any draft of its subscription and currency.
with released as (
    update invoices.held_invoices
    set
        released_by = %(by)s,
        release_reason = %(why)s,
        released_at = %(now)s
    where
        (
            draft_id = %(draft_id)s
            or (
                reason = 'held_by_hand'
                and exists (
                    select 1
                    from invoices.draft_invoices as drafts
                    where
                        drafts.draft_id = %(draft_id)s
                        and drafts.subscription_id = held_invoices.subscription_id
                        and drafts.currency = held_invoices.currency
                )
            )
        )
        and reason = coalesce(%(reason)s, reason)
        and released_at is null
    returning *
)

insert into invoices.hold_releases (
    draft_id, reason, detail, tenant_id, total, currency, held_since, released_by, release_reason, released_at
)
select
    draft_id,
    reason,
    detail,
    tenant_id,
    total,
    currency,
    held_since,
    released_by,
    release_reason,
    released_at
from released
returning reason
