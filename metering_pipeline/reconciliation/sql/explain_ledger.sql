-- A piece of usage as the ledger has it: its events added up.
select
    event_count,
    value_sum,
    event_digest,
    payload_digest
from rollups.usage_in_ledger(%(tenant_id)s, %(starts_at)s, %(ends_at)s, 'infinity')
where metric = %(metric)s and dimensions = %(dimensions)s
