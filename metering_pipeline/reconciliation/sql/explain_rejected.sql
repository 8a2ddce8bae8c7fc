-- Rejected records of a span of landing hours that contain a text.
select
    rejected.landed_hour,
    files.file_key,
    rejected.line_number,
    rejected.reason,
    rejected.detail,
    position(convert_to(%(tenant_id)s, 'UTF8') in rejected.raw_line) > 0 as names_tenant
from landing.rejected_events as rejected
inner join landing.files on rejected.file_id = files.file_id
where
    rejected.landed_hour >= %(starts_at)s
    and rejected.landed_hour < %(ends_at)s
    and position(convert_to(%(correlation_id)s, 'UTF8') in rejected.raw_line) > 0
order by rejected.landed_hour, files.file_key, rejected.line_number
limit 20
