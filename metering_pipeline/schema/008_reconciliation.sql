-- Every evaluation of a law: one row for the window (tenant_id null) and one for each tenant that failed.
-- Rows are only ever added. Those of one evaluation share its number.
create sequence reconciliation.evaluation_ids;

create table reconciliation.law_results (
    law_result_id bigint generated always as identity primary key,
    evaluation_id bigint not null,
    law text not null check (law in ('L1', 'L2', 'L3', 'L4', 'L5')),
    window_start timestamptz not null,
    window_end timestamptz not null,
    tenant_id text collate "C",
    passed boolean not null,
    figures jsonb not null,
    evaluated_at timestamptz not null
);
create unique index law_results_by_window
on reconciliation.law_results (law, window_start, window_end, evaluation_id, tenant_id) nulls not distinct;

-- The newest evaluation of each law and window: a red window stays red until it is well.
create view reconciliation.current_law_results with (security_invoker = true) as
with newest as (
    select
        law,
        window_start,
        window_end,
        max(evaluation_id) as evaluation_id
    from reconciliation.law_results
    group by law, window_start, window_end
)

select law_results.*
from reconciliation.law_results
inner join newest using (law, window_start, window_end, evaluation_id);
