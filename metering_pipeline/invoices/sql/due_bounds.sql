-- How many drafts are due, the bounds of the landing hours and of the usage that decide about them, and what
-- failed when it was last evaluated: the first billing date by its documents, days of usage.
select
    count(*) as due,
    min(first_landing_hour) filter (where bears_usage) as first_landing_hour,
    min(usage_start) filter (where bears_usage) as usage_start,
    max(usage_end) filter (where bears_usage) as usage_end,
    (
        select min(results.window_start)
        from reconciliation.current_law_results as results
        where results.law = 'L5' and results.tenant_id is null and not results.passed
    ) as red_documents_since,
    (
        select coalesce(array_agg(results.window_start order by results.window_start), '{}')
        from reconciliation.current_law_results as results
        where
            results.law = 'L3' and results.window_end > results.window_start + interval '1 hour'
            and results.tenant_id is null and not results.passed
    ) as red_days
from due_drafts
