-- Events of a piece of usage, the earliest first, with file and line and their hashes computed anew.
select *
from reconciliation.hour_events(
    %(tenant_id)s, %(metric)s, %(starts_at)s, %(ends_at)s, %(dimensions)s, %(at_most)s
)
