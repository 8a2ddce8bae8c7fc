-- Drafts with a landing hour in their window that has files and that L1, L2 or L3 was never evaluated for.
with hours as (
    select distinct landed_hour
    from landing.files
    where
        landed_hour >= (
            select min(due_drafts.first_landing_hour)
            from due_drafts
            where due_drafts.bears_usage
        )
        and landed_hour < (
            select max(due_drafts.cut_off)
            from due_drafts
            where due_drafts.bears_usage
        )
),

unknown_hours as (
    select hours.landed_hour
    from hours
    cross join (values ('L1'), ('L2'), ('L3')) as laws (law)
    where not exists (
        select 1
        from reconciliation.law_results as results
        where
            results.law = laws.law
            and results.window_start = hours.landed_hour
            and results.window_end = hours.landed_hour + interval '1 hour'
    )
    group by hours.landed_hour
)

select
    due_drafts.draft_id,
    format(
        'L1 to L3 were never evaluated for %%s landing hours, the first %%s',
        count(*), to_char(min(unknown_hours.landed_hour) at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
    ) as detail
from due_drafts
inner join unknown_hours
    on due_drafts.first_landing_hour <= unknown_hours.landed_hour
        and due_drafts.cut_off > unknown_hours.landed_hour
where due_drafts.bears_usage
group by due_drafts.draft_id
