-- Credits as of an instant, in the order in which they pay.
select *
from invoices.credit_balances_at(%(now)s) as balances
where balances.tenant_id = coalesce(%(tenant_id)s, balances.tenant_id)
order by
    balances.tenant_id, balances.currency, balances.priority, balances.expires_on nulls last, balances.granted_at,
    balances.credit_id
