-- The files that events came from, every version: without what they hold of others.
select
    file_key,
    content_sha256,
    size_bytes,
    landed_hour,
    landed_at
from landing.files
where file_key = any(%(file_keys)s::text[])
order by file_key, file_id
