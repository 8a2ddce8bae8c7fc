-- The due drafts that nothing holds, in the order in which their series counts them, with what the catalog
-- says of them now: zone and plan are those of the newest version of the subscription in a document's lines.
select
    due_drafts.draft_id,
    due_drafts.tenant_id,
    due_drafts.subscription_id,
    due_drafts.legal_entity,
    due_drafts.currency,
    due_drafts.bill_at,
    due_drafts.total,
    tenants.name as tenant_name,
    legal_entities.name as legal_entity_name,
    plans.name as plan_name,
    subscriptions.time_zone,
    currencies.minor_digits
from due_drafts
left join catalog.currencies on due_drafts.currency = currencies.currency
left join catalog.tenants on due_drafts.tenant_id = tenants.tenant_id
left join catalog.legal_entities on due_drafts.legal_entity = legal_entities.legal_entity
left join catalog.subscriptions
    on due_drafts.subscription_id = subscriptions.subscription_id
        and subscriptions.version = (
            select max(lines.subscription_version)
            from invoices.draft_invoice_lines as lines
            where lines.draft_id = due_drafts.draft_id
        )
left join catalog.plans on subscriptions.plan_id = plans.plan_id
where due_drafts.draft_id <> all(%(held)s::text[])
order by
    due_drafts.legal_entity, due_drafts.bill_at, due_drafts.tenant_id, due_drafts.subscription_id,
    due_drafts.draft_id
