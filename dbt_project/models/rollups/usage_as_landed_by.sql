{{ config(materialized='table_function', meta={'requires': [
    whole_hour('starts_at'), whole_hour('ends_at'), whole_hour('landed_before'),
]}) }}

-- What landed before that instant had contributed; hours that the contributions still owe are read from the
-- ledger. Smallest, largest and latest value are not among the figures: a void takes back what cannot be
-- subtracted from them, and the contributions do not keep what they were before it.

with owed as (
    select distinct event_hour as hour
    from {{ source('ledger', 'pending') }}
    where
        tenant_id = given_tenant_id
        and event_hour >= given_starts_at
        and event_hour < given_ends_at
),

pieces as (
    select
        dimensions,
        event_count,
        value_sum,
        value_moment,
        event_digest,
        payload_digest
    from {{ ref('usage_contributions') }}
    where
        tenant_id = given_tenant_id
        and metric = given_metric
        and hour >= given_starts_at
        and hour < given_ends_at
        and landed_hour < given_landed_before
        and hour not in (select hour from owed)
    union all
    select
        found.dimensions,
        found.event_count,
        found.value_sum,
        found.value_moment,
        found.event_digest,
        found.payload_digest
    from owed
    cross join lateral {{ ref('usage_in_ledger') }}(
        given_tenant_id, owed.hour, owed.hour + interval '1 hour', given_landed_before
    ) as found
    where found.metric = given_metric
)

select
    dimensions,
    sum(event_count) as event_count,
    sum(value_sum) as value_sum,
    sum(value_moment) as value_moment,
    sum(event_digest) as event_digest,
    sum(payload_digest) as payload_digest
from pieces
group by dimensions
having sum(event_count) > 0
