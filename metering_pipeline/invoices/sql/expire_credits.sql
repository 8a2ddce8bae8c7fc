-- Enters what is left of credits that have expired by a billing date.
insert into invoices.credit_entries (
    credit_id, kind, tenant_id, currency, amount, entered_at, entered_by, reason
)
select
    grants.credit_id,
    'expired',
    grants.tenant_id,
    grants.currency,
    -sum(entries.amount),
    %(now)s,
    'issuing',
    format('expired on %%s', grants.expires_on)
from invoices.credit_entries as grants
inner join invoices.credit_entries as entries on grants.credit_id = entries.credit_id
where grants.kind = 'grant' and grants.expires_on <= %(billing_date)s
group by grants.entry_id
having sum(entries.amount) > 0
