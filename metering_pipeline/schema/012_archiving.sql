-- Days of landing and of the ledger that were written to Parquet and taken out of the database, and those of them
-- that are back.

-- What a file holds, as the partition was when it was taken out: the sum of its rows' hashes, text by text. Landed
-- days: the UTC days of landing of which the rows are, or copies of them; of landing the day itself. Event types: those
-- of the ledger's rows. Attached: the rows are in the database again.
create table catalog.archives (
    archive_id bigint generated always as identity primary key,
    stage text not null check (stage in ('landing', 'ledger')),
    day date not null,
    landed_days date[] not null,
    event_types text[] collate "C" not null,
    file_key text not null,
    row_count bigint not null,
    content_digest numeric not null,
    size_bytes bigint not null,
    content_sha256 text not null,
    archived_at timestamptz not null,
    attached_at timestamptz
);
create unique index archives_in_force on catalog.archives (stage, day) where attached_at is null;

-- Files that stand for no rows: still being written, left by something that was cut off, or of a day that is in the
-- database again. Noted before they are made, so that none is forgotten: what is erased must not stay in one.
create table catalog.loose_archive_files (
    file_key text primary key
);

-- The landing hours whose records are in an archive.
create view landing.archived_hours with (security_invoker = true) as
select
    archives.archive_id,
    hours.landed_hour
from catalog.archives
cross join generate_series(
    archives.day::timestamp at time zone 'UTC',
    (archives.day::timestamp + interval '23 hours') at time zone 'UTC',
    interval '1 hour'
) as hours (landed_hour)
where archives.stage = 'landing' and archives.attached_at is null;

-- The UTC days of usage whose events are in an archive.
create view ledger.archived_days with (security_invoker = true) as
select
    archive_id,
    day,
    landed_days,
    event_types
from catalog.archives
where stage = 'ledger' and attached_at is null;

-- 1. No archived day is read as an empty one. Whoever reads events of the ledger says before, in the same transaction,
-- of which days. Where one of them is archived that is an error of its own state (ML001), which names the command
-- that puts them back: the pipeline's steps run it and begin again.

create function catalog.refuse_archived_days(of_stage text, days date[]) returns void
language plpgsql as $$
begin
    if cardinality(days) > 0 then
        raise exception using
            errcode = 'ML001',
            message = format(
                'Days that this needs are archived. Put them back first: metering archive attach --stage %s %s',
                of_stage, array_to_string(days, ' ')
            );
    end if;
end
$$;

-- Volatile, and with a lock on the table: a day that is taken out after the caller's snapshot is known, and from here
-- to the transaction's end none is.
create function ledger.require_days(days date[], landed_on date[] default '{}') returns void
language plpgsql parallel safe security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO' as $$
begin
    lock table only ledger.usage_events in access share mode;
    perform catalog.refuse_archived_days('ledger', array_agg(day order by day))
    from ledger.archived_days
    where day = any(days) or landed_days && landed_on;
end
$$;

-- The same of a span of instants.
create function ledger.require_span(starts_at timestamptz, ends_at timestamptz) returns void
language plpgsql parallel safe security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO' as $$
begin
    lock table only ledger.usage_events in access share mode;
    perform catalog.refuse_archived_days('ledger', array_agg(day order by day))
    from ledger.archived_days
    where
        starts_at < ends_at
        and day::timestamp at time zone 'UTC' < ends_at
        and (day + 1)::timestamp at time zone 'UTC' > starts_at;
end
$$;

-- 2. What may go.

