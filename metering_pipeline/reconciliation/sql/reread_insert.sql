-- The events of a file version as its file says them.
insert into landing.usage_events
select *
from pg_temp.reread
