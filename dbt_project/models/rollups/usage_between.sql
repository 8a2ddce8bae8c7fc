{{ config(materialized='table_function', meta={'requires': [{
    'condition': 'given_starts_at <= given_ends_at',
    'otherwise': "'The span must not end before it starts: give two instants, the earlier one first.'",
}]}) }}

-- Whole hours from usage_realtime; what lies beside them at both ends of the span from the ledger.

{%- set first_hour = hour_of("given_starts_at + interval '59 minutes 59.999999 seconds'") %}
{%- set end_hour = hour_of('given_ends_at') %}

with edges (starts_at, ends_at) as (
    values
    (given_starts_at, least({{ first_hour }}, given_ends_at)),
    (greatest({{ first_hour }}, {{ end_hour }}), given_ends_at)
),

pieces as (
    select
        dimensions,
        {{ figure_columns() }}
    from {{ ref('usage_realtime') }}
    where
        tenant_id = given_tenant_id
        and metric = given_metric
        and hour >= {{ first_hour }}
        and hour < {{ end_hour }}
    union all
    select
        found.dimensions,
        {{ figure_columns() }}
    from edges
    cross join lateral {{ ref('usage_in_ledger') }}(
        given_tenant_id, edges.starts_at, edges.ends_at, 'infinity'
    ) as found
    where edges.starts_at < edges.ends_at and found.metric = given_metric
),

merged as (
    select
        dimensions,
        {{ merged_figures('pieces') }}
    from pieces
    group by dimensions
),

single_values as (
    select
        metrics.aggregation,
        metrics.percentile,
        found.*
    from {{ source('catalog', 'metrics') }} as metrics
    cross join lateral {{ ref('unique_values_between') }}(
        given_tenant_id, given_metric, given_starts_at, given_ends_at
    ) as found
    where metrics.metric = given_metric and metrics.aggregation in ('unique_count', 'percentile')
),

counted as (
    {{ quantities_from_values('single_values', ['dimensions']) }}
)

select
    merged.dimensions,
    {{ aggregated_quantity(
        'metrics.aggregation', 'merged', 'given_starts_at', 'given_ends_at', 'counted'
    ) }} as quantity,
    {{ figure_columns() }}
from merged
inner join {{ source('catalog', 'metrics') }} as metrics on metrics.metric = given_metric
left join counted on merged.dimensions = counted.dimensions
