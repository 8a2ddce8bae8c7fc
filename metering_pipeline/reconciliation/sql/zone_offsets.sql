-- The offsets of time zones, each from an instant on. A change is looked for day by day, then minute by minute.
with
days as (
    select
        names.name,
        days.day,
        (days.day at time zone names.name) - (days.day at time zone 'UTC') as utc_offset
    from unnest(%(names)s::text[]) as names (name)
    cross join generate_series(%(starts_at)s::timestamptz, %(ends_at)s::timestamptz, '24 hours') as days (day)
),

changes as (
    select
        name,
        day,
        utc_offset,
        lag(utc_offset) over (partition by name order by day) as former_offset
    from days
)

select
    changes.name,
    minutes.starts_at,
    changes.utc_offset
from changes
cross join lateral (
    select coalesce(min(each.minute), changes.day) as starts_at
    from generate_series(changes.day - interval '24 hours', changes.day, '1 minute') as each (minute)
    where
        changes.former_offset is not null
        and (each.minute at time zone changes.name) - (each.minute at time zone 'UTC') = changes.utc_offset
) as minutes
where changes.utc_offset is distinct from changes.former_offset
order by changes.name, minutes.starts_at
