-- One table of the ledger against its rebuilt rows, row for row, every column but recorded_at, both ways.
with days as (
    select unnest(%(days)s::timestamptz[]) as day
),

rebuilt as not materialized (
    select *
    from ledger_rebuilt.rebuilt
    where
        relation = %(relation)s
        and occurred_at >= %(window_start)s
        and occurred_at < %(window_end)s
),

posted as not materialized (
    select *
    from ledger_rebuilt.posted
    where
        relation = %(relation)s
        and occurred_at >= %(window_start)s
        and occurred_at < %(window_end)s
        and date_bin('1 day', occurred_at, '2000-01-01 00:00:00+00'::timestamptz) in (select days.day from days)
        and not exists (
            select 1
            from ledger_rebuilt.left_out
            where left_out.occurred_at = posted.occurred_at and left_out.fingerprint = posted.fingerprint
        )
),

differing as materialized (
    select
        relation,
        occurred_at,
        key,
        case
            when posted.key is null then 'missing'
            when rebuilt.key is null then 'extra'
            else 'modified'
        end as difference
    from rebuilt
    full outer join posted using (relation, occurred_at, key)
    where rebuilt is distinct from posted
)

insert into ledger_rebuilt.differences
select
    'landing',
    differing.difference,
    rebuilt.*
from differing
inner join rebuilt using (relation, occurred_at, key)
union all
select
    'ledger',
    differing.difference,
    posted.*
from differing
inner join posted using (relation, occurred_at, key)
