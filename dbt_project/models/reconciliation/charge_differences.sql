{{ config(materialized='table_function', meta={'requires': [{
    'condition': 'extract(day from given_usage_month) = 1',
    'otherwise': "'usage_month must be the first day of a month.'",
}]}) }}

-- From a month in which L4 fails, or a row of rollups_to_lines, to the UTC days: hourly usage against what is rated
-- in a slice of a charge or left unrated with a reason.

with hourly as (
    select
        tenant_id,
        metric,
        (hour at time zone 'UTC')::date as day,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        sum(event_digest) as event_digest
    from {{ ref('usage_hourly') }}
    where
        hour >= given_usage_month::timestamp at time zone 'UTC'
        and hour < (given_usage_month + interval '1 month') at time zone 'UTC'
    group by tenant_id, metric, (hour at time zone 'UTC')::date
),

assigned as (
    select
        tenant_id,
        metric,
        day,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        sum(event_digest) as event_digest,
        string_agg(distinct place, ', ' order by place) as places
    from (
        select
            tenant_id,
            metric,
            day,
            event_count,
            value_sum,
            event_digest,
            charge_id as place
        from {{ ref('period_usage_daily') }}
        where day >= given_usage_month and day < given_usage_month + interval '1 month'
        union all
        select
            tenant_id,
            metric,
            (piece_start at time zone 'UTC')::date as day,
            event_count,
            value_sum,
            event_digest,
            reason as place
        from {{ source('rating', 'unrated_usage') }}
        where
            reason <> 'unreadable_value'
            and piece_start >= given_usage_month::timestamp at time zone 'UTC'
            and piece_start < (given_usage_month + interval '1 month') at time zone 'UTC'
    ) as pieces
    group by tenant_id, metric, day
),

compared as (
    select
        tenant_id,
        metric,
        day,
        coalesce(hourly.event_count, 0) as hourly_count,
        coalesce(assigned.event_count, 0) as assigned_count,
        coalesce(hourly.value_sum, 0) as hourly_sum,
        coalesce(assigned.value_sum, 0) as assigned_sum,
        assigned.places,
        {{ classified(
            'hourly.event_count', 'assigned.event_count',
            '(hourly.value_sum, hourly.event_digest) = (assigned.value_sum, assigned.event_digest)'
        ) }} as state
    from hourly
    full join assigned using (tenant_id, metric, day)
)

select *
from compared
where state <> 'identical'
order by tenant_id, metric, day
