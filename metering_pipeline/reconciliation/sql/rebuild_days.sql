-- The UTC days on which the events occurred that the landing hours hold a copy of, in landing or in the ledger.
with instants as (
    select occurred_at
    from landing.usage_events
    where
        landed_hour >= coalesce(%(window_start)s::timestamptz, '-infinity')
        and landed_hour < coalesce(%(window_end)s::timestamptz, 'infinity')
    union all
    select occurred_at
    from ledger_rebuilt.posted
    where
        landed_hour >= coalesce(%(window_start)s::timestamptz, '-infinity')
        and landed_hour < coalesce(%(window_end)s::timestamptz, 'infinity')
)

select distinct date_bin('1 day', occurred_at, '2000-01-01 00:00:00+00'::timestamptz) as day
from instants
order by day
