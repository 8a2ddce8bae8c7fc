{{ config(materialized='table_function') }}

-- Voids that landed later, like events that landed later, are not known yet.

with standing as (
    select
        events.*,
        1 as sign
    from {{ ref('usage_events') }} as events
    where
        events.tenant_id = given_tenant_id
        and events.occurred_at >= given_starts_at
        and events.occurred_at < given_ends_at
        and events.landed_hour < given_landed_before
        and not exists (
            select 1
            from ledger.voids
            where
                voids.occurred_at = events.occurred_at
                and voids.fingerprint = events.fingerprint
                and voids.landed_hour < given_landed_before
        )
),

-- Depends on {{ source('catalog', 'metrics') }}.
metered as (
    {{ metric_events('standing') }}
)

select
    metric,
    dimensions,
    {{ bucket_figures() }}
from metered
where unreadable is null
group by metric, dimensions
