-- Series whose head is not their last document, with that document's billing date and tenant.
with last_documents as (
    select distinct on (series)
        series,
        series_number,
        content_sha256,
        billing_date,
        tenant_id
    from invoices.issued_invoices
    order by series, series_number desc
)

select
    coalesce(heads.series, last_documents.series) as series,
    last_documents.billing_date,
    last_documents.tenant_id,
    (heads.last_number is distinct from last_documents.series_number) as number_missing
from invoices.invoice_series as heads
full outer join last_documents on heads.series = last_documents.series
where
    coalesce(heads.last_number, 0) <> coalesce(last_documents.series_number, 0)
    or coalesce(heads.last_sha256, repeat('0', 64)) <> coalesce(last_documents.content_sha256, repeat('0', 64))
