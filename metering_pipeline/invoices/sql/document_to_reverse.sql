-- An issued document as its void or write-off begins, and the one that it has already.
select
    documents.invoice_number,
    documents.document_kind,
    documents.tenant_id,
    documents.subscription_id,
    documents.legal_entity,
    documents.currency,
    documents.total,
    (select max(newest.billing_date) from invoices.issued_invoices as newest) as billing_date,
    documents.bill_at,
    (select max(versions.catalog_version) from catalog.versions) as catalog_version,
    documents.draft_id,
    documents.coupon_amount,
    documents.tax_amount,
    documents.credit_amount,
    documents.amount_due,
    documents.refers_to,
    documents.tenant_name,
    documents.legal_entity_name,
    documents.plan_name,
    documents.time_zone,
    documents.minor_digits,
    reversals.invoice_number as reversed_by,
    reversals.document_kind as reversed_as
from invoices.issued_invoices as documents
left join invoices.issued_invoices as reversals on documents.invoice_number = reversals.refers_to
where documents.invoice_number = %(invoice_number)s
