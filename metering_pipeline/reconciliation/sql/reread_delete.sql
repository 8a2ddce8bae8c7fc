-- The events of a file version whose records differ from its file.
delete from landing.usage_events
where landed_hour = %(landed_hour)s and file_id = %(file_id)s
