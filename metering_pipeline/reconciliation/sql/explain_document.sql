-- An issued document or a draft with its lines, and whether it is what was frozen.
select
    documents.invoice_number as document,
    documents.document_kind,
    documents.tenant_id,
    documents.tenant_name,
    documents.plan_name,
    documents.currency,
    documents.total,
    documents.amount_due,
    documents.minor_digits,
    documents.refers_to,
    documents.issued_at,
    documents.billing_date,
    documents.content_sha256,
    documents.previous_sha256,
    documents.content_sha256 = encode(sha256(convert_to(documents.content, 'UTF8')), 'hex') as content_holds,
    documents.previous_sha256 = coalesce(before.content_sha256, repeat('0', 64)) as chain_holds,
    before.invoice_number as previous_document,
    (
        select coalesce(sum(lines.amount), 0)
        from invoices.issued_invoice_lines as lines
        where lines.invoice_number = documents.invoice_number
    ) as lines_total
from invoices.issued_invoices as documents
left join invoices.issued_invoices as before
    on documents.series = before.series and documents.series_number - 1 = before.series_number
where documents.invoice_number = %(document)s
union all
select
    drafts.draft_id,
    'draft',
    drafts.tenant_id,
    tenants.name,
    null,
    drafts.currency,
    drafts.total,
    drafts.total as amount_due,
    currencies.minor_digits,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    (
        select coalesce(sum(lines.amount), 0)
        from invoices.draft_invoice_lines as lines
        where lines.draft_id = drafts.draft_id
    )
from invoices.draft_invoices as drafts
inner join catalog.currencies on drafts.currency = currencies.currency
left join catalog.tenants on drafts.tenant_id = tenants.tenant_id
where drafts.draft_id = %(document)s
