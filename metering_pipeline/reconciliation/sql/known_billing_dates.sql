-- Billing dates of a range that L5 has been evaluated for before.
select distinct (window_start at time zone 'UTC')::date as billing_date
from reconciliation.law_results
where
    law = 'L5'
    and window_start >= date_trunc('day', %(window_start)s::timestamptz, 'UTC')
    and window_start < %(window_end)s
