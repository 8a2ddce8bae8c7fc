-- The records of a file version, counted anew.
update landing.files
set
    accepted_count = (select count(*) from pg_temp.reread),
    rejected_count = (select count(*) from pg_temp.reread_rejected)
where file_id = %(file_id)s
