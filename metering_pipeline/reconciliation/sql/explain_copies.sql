-- Every record with a correlation id that landed for a tenant and occurred in a span.
select *
from reconciliation.event_copies(%(tenant_id)s, %(correlation_id)s, %(starts_at)s, %(ends_at)s)
