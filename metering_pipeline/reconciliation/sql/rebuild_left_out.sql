-- What was not compared, since its posting is still to come.
select
    (select count(*) from ledger_rebuilt.waiting_hours) as waiting_hours,
    (select count(*) from ledger_rebuilt.left_out) as events
