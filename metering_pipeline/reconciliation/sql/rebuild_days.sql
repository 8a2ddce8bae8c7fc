-- The UTC days on which the events occurred that the landing hours hold a copy of, in landing, in the ledger or in an
-- archive of it.
with instants as (
    select day::timestamp at time zone 'UTC' as occurred_at
    from ledger.archived_days
    where exists (
        select 1
        from unnest(landed_days) as landed (day)
        where
            (landed.day + 1)::timestamp at time zone 'UTC' > coalesce(%(window_start)s::timestamptz, '-infinity')
            and landed.day::timestamp at time zone 'UTC' < coalesce(%(window_end)s::timestamptz, 'infinity')
    )
    union all
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
