{{ config(materialized='table_function', meta={
    'requires': [whole_hour('starts_at'), whole_hour('ends_at')], 'guards': [ledger_has_span()],
}) }}

-- Usage counted event by event in the ledger against hourly usage, without the contributions between them. What the
-- rollups still owe is a debt and no difference.

with standing as (
    select
        events.*,
        1 as sign
    from {{ ref('usage_events') }} as events
    where
        events.occurred_at >= given_starts_at
        and events.occurred_at < given_ends_at
        and not exists (
            select 1
            from {{ source('ledger', 'voids') }} as voids
            where voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
        )
),

metered as (
    {{ metric_events('standing') }}
),

sides as (
    select
        tenant_id,
        metric,
        {{ hour_of('occurred_at') }} as hour,
        dimensions,
        false as is_hourly,
        {{ bucket_figures() }}
    from metered
    where unreadable is null
    group by tenant_id, metric, {{ hour_of('occurred_at') }}, dimensions
    union all
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        true as is_hourly,
        event_count,
        0 as voided_count,
        value_sum,
        value_moment,
        value_min,
        value_max,
        value_latest,
        latest_at,
        latest_fingerprint,
        event_digest,
        payload_digest
    from {{ ref('usage_hourly') }}
    where hour >= given_starts_at and hour < given_ends_at
),

compared as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        coalesce(sum(event_count) filter (where not is_hourly), 0)::bigint as ledger_count,
        coalesce(sum(event_count) filter (where is_hourly), 0)::bigint as hourly_count,
        coalesce(sum(value_sum) filter (where not is_hourly), 0) as ledger_sum,
        coalesce(sum(value_sum) filter (where is_hourly), 0) as hourly_sum,
        {{ differing_columns('is_hourly', [
            'event_count', 'value_sum', 'value_moment', 'value_min', 'value_max', 'value_latest', 'latest_at',
            'latest_fingerprint::text', 'event_digest', 'payload_digest',
        ]) }} as differs_in
    from sides
    group by tenant_id, metric, hour, dimensions
)

select
    compared.*,
    exists(
        select 1
        from {{ source('rollups', 'indebted_hours') }} as indebted
        where indebted.tenant_id = compared.tenant_id and indebted.hour = compared.hour
    ) as is_pending,
    {{ classified('ledger_count', 'hourly_count', "differs_in = '{}'") }} as state
from compared
