-- The newest fetch of a source.
select fetched_at
from reconciliation.provider_fetches
where source = %(source)s
order by fetch_id desc
limit 1
