-- Drafts whose tenant has usage in their window that is not rolled up or not rated yet.
with owed as (
    select
        tenant_id,
        event_hour as starts,
        event_hour + interval '1 hour' as ends
    from ledger.pending
    union all
    select
        tenant_id,
        hour as starts,
        hour + interval '1 hour' as ends
    from rollups.touched_buckets
    union all
    select
        tenant_id,
        day::timestamp at time zone 'UTC' as starts,
        (day + 1)::timestamp at time zone 'UTC' as ends
    from rollups.touched_days
    union all
    select
        tenant_id,
        day::timestamp at time zone 'UTC' as starts,
        (day + 1)::timestamp at time zone 'UTC' as ends
    from rating.touched
)

select
    due_drafts.draft_id,
    format(
        '%%s keys of usage wait to be rolled up or rated, the earliest of %%s',
        count(*), to_char(min(owed.starts) at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
    ) as detail
from due_drafts
inner join owed
    on due_drafts.tenant_id = owed.tenant_id
        and due_drafts.usage_start < owed.ends
        and due_drafts.usage_end > owed.starts
where due_drafts.bears_usage
group by due_drafts.draft_id
