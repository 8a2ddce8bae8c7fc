{{ config(materialized='table_function') }}

-- Whole hours without a debt from the rollup; the others, and what lies beside them at both ends, from the ledger.

{%- set first_hour = hour_of("given_starts_at + interval '59 minutes 59.999999 seconds'") %}
{%- set end_hour = hour_of('given_ends_at') %}

with from_ledger (starts_at, ends_at) as (
    values
    (given_starts_at, least({{ first_hour }}, given_ends_at)),
    (greatest({{ first_hour }}, {{ end_hour }}), given_ends_at)
    union all
    select
        hour,
        hour + interval '1 hour'
    from {{ source('rollups', 'indebted_hours') }}
    where tenant_id = given_tenant_id and hour >= {{ first_hour }} and hour < {{ end_hour }}
)

select
    hours.dimensions,
    hours.value,
    hours.event_count,
    hours.latest_at,
    hours.latest_fingerprint,
    hours.removed
from {{ source('rollups', 'unique_values_hourly') }} as hours
where
    hours.tenant_id = given_tenant_id
    and hours.metric = given_metric
    and hours.hour >= {{ first_hour }}
    and hours.hour < {{ end_hour }}
    and not exists (
        select 1
        from {{ source('rollups', 'indebted_hours') }} as indebted
        where indebted.tenant_id = hours.tenant_id and indebted.hour = hours.hour
    )
union all
select found.*
from from_ledger
cross join lateral {{ ref('unique_values_in_ledger') }}(
    given_tenant_id, given_metric, from_ledger.starts_at, from_ledger.ends_at
) as found
where from_ledger.starts_at < from_ledger.ends_at
