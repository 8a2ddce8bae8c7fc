-- All events of a span, added up by hour and dimensions, their hashes computed anew.
select
    date_bin('1 hour', occurred_at, '2000-01-01 00:00:00+00') as hour,
    dimensions,
    count(*) as event_count,
    sum(value) as value_sum,
    sum(catalog.low_64_bits(fingerprint)) as event_digest,
    sum(catalog.low_64_bits(payload_hash)) as payload_digest,
    count(*) filter (where not (fingerprint_holds and payload_holds)) as wrong_hashes
from reconciliation.hour_events(
    %(tenant_id)s, %(metric)s, %(starts_at)s, %(ends_at)s, %(dimensions)s, null
)
group by date_bin('1 hour', occurred_at, '2000-01-01 00:00:00+00'), dimensions
