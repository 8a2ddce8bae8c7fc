-- The UTC days of usage that are proved: every one that a rollup has a row of, and those found red.
with hours as (
    select hour
    from rollups.usage_contributions
    union
    select hour
    from rollups.usage_hourly
    union
    select hour
    from rollups.unique_values_hourly
    union
    select day::timestamp at time zone 'UTC'
    from rollups.usage_daily
    union
    select window_start
    from reconciliation.current_law_results
    where
        law = 'L3'
        and window_end = window_start + interval '1 day'
        and tenant_id is null
        and not passed
)

select distinct date_bin('1 day', hour, '2000-01-01 00:00:00+00'::timestamptz) as day
from hours
order by day
