{{ config(materialized='view') }}

-- Usage as the ledger knows it at this moment: a tenant's hours without a debt from the hourly rollup, those
-- with one from the ledger. Whoever asks for a tenant and a span finds its debts by their keys, those of
-- others cost nothing.

select
    hours.tenant_id,
    hours.metric,
    hours.hour,
    hours.dimensions,
    {{ figure_columns() }}
from {{ ref('usage_hourly') }} as hours
where not exists (
    select 1
    from {{ source('rollups', 'indebted_hours') }} as indebted
    where indebted.tenant_id = hours.tenant_id and indebted.hour = hours.hour
)
union all
select
    indebted.tenant_id,
    found.metric,
    indebted.hour,
    found.dimensions,
    {{ figure_columns() }}
from {{ source('rollups', 'indebted_hours') }} as indebted
cross join lateral {{ ref('usage_in_ledger') }}(
    indebted.tenant_id, indebted.hour, indebted.hour + interval '1 hour', 'infinity'
) as found
