-- The day partitions that the events to be put in need: they are there, unless somebody has dropped one.
select catalog.ensure_day_partitions('ledger', 'usage_events', array(
    select distinct (occurred_at at time zone 'UTC')::date
    from ledger_rebuilt.differences
    where relation = 'usage_events' and side = 'landing'
))
