-- The UTC days of usage of which landing has not every copy, or the ledger not the events, since they are archived.
select distinct date_bin('1 day', occurred_at, '2000-01-01 00:00:00+00'::timestamptz) as day
from ledger_rebuilt.posted
where
    occurred_at >= %(window_start)s
    and occurred_at < %(window_end)s
    and landed_hour in (select archived_hours.landed_hour from landing.archived_hours)
union
select day::timestamp at time zone 'UTC'
from ledger.archived_days
where day::timestamp at time zone 'UTC' >= %(window_start)s and day::timestamp at time zone 'UTC' < %(window_end)s
