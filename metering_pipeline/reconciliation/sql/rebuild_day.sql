-- The ledger of one UTC day of occurrence: the smallest copy of an event, or of a void, owns it; the others
-- are duplicates if they say what the owner says (or are voids), else conflicts.
with ordered as (
    select
        copies.*,
        row_number() over smaller_copies = 1 as is_owner,
        first_value(payload_hash) over smaller_copies as owner_payload_hash
    from ledger_rebuilt.copies
    where
        occurred_at >= %(window_start)s
        and occurred_at < %(window_end)s
        and not exists (
            select 1
            from ledger_rebuilt.left_out
            where left_out.occurred_at = copies.occurred_at and left_out.fingerprint = copies.fingerprint
        )
    window smaller_copies as (
        partition by occurred_at, fingerprint, kind
        order by landed_hour, file_key collate "C", line_number
    )
),

owned as (
    insert into ledger_rebuilt.owned
    select
        'usage_events' as relation,
        fingerprint as key,
        null as file_key,
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
    from ordered
    where is_owner and kind = 'event'
)

insert into ledger_rebuilt.further
select
    case
        when is_owner then 'voids'
        when kind = 'void' or payload_hash = owner_payload_hash then 'duplicates'
        else 'conflicts'
    end as relation,
    case when is_owner then fingerprint else md5(concat_ws(':', file_id, line_number))::uuid end as key,
    null as file_key,
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
from ordered
where kind = 'void' or not is_owner
