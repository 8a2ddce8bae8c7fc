-- By which the windows in which a law fails are found, and when it was evaluated, without reading all results.
create index law_results_failed on reconciliation.law_results (law, window_start, window_end, evaluation_id)
where not passed;
create index law_results_by_time on reconciliation.law_results (law, evaluated_at);

-- What each step of a run took: wall time, and the CPU time of its own process (the server's is not in it). Hours and
-- records are null where a step has none. Rows are only ever added.
create table reconciliation.step_costs (
    step_cost_id bigint generated always as identity primary key,
    stage text not null check (stage in ('landing', 'ledger', 'rollups', 'rating', 'invoices', 'reconciliation')),
    step text not null,
    run_id text not null,
    first_hour timestamptz,
    last_hour timestamptz,
    started_at timestamptz not null,
    seconds double precision not null,
    cpu_seconds double precision not null,
    record_count bigint,
    succeeded boolean not null
);
create trigger append_only before update or delete on reconciliation.step_costs
for each row execute function reconciliation.refuse_change();
create trigger never_truncated before truncate on reconciliation.step_costs
for each statement execute function reconciliation.refuse_change();

-- What is wrong with the operation, by kind and subject: seen since, grave from an instant on (its kind's patience
-- later), over at the end. What was over before it was grave is forgotten.
create table reconciliation.troubles (
    trouble_id bigint generated always as identity primary key,
    kind text not null,
    subject text not null,
    detail text not null,
    seen_since timestamptz not null,
    seen_at timestamptz not null,
    grave_at timestamptz not null,
    ended_at timestamptz,
    alerted_at timestamptz,
    end_alerted_at timestamptz,
    failed_alerts integer not null default 0
);
create unique index troubles_standing on reconciliation.troubles (kind, subject) where ended_at is null;
create index troubles_untold on reconciliation.troubles (trouble_id)
where ended_at is not null and alerted_at is not null and end_alerted_at is null;

-- When the troubles were looked for last.
create table reconciliation.watch (
    only_row boolean primary key default true check (only_row),
    looked_at timestamptz
);
insert into reconciliation.watch (looked_at) values (null);

-- The figures by which the pipeline is watched, one row each (and for each value of its label), for metering status,
-- metering metrics and whoever asks. Instants are seconds since 1970. Cheap whatever the history holds: of events and
-- usage it reads what lies within a day of landing hours, by index, and the queues; all of landing.files,
-- landing.hours and reconciliation.step_costs, which have a few rows an hour.
create view reconciliation.figures with (security_invoker = true) as
with files as (
    select
        coalesce(sum(accepted_count), 0) as accepted,
        coalesce(sum(rejected_count), 0) as rejected,
        coalesce(sum(size_bytes), 0) as size_bytes,
        count(*) as files,
        coalesce(sum(accepted_count) filter (where superseded_by is null), 0) as current_accepted,
        coalesce(sum(rejected_count) filter (where superseded_by is null), 0) as current_rejected,
        count(*) filter (where superseded_by is null) as current_files
    from landing.files
),

hours as (
    select
        count(*) as hours,
        count(*) filter (where file_count > 0) as with_files,
        count(*) filter (where sealed) as sealed,
        count(*) filter (where landed_at is not null and posted_at is null) as unposted,
        coalesce(min(landed_hour) filter (where not sealed), max(landed_hour) + interval '1 hour') as sealed_until
    from landing.hours
),

last_day as (
    select max(landed_hour) - interval '24 hours' as after_hour
    from landing.hours
),

arrivals as (
    select
        coalesce(sum(event_count) filter (where delay_hours <= 2), 0) as on_time,
        coalesce(
            sum(event_count) filter (
                where delay_hours > 2 and delay_hours * interval '1 hour' <= catalog.setting_hours('lookback_hours')
            ), 0
        ) as late,
        coalesce(
            sum(event_count) filter (where delay_hours * interval '1 hour' > catalog.setting_hours('lookback_hours')), 0
        ) as beyond_lookback
    from rollups.arrival_delays
    where landed_hour > (select after_hour from last_day)
),

laws as (
    select
        law,
        (
            select count(*)
            from reconciliation.law_results as failed
            where
                failed.law = known.law
                and not failed.passed
                and failed.tenant_id is null
                and not exists (
                    select
                    from reconciliation.law_results as newer
                    where
                        newer.law = failed.law
                        and newer.window_start = failed.window_start
                        and newer.window_end = failed.window_end
                        and newer.evaluation_id > failed.evaluation_id
                )
        ) as failing,
        (
            select max(evaluated_at)
            from reconciliation.law_results
            where law_results.law = known.law
        ) as evaluated_at
    from (values ('L1'), ('L2'), ('L3'), ('L4'), ('L5')) as known (law)
),

costs as (
    select
        stage,
        count(*) filter (where succeeded) as steps,
        count(*) filter (where not succeeded) as failed_steps,
        sum(seconds) as seconds,
        sum(cpu_seconds) as cpu_seconds,
        coalesce(sum(record_count), 0) as records
    from reconciliation.step_costs
    group by stage
),

steps as (
    select
        step,
        max(started_at + seconds * interval '1 second') as ended_at
    from reconciliation.step_costs
    where succeeded
    group by step
),

held as (
    select
        count(distinct draft_id) as drafts,
        min(held_since) as since
    from invoices.held_invoices
    where released_at is null
),

hour_run as (
    -- the end of the newest hour that a step landed when it was over
    select
        max(
            least(last_hour, date_bin('1 hour', started_at, '2000-01-01 00:00:00+00') - interval '1 hour')
            + interval '1 hour'
        ) as run_until
    from reconciliation.step_costs
    where step = 'landing/usage_events' and succeeded
),

counted as (
    select
        (
            select count(*)
            from ledger.duplicates
            where landed_hour > after_hour
        ) as duplicates,
        (
            select count(*)
            from ledger.conflicts
            where landed_hour > after_hour
        ) as conflicts,
        (select count(*) from rollups.late_arrivals) as late_arrivals,
        (select coalesce(sum(beyond_lookback_count) / sum(event_count), 0) from rollups.lateness) as beyond_share,
        (select count(*) from ledger.pending) as pending,
        (select count(*) from rollups.touched_buckets) as touched_buckets,
        (select count(*) from rollups.touched_days) as touched_days,
        (select count(*) from rating.touched) as touched,
        (select count(*) from rating.changed_ranges) as changed_ranges,
        (select count(*) from rating.touched_slices) as touched_slices,
        (select count(*) from invoices.touched_subscriptions) as touched_subscriptions,
        (select count(*) from invoices.draft_invoices) as drafts,
        (select count(*) from invoices.issued_invoices) as issued,
        (select stopped::integer from invoices.issuing_switch) as issuing_stopped,
        (
            select listed_at
            from landing.hours
            order by landed_hour desc
            limit 1
        ) as listed_at,
        (select min(started_at) from reconciliation.step_costs) as first_step_at,
        (select looked_at from reconciliation.watch) as looked_at,
        (
            select count(*)
            from reconciliation.troubles
            where ended_at is null and alerted_at is null and failed_alerts > 0
        ) as failed_alerts
    from last_day
),

singles as (
    select
        measured.figure,
        measured.label,
        measured.value
    from files
    cross join hours
    cross join arrivals
    cross join held
    cross join hour_run
    cross join counted
    cross join lateral (
        values
        ('landed_records_total', 'accepted', files.accepted),
        ('landed_records_total', 'rejected', files.rejected),
        ('landed_files_total', '', files.files),
        ('landed_bytes_total', '', files.size_bytes),
        ('current_records', 'accepted', files.current_accepted),
        ('current_records', 'rejected', files.current_rejected),
        ('current_files', '', files.current_files),
        ('landing_partitions', 'listed', hours.hours),
        ('landing_partitions', 'with_files', hours.with_files),
        ('landing_partitions', 'sealed', hours.sealed),
        ('landing_partitions', 'not_posted', hours.unposted),
        ('sealed_until_timestamp_seconds', '', extract(epoch from hours.sealed_until)),
        ('run_until_timestamp_seconds', '', extract(epoch from hour_run.run_until)),
        ('listed_timestamp_seconds', '', extract(epoch from counted.listed_at)),
        ('recent_events', 'on_time', arrivals.on_time),
        ('recent_events', 'late', arrivals.late),
        ('recent_events', 'beyond_lookback', arrivals.beyond_lookback),
        ('beyond_lookback_ratio', '', counted.beyond_share),
        ('recent_copies', 'duplicate', counted.duplicates),
        ('recent_copies', 'conflict', counted.conflicts),
        ('late_arrivals', '', counted.late_arrivals),
        ('queue_rows', 'ledger.pending', counted.pending),
        ('queue_rows', 'rollups.touched_buckets', counted.touched_buckets),
        ('queue_rows', 'rollups.touched_days', counted.touched_days),
        ('queue_rows', 'rating.touched', counted.touched),
        ('queue_rows', 'rating.changed_ranges', counted.changed_ranges),
        ('queue_rows', 'rating.touched_slices', counted.touched_slices),
        ('queue_rows', 'invoices.touched_subscriptions', counted.touched_subscriptions),
        ('draft_invoices', '', counted.drafts),
        ('issued_invoices_total', '', counted.issued),
        ('held_invoices', '', held.drafts),
        ('oldest_hold_timestamp_seconds', '', extract(epoch from held.since)),
        ('issuing_stopped', '', counted.issuing_stopped),
        ('first_step_timestamp_seconds', '', extract(epoch from counted.first_step_at)),
        ('looked_timestamp_seconds', '', extract(epoch from counted.looked_at)),
        ('failed_alerts', '', counted.failed_alerts),
        ('database_bytes', '', pg_database_size(current_database()))
    ) as measured (figure, label, value)
),

by_label as (
    select
        measured.figure,
        laws.law as label,
        measured.value
    from laws
    cross join lateral (
        values
        ('failing_windows', laws.failing),
        ('law_evaluated_timestamp_seconds', extract(epoch from laws.evaluated_at))
    ) as measured (figure, value)
    union all
    select
        measured.figure,
        costs.stage as label,
        measured.value
    from costs
    cross join lateral (
        values
        ('steps_total', costs.steps::numeric),
        ('failed_steps_total', costs.failed_steps),
        ('step_seconds_total', costs.seconds::numeric),
        ('step_cpu_seconds_total', costs.cpu_seconds::numeric),
        ('step_records_total', costs.records)
    ) as measured (figure, value)
    union all
    select
        'step_end_timestamp_seconds' as figure,
        step as label,
        extract(epoch from ended_at) as value
    from steps
)

select
    figure,
    label,
    value
from singles
where value is not null
union all
select
    figure,
    label,
    value
from by_label
where value is not null;

-- Everybody who works adds what it cost; the sensor that watches runs as who transforms.
grant select on reconciliation.step_costs, reconciliation.troubles, reconciliation.watch, reconciliation.figures
to metering_analyst;
grant insert on reconciliation.step_costs to metering_landing, metering_transform, metering_issue;
grant insert, update, delete on reconciliation.troubles to metering_transform;
grant update on reconciliation.watch to metering_transform;
