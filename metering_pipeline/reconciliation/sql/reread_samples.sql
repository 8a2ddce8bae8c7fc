-- The first records of a file that differ.
select
    line_number,
    difference,
    tenant_id,
    correlation_id,
    differing_columns
from pg_temp.reread_differences
order by line_number
limit %(samples)s
