-- The UTC days of landing that are archived and lie in a span, by their first instants.
select day::timestamp at time zone 'UTC' as day
from catalog.archives
where
    stage = 'landing'
    and attached_at is null
    and day >= (%(window_start)s::timestamptz at time zone 'UTC')::date
    and day::timestamp at time zone 'UTC' < %(window_end)s
order by day
