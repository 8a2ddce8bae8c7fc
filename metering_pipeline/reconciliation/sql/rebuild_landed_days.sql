-- The UTC days of landing, with what each of them holds.
select
    date_bin('1 day', landed_hour, '2000-01-01 00:00:00+00'::timestamptz) as day,
    sum(accepted_count)::bigint as copies
from landing.files
group by day
order by day
