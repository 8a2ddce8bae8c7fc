-- The side schema of a rebuild. All of it lives in one transaction, which is undone at its end.
select catalog.make_rebuild_schema();

-- What landing says of each copy, superseded file versions included; the hashes computed anew from the
-- published rules (the first 128 bits of SHA-256), not by the models' expressions. Of a payload that was erased the
-- hash that it had stands beside the record.
create view ledger_rebuilt.landed as
select
    case when events.void then 'void' else 'event' end as kind,
    events.tenant_id,
    events.event_type,
    events.occurred_at,
    events.correlation_id,
    encode(substring(sha256(convert_to(
        events.tenant_id || chr(31) || events.event_type || chr(31)
        || micros.since_1970::text || chr(31) || events.correlation_id, 'UTF8'
    )) from 1 for 16), 'hex')::uuid as fingerprint,
    coalesce(events.erased_payload_hash, encode(substring(sha256(convert_to(
        case
            when scale(events.quantity) = 0 then events.quantity::text
            else rtrim(rtrim(events.quantity::text, '0'), '.')
        end || chr(31) || events.properties, 'UTF8'
    )) from 1 for 16), 'hex')::uuid) as payload_hash,
    trim_scale(events.quantity) as quantity,
    events.properties::jsonb as properties,
    events.landed_hour,
    files.file_key,
    events.file_id,
    events.line_number,
    files.superseded_by is null as is_current
from landing.usage_events as events
inner join landing.files on events.file_id = files.file_id
cross join lateral (
    select
        trunc(extract(epoch from events.occurred_at - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
            as since_1970
) as micros;

-- Every row of the ledger, its columns in one order. The key is what is unique in its table, beside occurred_at.
create view ledger_rebuilt.posted as
select
    'usage_events' as relation,
    fingerprint as key,
    null::text collate "C" as file_key,
    'event' as kind,
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
from ledger.usage_events
union all
select
    'duplicates' as relation,
    md5(concat_ws(':', file_id, line_number))::uuid as key,
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
from ledger.duplicates
union all
select
    'conflicts' as relation,
    md5(concat_ws(':', file_id, line_number))::uuid as key,
    null as file_key,
    'event' as kind,
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
from ledger.conflicts
union all
select
    'voids' as relation,
    fingerprint as key,
    null as file_key,
    'void' as kind,
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
from ledger.voids
union all
select
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
from ledger.withdrawn;

-- The copies that current file versions hold.
create unlogged table ledger_rebuilt.copies (
    kind text not null,
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_key text collate "C" not null,
    file_id bigint not null,
    line_number bigint not null
);

-- The ledger as it must be: the owned events of the day in hand, and all that goes beside them.
create unlogged table ledger_rebuilt.owned (
    relation text not null,
    key uuid not null,
    file_key text collate "C",
    kind text not null,
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    check (relation = 'usage_events')
);
create unlogged table ledger_rebuilt.further (
    like ledger_rebuilt.owned,
    check (relation <> 'usage_events')
);
create view ledger_rebuilt.rebuilt as
select * from ledger_rebuilt.owned
union all
select * from ledger_rebuilt.further;

-- Rows that differ: side 'landing' as they must be, side 'ledger' as they are.
create unlogged table ledger_rebuilt.differences (
    side text not null,
    difference text not null,
    like ledger_rebuilt.owned
);

-- Hours whose posting is still to come: the events that they hold a copy of are not compared, since that
-- posting may change what is owned, and what is a further copy.
create unlogged table ledger_rebuilt.waiting_hours as
select landed_hour
from landing.hours
where landed_at is not null and posted_at is null;

create unlogged table ledger_rebuilt.left_out as
select distinct
    landed.occurred_at,
    landed.fingerprint
from ledger_rebuilt.landed
inner join ledger_rebuilt.waiting_hours on landed.landed_hour = waiting_hours.landed_hour;
analyze ledger_rebuilt.left_out;
