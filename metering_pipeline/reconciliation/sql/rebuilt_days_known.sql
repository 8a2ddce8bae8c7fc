-- The UTC days of usage, of landing and of the ledger's partitions, with the week before the one asked for in which
-- each was rebuilt last, and whether it differed then. What is archived cannot be rebuilt.
with days as (
    select day
    from rollups.usage_daily
    union
    select (landed_hour at time zone 'UTC')::date
    from landing.files
    union
    select to_date(right(partitions.relname, 8), 'YYYYMMDD')
    from pg_inherits
    inner join pg_class as partitions on pg_inherits.inhrelid = partitions.oid
    where pg_inherits.inhparent = 'ledger.usage_events'::regclass
),

rebuilt as (
    select
        day,
        max(week) filter (where week < %(week)s) as proven
    from reconciliation.rebuilt_days
    group by day
),

red as (
    select distinct on (day, stage)
        day,
        missing_count + extra_count + modified_count > 0 as is_red
    from reconciliation.rebuilt_days
    where week < %(week)s
    order by day, stage, rebuilt_day_id desc
)

select
    days.day,
    rebuilt.proven,
    exists(
        select 1
        from red
        where red.day = days.day and red.is_red
    ) as is_red
from days
left join rebuilt on days.day = rebuilt.day
where
    days.day not in (
        select archives.day
        from catalog.archives
        where archives.attached_at is null
    )
order by days.day
