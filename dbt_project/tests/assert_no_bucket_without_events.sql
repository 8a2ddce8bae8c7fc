{{ config(meta={'dagster': {'ref': {'name': 'usage_hourly'}}}) }}

-- A bucket of the window's landing hours with no event in it: it would be read as usage of zero. Merge the
-- bucket again. It does not compare figures with the ledger (law L3 does).

select hours.*
from {{ ref('usage_hourly') }} as hours
inner join {{ ref('usage_contributions') }} as contributions
    on hours.tenant_id = contributions.tenant_id
        and hours.metric = contributions.metric
        and hours.hour = contributions.hour
        and hours.dimensions = contributions.dimensions
where
    contributions.landed_hour >= {{ window_start() }}
    and contributions.landed_hour < {{ window_end() }}
    and hours.event_count <= 0
