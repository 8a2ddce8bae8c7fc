-- What the rollups owe for the events that differ, as the ledger stands: the hours that book them and their voids.
insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour)
with events as (
    select
        usage_events.landed_hour,
        usage_events.tenant_id,
        usage_events.event_type,
        date_bin('1 hour', usage_events.occurred_at, '2000-01-01 00:00:00+00'::timestamptz) as event_hour,
        voids.landed_hour as void_landed_hour
    from ledger.usage_events
    left join ledger.voids
        on usage_events.occurred_at = voids.occurred_at and usage_events.fingerprint = voids.fingerprint
    where (usage_events.occurred_at, usage_events.fingerprint) in (
        select
            differences.occurred_at,
            differences.fingerprint
        from ledger_rebuilt.differences
        where differences.relation in ('usage_events', 'voids')
    )
)

select
    landed_hour,
    tenant_id,
    event_type,
    event_hour
from events
union
select
    greatest(landed_hour, void_landed_hour),
    tenant_id,
    event_type,
    event_hour
from events
where void_landed_hour is not null
on conflict do nothing
