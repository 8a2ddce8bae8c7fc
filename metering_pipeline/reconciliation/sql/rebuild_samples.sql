-- The first differing rows of each table and class, with their place: that of landing where there is one.
with expected as (
    select *
    from ledger_rebuilt.differences
    where side = 'landing'
),

found as (
    select *
    from ledger_rebuilt.differences
    where side = 'ledger'
),

paired as (
    select
        relation,
        coalesce(expected.difference, found.difference) as difference,
        coalesce(expected.tenant_id, found.tenant_id) as tenant_id,
        coalesce(expected.event_type, found.event_type) as event_type,
        occurred_at,
        coalesce(expected.correlation_id, found.correlation_id) as correlation_id,
        coalesce(expected.fingerprint, found.fingerprint) as fingerprint,
        coalesce(expected.landed_hour, found.landed_hour) as landed_hour,
        coalesce(expected.file_id, found.file_id) as file_id,
        coalesce(expected.line_number, found.line_number) as line_number,
        array_remove(array[
            case when expected.kind <> found.kind then 'kind' end,
            case when expected.tenant_id <> found.tenant_id then 'tenant_id' end,
            case when expected.event_type <> found.event_type then 'event_type' end,
            case when expected.correlation_id <> found.correlation_id then 'correlation_id' end,
            case when expected.fingerprint <> found.fingerprint then 'fingerprint' end,
            case when expected.payload_hash <> found.payload_hash then 'payload_hash' end,
            case when expected.quantity <> found.quantity then 'quantity' end,
            case when expected.properties <> found.properties then 'properties' end,
            case when expected.landed_hour <> found.landed_hour then 'landed_hour' end,
            case when expected.file_id <> found.file_id then 'file_id' end,
            case when expected.line_number <> found.line_number then 'line_number' end
        ], null) as differing_columns
    from expected
    full outer join found using (relation, occurred_at, key)
),

numbered as (
    select
        paired.*,
        files.file_key,
        row_number() over (
            partition by paired.relation, paired.difference
            order by
                paired.landed_hour, files.file_key collate "C", paired.line_number,
                paired.occurred_at, paired.fingerprint
        ) as place
    from paired
    left join landing.files on paired.file_id = files.file_id
)

select
    relation,
    difference,
    file_key,
    file_id,
    line_number,
    tenant_id,
    event_type,
    occurred_at,
    correlation_id,
    fingerprint,
    differing_columns
from numbered
where place <= %(samples)s
order by relation, difference, place
