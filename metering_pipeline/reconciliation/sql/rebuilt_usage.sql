-- How many buckets of a day's hourly usage the ledger gives, counted event by event, and which of them differ.
with buckets as (
    select *
    from reconciliation.ledger_to_hourly(%(starts_at)s, %(ends_at)s)
),

differing as (
    select *
    from buckets
    where state <> 'identical' and not is_pending
),

samples as (
    select *
    from differing
    order by tenant_id, metric, hour, dimensions
    limit %(samples)s
)

select
    (select count(*) from buckets
where buckets.ledger_count <> 0) as rebuilt_count,
    count(*) filter (where state = 'missing') as missing_count,
    count(*) filter (where state = 'extra') as extra_count,
    count(*) filter (where state = 'modified') as modified_count,
    (select count(*) from buckets
where buckets.is_pending) as left_out_count,
    coalesce(
        (
            select
                jsonb_agg(
                    concat_ws(
                        ' ',
                        samples.tenant_id,
                        samples.metric,
                        to_char(samples.hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24'),
                        samples.dimensions, samples.state || ':', 'ledger', samples.ledger_count, 'hourly',
                        samples.hourly_count, nullif('in ' || array_to_string(samples.differs_in, ', '), 'in ')
                    )
                    order by samples.tenant_id, samples.metric, samples.hour, samples.dimensions
                )
            from samples
        ), '[]'
    ) as samples
from differing
