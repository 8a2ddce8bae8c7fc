-- The rejected records of a file version as its file says them. What was erased of the others stays so.
with obsolete as (
    delete from landing.rejected_events
    where
        file_id = %(file_id)s
        and line_number not in (select reread_rejected.line_number from pg_temp.reread_rejected)
)

insert into landing.rejected_events
select *
from pg_temp.reread_rejected
on conflict (file_id, line_number) do update
    set
        reason = excluded.reason,
        detail = case when rejected_events.raw_line is null then rejected_events.detail else excluded.detail end
