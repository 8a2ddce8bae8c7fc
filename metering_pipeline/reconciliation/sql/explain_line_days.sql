-- The UTC days on which a line can count usage; what it carries from before its slice is of the day before it.
select day::date as day
from reconciliation.document_lines as line
cross join lateral generate_series(
    (line.slice_start at time zone 'UTC')::date - case when line.counted_from < line.slice_start then 1 else 0 end,
    (line.slice_end - interval '1 microsecond') at time zone 'UTC',
    interval '1 day'
) as day
where line.document = %(document)s and line.line_number = %(line_number)s
order by day
