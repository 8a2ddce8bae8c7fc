-- One rebuild of a day and stage.
insert into reconciliation.rebuilt_days (
    week, day, stage, rebuilt_count, missing_count, extra_count, modified_count, left_out_count, samples, rebuilt_at
)
values (
    %(week)s, %(day)s, %(stage)s, %(rebuilt_count)s, %(missing_count)s, %(extra_count)s, %(modified_count)s,
    %(left_out_count)s, %(samples)s, %(rebuilt_at)s
)
