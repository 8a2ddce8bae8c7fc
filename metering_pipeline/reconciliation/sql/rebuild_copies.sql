-- The copies that landed on one day, of the events that occurred on the days compared.
insert into ledger_rebuilt.copies
select
    kind,
    tenant_id,
    event_type,
    occurred_at,
    correlation_id,
    fingerprint,
    payload_hash,
    quantity,
    properties,
    landed_hour,
    file_key,
    file_id,
    line_number
from ledger_rebuilt.landed
where
    landed_hour >= %(day)s
    and landed_hour < %(day)s + interval '1 day'
    and is_current
    and date_bin('1 day', occurred_at, '2000-01-01 00:00:00+00'::timestamptz) = any(%(days)s)
