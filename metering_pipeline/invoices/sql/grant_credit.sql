-- Grants a credit to a tenant of the catalog, in a currency of the catalog.
insert into invoices.credit_entries (
    credit_id, kind, tenant_id, currency, amount, priority, expires_on, components, entered_at, entered_by, reason
)
select
    'CR-' || lpad(nextval('invoices.credit_numbers')::text, 6, '0'),
    'grant',
    tenants.tenant_id,
    currencies.currency,
    %(amount)s,
    %(priority)s,
    %(expires_on)s,
    %(components)s,
    %(now)s,
    %(by)s,
    %(why)s
from catalog.tenants
cross join catalog.currencies
where tenants.tenant_id = %(tenant_id)s and currencies.currency = %(currency)s
returning credit_id
