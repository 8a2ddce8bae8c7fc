-- A provider's usage against ours, by tenant, metric and period. The threshold is relative to the larger side.

with sources as (
    select distinct source
    from {{ source('reconciliation', 'provider_fetches') }}
),

periods as (
    select
        sources.source,
        fetch_id,
        tenant_id,
        case when tenant_id is null then customer end as unknown_customer,
        string_agg(distinct customer, ', ') as customer,
        metric,
        case when metric is null then meter end as unknown_meter,
        string_agg(distinct meter, ', ') as meter,
        period_start,
        period_end,
        {{ quantity_of_pieces('aggregation', 'theirs', 'starts_at') }} as theirs,
        {{ quantity_of_pieces('aggregation', 'ours', 'starts_at') }} as ours,
        count(*) filter (where difference <> 0) as differing_count,
        fetched_at
    from sources
    cross join lateral {{ ref('provider_pieces') }}(sources.source)
    group by
        sources.source, fetch_id, tenant_id, case when tenant_id is null then customer end, metric,
        case when metric is null then meter end, aggregation, period_start, period_end, fetched_at
),

measured as (
    select
        periods.*,
        coalesce(periods.theirs, 0) - coalesce(periods.ours, 0) as difference,
        greatest(abs(periods.theirs), abs(periods.ours)) as larger,
        threshold.value::numeric as threshold_percent
    from periods
    inner join catalog.settings as threshold on threshold.name = 'provider_threshold_percent'
),

classified as (
    select
        *,
        case
            when difference = 0 and differing_count = 0 then 'identical'
            when abs(difference) * 100 <= threshold_percent * larger then 'within threshold'
            when theirs is null then 'missing'
            when ours is null then 'extra'
            else 'modified'
        end as state
    from measured
)

select
    source,
    fetch_id,
    tenant_id,
    customer,
    metric,
    meter,
    period_start,
    period_end,
    theirs,
    ours,
    difference,
    case when larger > 0 then round(abs(difference) * 100 / larger, 6) else 0 end as difference_percent,
    differing_count,
    state,
    state in ('modified', 'missing', 'extra') as is_beyond,
    fetched_at
from classified
