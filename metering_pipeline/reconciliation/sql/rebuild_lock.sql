-- One rebuild at a time: they would wait for each other's schema, one of them perhaps under the pipeline's locks.
select pg_try_advisory_xact_lock(hashtextextended('metering rebuild', 0))
