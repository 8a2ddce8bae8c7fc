-- Landing hours of a span that may still lack files.
select count(*) as hours
from landing.hours
where landed_hour >= %(starts_at)s and landed_hour < %(ends_at)s and not sealed
