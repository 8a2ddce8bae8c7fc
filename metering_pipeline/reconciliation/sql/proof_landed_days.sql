-- The UTC days whose landing hours are proved: all from the first hour on, and any other that holds rows, or that
-- was found red. Not those that are archived.
with outside as (
    select landed_hour
    from landing.files
    union
    select landed_hour
    from ledger.usage_events
    where landed_hour < %(first_hour)s or landed_hour >= %(end_hour)s
    union
    select landed_hour
    from rollups.usage_contributions
    where landed_hour < %(first_hour)s or landed_hour >= %(end_hour)s
    union
    select window_start
    from reconciliation.current_law_results
    where
        law in ('L1', 'L2', 'L3')
        and window_end = window_start + interval '1 hour'
        and tenant_id is null
        and not passed
    union
    select hour
    from generate_series(%(first_hour)s::timestamptz, %(end_hour)s::timestamptz - interval '1 hour', '1 hour') as hour
)

select distinct date_bin('1 day', landed_hour, '2000-01-01 00:00:00+00'::timestamptz) as day
from outside
where landed_hour not in (select archived_hours.landed_hour from landing.archived_hours)
order by day
