{{ config(materialized='table_function', meta={'guards': [ledger_has_span()]}) }}

with standing as (
    {{ standing_events('given_tenant_id', 'given_starts_at', 'given_ends_at') }}
),

-- Depends on {{ source('catalog', 'metrics') }}.
measured as (
    {{ metric_events('standing') }}
)

select
    dimensions,
    unique_value as value,
    {{ unique_value_figures() }}
from measured
where metric = given_metric and unreadable is null and unique_value is not null
group by dimensions, unique_value
