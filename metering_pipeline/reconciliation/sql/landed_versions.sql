-- The current file versions of a range of landing hours, without those whose records are archived.
select
    file_id,
    file_key,
    landed_hour,
    content_sha256,
    accepted_count,
    rejected_count,
    earliest_event_date,
    future_tolerance_minutes
from landing.files
where
    superseded_by is null
    and landed_hour >= %(window_start)s
    and landed_hour < %(window_end)s
    and landed_hour not in (select archived_hours.landed_hour from landing.archived_hours)
order by landed_hour, file_key
