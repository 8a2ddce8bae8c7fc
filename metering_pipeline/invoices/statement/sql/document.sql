-- An issued document, with the names, the zone and the currency's digits that the catalog has for it.
select
    documents.invoice_number,
    documents.series_number,
    documents.document_kind,
    documents.tenant_id,
    coalesce(tenants.name, documents.tenant_id) as tenant_name,
    documents.legal_entity,
    coalesce(legal_entities.name, documents.legal_entity) as legal_entity_name,
    documents.subscription_id,
    documents.currency,
    coalesce(currencies.minor_digits, scale(documents.total)) as minor_digits,
    coalesce(subscriptions.time_zone, 'UTC') as time_zone,
    plans.name as plan_name,
    documents.billing_date,
    documents.issued_at,
    documents.total,
    documents.coupon_amount,
    documents.tax_amount,
    documents.credit_amount,
    documents.amount_due,
    documents.refers_to,
    documents.reason,
    documents.content_sha256,
    documents.previous_sha256
from invoices.issued_invoices as documents
left join catalog.tenants as tenants on documents.tenant_id = tenants.tenant_id
left join catalog.legal_entities as legal_entities on documents.legal_entity = legal_entities.legal_entity
left join catalog.currencies as currencies on documents.currency = currencies.currency
left join catalog.subscriptions as subscriptions
    on documents.subscription_id = subscriptions.subscription_id
        and subscriptions.version = (
            select max(lines.subscription_version)
            from invoices.issued_invoice_lines as lines
            where lines.invoice_number = documents.invoice_number
        )
left join catalog.plans as plans on subscriptions.plan_id = plans.plan_id
where documents.invoice_number = %(number)s
