-- What an event's usage came to, metric by metric.
select *
from reconciliation.event_charges(%(tenant_id)s, %(event_type)s, %(occurred_at)s, %(correlation_id)s)
