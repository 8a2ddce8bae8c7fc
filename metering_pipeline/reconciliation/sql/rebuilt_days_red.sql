-- The days that differed when they were last rebuilt, the newest first.
select
    week,
    day,
    stage,
    rebuilt_count,
    missing_count,
    extra_count,
    modified_count,
    left_out_count,
    samples,
    rebuilt_at
from reconciliation.current_rebuilt_days
where missing_count + extra_count + modified_count > 0
order by day desc, array_position(array['landing', 'ledger', 'rollups'], stage)
