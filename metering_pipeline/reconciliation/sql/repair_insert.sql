-- Puts into the ledger the rows that should be there; how many they were.
with lacking as (
    select *
    from ledger_rebuilt.differences
    where side = 'landing'
),

inserted_usage_events as (
    insert into ledger.usage_events (
        tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash,
        quantity, properties, landed_hour, file_id, line_number, recorded_at
    )
    select
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
        line_number,
        %(now)s
    from lacking
    where relation = 'usage_events'
    order by landed_hour, occurred_at, fingerprint, line_number
    returning 1
),

inserted_duplicates as (
    insert into ledger.duplicates (
        kind, tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash,
        quantity, properties, landed_hour, file_id, line_number, recorded_at
    )
    select
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
        line_number,
        %(now)s
    from lacking
    where relation = 'duplicates'
    order by landed_hour, occurred_at, fingerprint, line_number
    returning 1
),

inserted_conflicts as (
    insert into ledger.conflicts (
        tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash,
        quantity, properties, landed_hour, file_id, line_number, recorded_at
    )
    select
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
        line_number,
        %(now)s
    from lacking
    where relation = 'conflicts'
    order by landed_hour, occurred_at, fingerprint, line_number
    returning 1
),

inserted_voids as (
    insert into ledger.voids (
        tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash,
        quantity, properties, landed_hour, file_id, line_number, recorded_at
    )
    select
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
        line_number,
        %(now)s
    from lacking
    where relation = 'voids'
    order by landed_hour, occurred_at, fingerprint, line_number
    returning 1
),

inserted_withdrawn as (
    insert into ledger.withdrawn (
        file_key, kind, tenant_id, event_type, occurred_at, correlation_id, fingerprint, payload_hash,
        quantity, properties, landed_hour, file_id, line_number, recorded_at
    )
    select
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
        line_number,
        %(now)s
    from lacking
    where relation = 'withdrawn'
    order by landed_hour, occurred_at, fingerprint, line_number
    returning 1
)

select
    (select count(*) from inserted_usage_events)
    + (select count(*) from inserted_duplicates)
    + (select count(*) from inserted_conflicts)
    + (select count(*) from inserted_voids)
    + (select count(*) from inserted_withdrawn) as inserted
