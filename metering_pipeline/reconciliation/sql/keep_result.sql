-- Keeps one result of a law that was evaluated outside of SQL.
insert into reconciliation.law_results (
    evaluation_id, law, window_start, window_end, tenant_id, passed, figures, evaluated_at
)
values (
    %(evaluation_id)s, %(law)s, %(window_start)s, %(window_end)s, %(tenant_id)s,
    %(passed)s, %(figures)s, %(evaluated_at)s
)
