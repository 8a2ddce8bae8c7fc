-- Takes out of the ledger the rows that should not be there, or not as they are; how many they were.
with wrong as (
    select *
    from ledger_rebuilt.differences
    where side = 'ledger'
),

deleted_usage_events as (
    delete from ledger.usage_events
    using wrong
    where
        wrong.relation = 'usage_events'
        and usage_events.occurred_at = wrong.occurred_at
        and usage_events.fingerprint = wrong.fingerprint
    returning 1
),

deleted_duplicates as (
    delete from ledger.duplicates
    using wrong
    where
        wrong.relation = 'duplicates'
        and duplicates.file_id = wrong.file_id
        and duplicates.line_number = wrong.line_number
    returning 1
),

deleted_conflicts as (
    delete from ledger.conflicts
    using wrong
    where
        wrong.relation = 'conflicts'
        and conflicts.file_id = wrong.file_id
        and conflicts.line_number = wrong.line_number
    returning 1
),

deleted_voids as (
    delete from ledger.voids
    using wrong
    where
        wrong.relation = 'voids'
        and voids.occurred_at = wrong.occurred_at
        and voids.fingerprint = wrong.fingerprint
    returning 1
),

deleted_withdrawn as (
    delete from ledger.withdrawn
    using wrong
    where
        wrong.relation = 'withdrawn'
        and withdrawn.file_key = wrong.file_key
        and withdrawn.kind = wrong.kind
        and withdrawn.fingerprint = wrong.fingerprint
    returning 1
)

select
    (select count(*) from deleted_usage_events)
    + (select count(*) from deleted_duplicates)
    + (select count(*) from deleted_conflicts)
    + (select count(*) from deleted_voids)
    + (select count(*) from deleted_withdrawn) as deleted
