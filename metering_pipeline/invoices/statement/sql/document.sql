-- An issued document, and the void or write-off that was issued about it since.
select
    documents.invoice_number,
    documents.series_number,
    documents.document_kind,
    documents.tenant_id,
    documents.tenant_name,
    documents.legal_entity_name,
    documents.subscription_id,
    documents.currency,
    documents.minor_digits,
    documents.time_zone,
    documents.plan_name,
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
    documents.previous_sha256,
    reversals.invoice_number as reversed_by,
    reversals.document_kind as reversed_as
from invoices.issued_invoices as documents
left join invoices.issued_invoices as reversals on documents.invoice_number = reversals.refers_to
where documents.invoice_number = %(number)s