create function catalog.note_archive_file(of_file text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into catalog.loose_archive_files (file_key)
    values (of_file)
    on conflict do nothing
$$;

create function catalog.forget_archive_file(of_file text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    delete from catalog.loose_archive_files
    where file_key = of_file
$$;

-- Why a UTC day of landing must stay in the database; null: it may go.
create function landing.why_day_stays(of_day date) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    with bounds as (
        select
            of_day::timestamptz as starts_at,
            (of_day + 1)::timestamptz as ends_at
    ),

    files_of_day as (
        select files.landed_hour
        from landing.files
        inner join bounds on files.landed_hour >= bounds.starts_at and files.landed_hour < bounds.ends_at
    )

    select
        case
            when exists (
                select 1
                from files_of_day
                left join landing.hours on files_of_day.landed_hour = hours.landed_hour
                where hours.sealed is not true or hours.posted_at is null
            ) then 'an hour of it is not sealed, or not posted'
            when exists (
                select 1
                from ledger.pending
                where pending.landed_hour >= bounds.starts_at and pending.landed_hour < bounds.ends_at
            ) then 'the rollups owe usage that landed on it'
            when exists (
                select 1
                from files_of_day
                cross join (values ('L1'), ('L2'), ('L3')) as laws (law)
                left join reconciliation.current_law_results as results
                    on laws.law = results.law
                        and files_of_day.landed_hour = results.window_start
                        and files_of_day.landed_hour + interval '1 hour' = results.window_end
                        and results.tenant_id is null
                where results.passed is not true
            ) then 'a law fails in one of its hours, or was never evaluated for it'
        end
    from bounds
$$;

-- The UTC days of landing on which a record of a day of usage landed, further copies, voids and withdrawn ones too.
create function ledger.landed_days(of_day date) returns date[]
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    select coalesce(array_agg(distinct landed_hour::date order by landed_hour::date), '{}')
    from (
        select distinct landed_hour
        from ledger.usage_events
        where occurred_at >= of_day::timestamptz and occurred_at < (of_day + 1)::timestamptz
        union all
        select landed_hour
        from ledger.duplicates
        where occurred_at >= of_day::timestamptz and occurred_at < (of_day + 1)::timestamptz
        union all
        select landed_hour
        from ledger.conflicts
        where occurred_at >= of_day::timestamptz and occurred_at < (of_day + 1)::timestamptz
        union all
        select landed_hour
        from ledger.voids
        where occurred_at >= of_day::timestamptz and occurred_at < (of_day + 1)::timestamptz
        union all
        select landed_hour
        from ledger.withdrawn
        where occurred_at >= of_day::timestamptz and occurred_at < (of_day + 1)::timestamptz
    ) as copies
$$;

create function ledger.event_types(of_day date) returns text[]
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    select coalesce(array_agg(distinct event_type order by event_type), '{}')
    from ledger.usage_events
    where occurred_at >= of_day::timestamptz and occurred_at < (of_day + 1)::timestamptz
$$;

-- Why a UTC day of usage must stay in the ledger; null: it may go. All its records are of days of landing that are
-- archived, so that no landing hour that is kept needs it; nobody owes anything of it; it is billed; its laws hold.
create function ledger.why_day_stays(of_day date, at timestamptz) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    starts_at constant timestamptz := of_day::timestamptz;
    ends_at constant timestamptz := (of_day + 1)::timestamptz;
    landed_on constant date[] := ledger.landed_days(of_day);
    kept date;
begin
    select landed.day
    into kept
    from unnest(landed_on) as landed (day)
    where not exists (
        select 1
        from catalog.archives
        where archives.stage = 'landing' and archives.day = landed.day and archives.attached_at is null
    )
    limit 1;
    if found then
        return format('records of it landed on %s, which is not archived', kept);
    end if;
    if exists (
        select 1
        from landing.hours
        inner join landing.usage_events as waiting on hours.landed_hour = waiting.landed_hour
        where
            hours.landed_at is not null
            and hours.posted_at is null
            and waiting.occurred_at >= starts_at
            and waiting.occurred_at < ends_at
    ) then
        return 'records of it have landed and are not posted';
    end if;
    if exists (
        select 1
        from ledger.pending
        where (event_hour >= starts_at and event_hour < ends_at) or landed_hour::date = any(landed_on)
    ) or exists (
        select 1
        from rollups.touched_buckets
        where hour >= starts_at and hour < ends_at
    ) or exists (
        select 1
        from rollups.touched_days
        where day = of_day
    ) then
        return 'the rollups owe usage of it';
    end if;
    if exists (
        select 1
        from rating.touched
        where day = of_day
    ) or exists (
        select 1
        from rating.changed_ranges
        where range_start < ends_at and range_end > starts_at
    ) or exists (
        select 1
        from rating.touched_slices
        inner join rating.charge_slices as slices using (subscription_id, charge_id, component, slice_start)
        where slices.slice_start < ends_at and slices.slice_end > starts_at
    ) then
        return 'usage of it is to be rated';
    end if;
    if exists (
        select 1
        from rating.billing_periods
        where
            period_start < ends_at
            and period_end > starts_at
            and period_end + catalog.setting_hours('grace_hours') > least(at, now())
    ) then
        return 'a billing period that it lies in is not over, with its grace';
    end if;
    if exists (
        select 1
        from invoices.draft_invoice_lines
        where slice_start < ends_at and slice_end > starts_at
    ) then
        return 'a draft that is not issued charges for it';
    end if;
    if ends_at > (
        select max(landed_hour) - catalog.setting_hours('lookback_hours')
        from landing.files
        where superseded_by is null
    ) then
        return 'it is not older than METERING_LOOKBACK_HOURS before the newest landing hour';
    end if;
    if exists (
        select 1
        from reconciliation.current_law_results
        where
            not passed
            and (
                (law = 'L4' and window_start < ends_at and window_end > starts_at)
                or (law = 'L3' and window_start = starts_at and window_end = ends_at)
            )
    ) then
        return 'L3 fails for it, or L4 in its month';
    end if;
    if exists (
        select 1
        from rollups.usage_daily
        where day = of_day
    ) and not exists (
        select 1
        from reconciliation.current_law_results
        where law = 'L4' and tenant_id is null and window_start <= starts_at and window_end >= ends_at
    ) then
        return 'L4 was never evaluated for its month';
    end if;
    return null;
end
$$;

-- 3. Out of the database, and back.

-- Takes a UTC day's partition out of a stage, in the transaction that records the file which has its rows, and under
-- the pipeline's locks. It is refused for a day that must stay, or whose rows are others.
create function catalog.archive_day(
    of_stage text, of_day date, of_file text, of_rows bigint, of_content numeric, of_bytes bigint, of_sha256 text,
    at timestamptz
)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    after_days constant integer := (select value::integer from catalog.settings where name = 'archive_after_days');
    partition_name constant text := 'usage_events_' || to_char(of_day, 'YYYYMMDD');
    reason text;
    rows_there bigint;
    content_there numeric;
begin
    perform pg_advisory_xact_lock(7304212);
    perform pg_advisory_xact_lock(7304214);
    perform pg_advisory_xact_lock(7304211);
    -- who lands holds the table and may wait for the ledger's lock: this one gives up first
    perform set_config('lock_timeout', '900ms', true);
    -- whoever attaches a day looks at both stages
    perform pg_advisory_xact_lock(hashtextextended('partitions of landing', 0));
    perform pg_advisory_xact_lock(hashtextextended('partitions of ledger', 0));
    if after_days = 0 or (of_day + 1)::timestamptz > least(at, now()) - make_interval(days => after_days) then
        raise exception 'it is not older than METERING_ARCHIVE_AFTER_DAYS';
    end if;
    reason := case of_stage
        when 'landing' then landing.why_day_stays(of_day)
        when 'ledger' then ledger.why_day_stays(of_day, at)
        else 'there is no such stage'
    end;
    if reason is not null then
        raise exception '%', reason;
    end if;
    execute format(
        'select count(*), coalesce(sum(hashtextextended(events::text, 0)), 0) from %I.%I as events',
        of_stage, partition_name
    )
    into rows_there, content_there;
    if (rows_there, content_there) is distinct from (of_rows, of_content) then
        raise exception 'its rows have changed since they were written';
    end if;
    insert into catalog.archives (
        stage, day, landed_days, event_types, file_key, row_count, content_digest, size_bytes, content_sha256,
        archived_at
    )
    values (
        of_stage, of_day, case of_stage when 'ledger' then ledger.landed_days(of_day) else array[of_day] end,
        case of_stage when 'ledger' then ledger.event_types(of_day) else '{}' end,
        of_file, of_rows, of_content, of_bytes, of_sha256, at
    );
    delete from catalog.loose_archive_files
    where file_key = of_file;
    execute format('alter table %I.usage_events detach partition %I.%I', of_stage, of_stage, partition_name);
    execute format('drop table %I.%I', of_stage, partition_name);
end
$$;

-- An empty table for the rows of an archived day, beside the stage's, for the caller to fill in the same transaction.
create function catalog.open_archived_day(of_stage text, of_day date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    partition_name constant text := 'usage_events_' || to_char(of_day, 'YYYYMMDD');
begin
    perform pg_advisory_xact_lock(hashtextextended('partitions of ' || of_stage, 0));
    if not exists (
        select 1
        from catalog.archives
        where stage = of_stage and day = of_day and attached_at is null
    ) then
        raise exception 'it is not archived';
    end if;
    -- left by somebody who filled it and did not go on
    execute format('drop table if exists %I.%I', of_stage, partition_name);
    execute format('create table %I.%I (like %I.usage_events including all)', of_stage, partition_name, of_stage);
    execute format(
        'grant insert on %I.%I to metering_landing, metering_transform, metering_erase', of_stage, partition_name
    );
end
$$;

-- Makes that table the stage's partition again, if it has exactly the rows that were taken out. A day of landing comes
-- after the days of the ledger that have records of it: its laws need them.
create function catalog.attach_archived_day(of_stage text, of_day date, at timestamptz) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    partition_name constant text := 'usage_events_' || to_char(of_day, 'YYYYMMDD');
    rows_there bigint;
    content_there numeric;
begin
    if of_stage = 'landing' then
        perform ledger.require_days('{}', array[of_day]);
    end if;
    execute format(
        'select count(*), coalesce(sum(hashtextextended(events::text, 0)), 0) from %I.%I as events',
        of_stage, partition_name
    )
    into rows_there, content_there;
    if not exists (
        select 1
        from catalog.archives
        where
            stage = of_stage
            and day = of_day
            and attached_at is null
            and (row_count, content_digest) = (rows_there, content_there)
    ) then
        raise exception 'its rows are not those that were archived';
    end if;
    execute format(
        'revoke insert on %I.%I from metering_landing, metering_transform, metering_erase', of_stage, partition_name
    );
    execute format(
        'alter table %I.usage_events attach partition %I.%I for values from (%L) to (%L)',
        of_stage, of_stage, partition_name, of_day::text || ' 00:00:00+00', (of_day + 1)::text || ' 00:00:00+00'
    );
    perform catalog.make_hours_known(of_stage, 'usage_events');
    with attached as (
        update catalog.archives
        set attached_at = at
        where stage = of_stage and day = of_day and attached_at is null
        returning file_key
    )

    insert into catalog.loose_archive_files (file_key)
    select file_key
    from attached
    on conflict do nothing;
end
$$;

revoke execute on function landing.why_day_stays(date) from public;
revoke execute on function ledger.landed_days(date) from public;
revoke execute on function ledger.event_types(date) from public;
revoke execute on function ledger.why_day_stays(date, timestamptz) from public;
revoke execute on function catalog.archive_day(text, date, text, bigint, numeric, bigint, text, timestamptz)
from public;
revoke execute on function catalog.open_archived_day(text, date) from public;
revoke execute on function catalog.attach_archived_day(text, date, timestamptz) from public;
revoke execute on function catalog.note_archive_file(text) from public;
revoke execute on function catalog.forget_archive_file(text) from public;
grant execute on function landing.why_day_stays(date) to metering_archive;
grant execute on function ledger.why_day_stays(date, timestamptz) to metering_archive;
grant execute on function catalog.archive_day(text, date, text, bigint, numeric, bigint, text, timestamptz)
to metering_archive;
grant execute on function catalog.note_archive_file(text) to metering_archive;
grant execute on function catalog.open_archived_day(text, date)
to metering_landing, metering_transform, metering_erase;
grant execute on function catalog.attach_archived_day(text, date, timestamptz)
to metering_landing, metering_transform, metering_erase;
grant execute on function catalog.forget_archive_file(text) to metering_landing, metering_transform, metering_erase;
grant select on table catalog.archives, catalog.loose_archive_files, landing.archived_hours, ledger.archived_days
to metering_analyst, metering_landing;
