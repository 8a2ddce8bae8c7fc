-- Credits of tenants with something left that pay on a billing date, in the order in which they do: the lower
-- priority number, then the earlier expiry, then the older grant.
with balances as (
    select
        entries.credit_id,
        sum(entries.amount) as balance
    from invoices.credit_entries as entries
    where entries.tenant_id = any(%(tenants)s::text[])
    group by entries.credit_id
    having sum(entries.amount) > 0
)

select
    grants.credit_id,
    grants.tenant_id,
    grants.currency,
    grants.components,
    balances.balance
from balances
inner join invoices.credit_entries as grants on balances.credit_id = grants.credit_id
where grants.kind = 'grant' and (grants.expires_on is null or grants.expires_on > %(billing_date)s)
order by grants.tenant_id, grants.priority, grants.expires_on nulls last, grants.entry_id
