{{ config(materialized='table_function', meta={'guards': [ledger_has_span()]}) }}

-- Voids that landed later, like events that landed later, are not known yet.

with standing as (
    {{ standing_events('given_tenant_id', 'given_starts_at', 'given_ends_at', 'given_landed_before') }}
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
