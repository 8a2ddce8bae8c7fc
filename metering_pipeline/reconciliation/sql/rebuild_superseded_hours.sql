-- The landing hours that hold a superseded file version.
select coalesce(array_agg(distinct landed_hour), '{}') as hours
from landing.files
where superseded_by is not null
