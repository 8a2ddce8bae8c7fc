-- Takes back what is left of a credit.
insert into invoices.credit_entries (
    credit_id, kind, tenant_id, currency, amount, entered_at, entered_by, reason
)
select
    credit_id,
    'voided',
    tenant_id,
    currency,
    -sum(amount),
    %(now)s,
    %(by)s,
    %(why)s
from invoices.credit_entries
where credit_id = %(credit_id)s
group by credit_id, tenant_id, currency
having sum(amount) > 0
returning -amount
