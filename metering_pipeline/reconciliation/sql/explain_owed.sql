-- The hours of a tenant's usage in a span that the rollups still owe.
select count(*) as hours
from rollups.indebted_hours
where tenant_id = %(tenant_id)s and hour >= %(starts_at)s::timestamptz - interval '1 hour' and hour < %(ends_at)s
