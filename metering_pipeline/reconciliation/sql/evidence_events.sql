-- All events of a span, in their order, with their payload in canonical text.
select
    occurred_at,
    event_type,
    correlation_id,
    dimensions,
    value,
    quantity,
    properties_text,
    fingerprint,
    payload_hash,
    file_key,
    line_number,
    erased_at
from reconciliation.hour_events(
    %(tenant_id)s, %(metric)s, %(starts_at)s, %(ends_at)s, %(dimensions)s, null
)
