{{ config(materialized='table_function', meta={'requires': [
    {
        'condition': catalog_fits('given_time_zone', 'zone'),
        'otherwise': "format('%L is no time zone: " ~ catalog_expectation('zone') ~ ".', given_time_zone)",
    },
    {
        'condition': 'given_first_day <= given_last_day',
        'otherwise': "'The last day must not lie before the first: give two dates, the earlier one first.'",
    },
]}) }}

-- A day lasts from its midnight to the next, 23 or 25 hours where the clock is changed.

with days as (
    select
        day::date as day,
        {{ instant_of('day', 'given_time_zone') }} as starts_at,
        {{ instant_of("(day + interval '1 day')", 'given_time_zone') }} as ends_at
    from generate_series(given_first_day::timestamp, given_last_day::timestamp, interval '1 day') as days (day)
)

select
    days.*,
    found.*
from days
cross join lateral {{ ref('usage_between') }}(
    given_tenant_id, given_metric, days.starts_at, days.ends_at
) as found
