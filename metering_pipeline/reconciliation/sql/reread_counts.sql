-- How many records a file has, and how many of them differ.
select
    (select count(*) from pg_temp.reread) as accepted,
    (select count(*) from pg_temp.reread_rejected) as rejected,
    count(*) filter (where difference = 'missing') as missing,
    count(*) filter (where difference = 'extra') as extra,
    count(*) filter (where difference = 'modified') as modified
from pg_temp.reread_differences
