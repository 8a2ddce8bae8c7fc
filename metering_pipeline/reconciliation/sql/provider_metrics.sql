-- The metrics of ours that a fetch has values of, and how each is aggregated.
select
    metric,
    aggregation
from catalog.metrics
where metric in (
    select provider_usage.metric
    from reconciliation.provider_usage
    where provider_usage.fetch_id = %(fetch_id)s
)
order by metric
