-- The due drafts that nothing holds, in the order in which their series counts them.
select
    draft_id,
    tenant_id,
    subscription_id,
    legal_entity,
    currency,
    bill_at,
    total
from due_drafts
where draft_id <> all(%(held)s::text[])
order by legal_entity, bill_at, tenant_id, subscription_id, draft_id
