-- Billing dates of a range that L5 has been evaluated for before, with the highest number that it has seen of each
-- series: documents may not become fewer.
select
    (results.window_start at time zone 'UTC')::date as billing_date,
    numbers.series,
    max(numbers.last_number::bigint) as last_number
from reconciliation.law_results as results
left join lateral jsonb_each_text(results.figures -> 'last_numbers') as numbers (series, last_number) on true
where
    results.law = 'L5'
    and results.tenant_id is null
    and results.window_start >= date_trunc('day', %(window_start)s::timestamptz, 'UTC')
    and results.window_start < %(window_end)s
group by results.window_start, numbers.series
