-- Keeps what an evaluation found, in its order.
insert into reconciliation.law_results (
    evaluation_id, law, window_start, window_end, tenant_id, passed, figures, evaluated_at
)
select
    %(evaluation_id)s,
    %(law)s,
    found.window_start,
    found.window_end,
    found.tenant_id,
    found.passed,
    found.figures::jsonb,
    %(now)s
from unnest(
    %(window_starts)s::timestamptz[], %(window_ends)s::timestamptz[], %(tenant_ids)s::text[],
    %(passed)s::boolean[], %(figures)s::text[]
) with ordinality as found (window_start, window_end, tenant_id, passed, figures, place)
order by found.place
returning law, window_start, window_end, tenant_id, passed, figures, evaluated_at
