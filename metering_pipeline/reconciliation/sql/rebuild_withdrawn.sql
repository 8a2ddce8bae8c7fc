-- What only superseded versions of a file held: by the newest version that held it, its first line there.
insert into ledger_rebuilt.further
with former as (
    select *
    from ledger_rebuilt.landed
    where
        not is_current
        and landed_hour = any(%(superseded_hours)s)
        and date_bin('1 day', occurred_at, '2000-01-01 00:00:00+00'::timestamptz) = any(%(days)s)
        and not exists (
            select 1
            from ledger_rebuilt.left_out
            where left_out.occurred_at = landed.occurred_at and left_out.fingerprint = landed.fingerprint
        )
)

select distinct on (file_key, kind, fingerprint)
    'withdrawn' as relation,
    md5(concat_ws(':', file_key, kind, fingerprint))::uuid as key,
    file_key,
    kind,
    tenant_id,
    event_type,
    occurred_at,
    correlation_id,
    fingerprint,
    payload_hash,
    quantity,
    properties,
    landed_hour,
    file_id,
    line_number
from former
where not exists (
    select 1
    from ledger_rebuilt.copies
    where
        copies.occurred_at = former.occurred_at
        and copies.fingerprint = former.fingerprint
        and copies.kind = former.kind
        and copies.file_key = former.file_key
)
order by file_key, kind, fingerprint, file_id desc, line_number
