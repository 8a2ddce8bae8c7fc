-- Coupons of tenants that may reduce documents of a billing date, in the order in which they do, with what
-- they have left: of an amount, and of the number of documents. A voided document has given back what it used.
with used as (
    select
        entries.coupon_id,
        sum(entries.amount) as amount,
        count(distinct entries.invoice_number) filter (where documents.document_kind <> 'void')
        - count(distinct entries.invoice_number) filter (where documents.document_kind = 'void') as documents
    from invoices.coupon_entries as entries
    inner join invoices.issued_invoices as documents on entries.invoice_number = documents.invoice_number
    inner join catalog.coupons on entries.coupon_id = coupons.coupon_id
    where coupons.tenant_id = any(%(tenants)s::text[])
    group by entries.coupon_id
)

select
    coupons.coupon_id,
    coupons.tenant_id,
    coupons.subscription_id,
    coupons.currency,
    coupons.description,
    coupons.percent,
    case when coupons.amount is not null then greatest(coupons.amount - coalesce(used.amount, 0), 0) end as amount_left,
    case
        when coupons.document_limit is not null then greatest(coupons.document_limit - coalesce(used.documents, 0), 0)
    end as documents_left
from catalog.coupons
left join used on coupons.coupon_id = used.coupon_id
where
    coupons.tenant_id = any(%(tenants)s::text[])
    and coupons.effective_from <= %(billing_date)s
    and (coupons.effective_until is null or coupons.effective_until > %(billing_date)s)
order by coupons.tenant_id, coupons.effective_from, coupons.coupon_id
