-- How many rows of a table the rules give, and how many of them differ from what is posted.
select
    (
        select count(*)
        from ledger_rebuilt.rebuilt
        where rebuilt.relation = %(relation)s
    ) as rebuilt,
    count(*) filter (where difference = 'missing') as missing,
    count(*) filter (where difference = 'extra') as extra,
    count(*) filter (where difference = 'modified' and side = 'landing') as modified
from ledger_rebuilt.differences
where relation = %(relation)s
