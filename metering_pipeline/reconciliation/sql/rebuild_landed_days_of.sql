-- The UTC days of landing that may hold copies of one day's events, with what each of them holds.
with posted as (
    select landed_hour
    from ledger.usage_events
    where occurred_at >= %(day)s and occurred_at < %(day)s + interval '1 day'
    union
    select landed_hour
    from ledger.duplicates
    where occurred_at >= %(day)s and occurred_at < %(day)s + interval '1 day'
    union
    select landed_hour
    from ledger.conflicts
    where occurred_at >= %(day)s and occurred_at < %(day)s + interval '1 day'
    union
    select landed_hour
    from ledger.voids
    where occurred_at >= %(day)s and occurred_at < %(day)s + interval '1 day'
)

select
    date_bin('1 day', landed_hour, '2000-01-01 00:00:00+00'::timestamptz) as day,
    sum(accepted_count)::bigint as copies
from landing.files
where
    (landed_hour >= %(day)s - interval '1 day' and landed_hour < %(day)s + %(reach)s)
    or landed_hour in (select posted.landed_hour from posted)
group by day
order by day
