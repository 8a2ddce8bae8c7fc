-- Days of landing that were written to Parquet and taken out of the database, and those of them that are back.

-- What a file holds, as the partition was when it was taken out: the sum of its rows' hashes, text by text. Attached:
-- the rows are in the database again.
create table landing.archives (
    archive_id bigint generated always as identity primary key,
    day date not null,
    file_key text not null,
    row_count bigint not null,
    content_digest numeric not null,
    size_bytes bigint not null,
    content_sha256 text not null,
    archived_at timestamptz not null,
    attached_at timestamptz
);
create unique index archives_in_force on landing.archives (day) where attached_at is null;

-- Files that stand for no rows: still being written, left by something that was cut off, or of a day that is in the
-- database again. Noted before they are made, so that none is forgotten: what is erased must not stay in one.
create table landing.loose_archive_files (
    file_key text primary key
);

-- The landing hours whose records are in an archive.
create view landing.archived_hours with (security_invoker = true) as
select
    archives.archive_id,
    hours.landed_hour
from landing.archives
cross join generate_series(
    archives.day::timestamp at time zone 'UTC',
    (archives.day::timestamp + interval '23 hours') at time zone 'UTC',
    interval '1 hour'
) as hours (landed_hour)
where archives.attached_at is null;

create function landing.note_archive_file(of_file text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into landing.loose_archive_files (file_key)
    values (of_file)
    on conflict do nothing
$$;

create function landing.forget_archive_file(of_file text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    delete from landing.loose_archive_files
    where file_key = of_file
$$;

-- Takes a UTC day's partition out of landing, in the transaction that records the file which has its rows, and under
-- the pipeline's lock. It is refused for a day that may still change, that is not proved, or whose rows are others.
create function landing.archive_day(
    of_day date, of_file text, of_rows bigint, of_content numeric, of_bytes bigint, of_sha256 text, at timestamptz
)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    starts_at constant timestamptz := of_day::timestamp at time zone 'UTC';
    ends_at constant timestamptz := (of_day + 1)::timestamp at time zone 'UTC';
    after_days integer := (select value::integer from catalog.settings where name = 'archive_after_days');
    partition_name constant text := 'usage_events_' || to_char(of_day, 'YYYYMMDD');
    rows_there bigint;
    content_there numeric;
begin
    perform pg_advisory_xact_lock(7304211);
    if after_days = 0 or ends_at > least(at, now()) - make_interval(days => after_days) then
        raise exception 'it is not older than METERING_ARCHIVE_AFTER_DAYS';
    end if;
    if exists (
        select 1
        from landing.files
        left join landing.hours on files.landed_hour = hours.landed_hour
        where
            files.landed_hour >= starts_at
            and files.landed_hour < ends_at
            and (hours.sealed is not true or hours.posted_at is null)
    ) then
        raise exception 'an hour of it is not sealed, or not posted';
    end if;
    if exists (select 1 from ledger.pending where landed_hour >= starts_at and landed_hour < ends_at) then
        raise exception 'the rollups owe usage that landed on it';
    end if;
    if exists (
        select 1
        from landing.files
        cross join (values ('L1'), ('L2'), ('L3')) as laws (law)
        left join reconciliation.current_law_results as results
            on results.law = laws.law
                and results.window_start = files.landed_hour
                and results.window_end = files.landed_hour + interval '1 hour'
                and results.tenant_id is null
        where
            files.landed_hour >= starts_at
            and files.landed_hour < ends_at
            and results.passed is not true
    ) then
        raise exception 'a law fails in one of its hours, or was never evaluated for it';
    end if;
    select
        count(*),
        coalesce(sum(hashtextextended(events::text, 0)), 0)
    into rows_there, content_there
    from landing.usage_events as events
    where events.landed_hour >= starts_at and events.landed_hour < ends_at;
    if (rows_there, content_there) is distinct from (of_rows, of_content) then
        raise exception 'its rows have changed since they were written';
    end if;
    insert into landing.archives (
        day, file_key, row_count, content_digest, size_bytes, content_sha256, archived_at
    )
    values (of_day, of_file, of_rows, of_content, of_bytes, of_sha256, at);
    delete from landing.loose_archive_files
    where file_key = of_file;
    -- who lands holds the table and may wait for the pipeline's lock: this one gives up first
    perform set_config('lock_timeout', '900ms', true);
    execute format('alter table landing.usage_events detach partition landing.%I', partition_name);
    execute format('drop table landing.%I', partition_name);
end
$$;

-- An empty table for the rows of an archived day, beside landing's, for the caller to fill in the same transaction.
create function landing.open_archived_day(of_day date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    partition_name constant text := 'usage_events_' || to_char(of_day, 'YYYYMMDD');
begin
    perform pg_advisory_xact_lock(hashtextextended('partitions of landing', 0));
    if not exists (select 1 from landing.archives where day = of_day and attached_at is null) then
        raise exception 'it is not archived';
    end if;
    -- left by somebody who filled it and did not go on
    execute format('drop table if exists landing.%I', partition_name);
    execute format('create table landing.%I (like landing.usage_events including all)', partition_name);
    execute format('grant insert on landing.%I to metering_landing, metering_erase', partition_name);
end
$$;

-- Makes that table landing's partition again, if it has exactly the rows that were taken out.
create function landing.attach_archived_day(of_day date, at timestamptz) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    partition_name constant text := 'usage_events_' || to_char(of_day, 'YYYYMMDD');
    rows_there bigint;
    content_there numeric;
begin
    execute format(
        'select count(*), coalesce(sum(hashtextextended(events::text, 0)), 0) from landing.%I as events', partition_name
    )
    into rows_there, content_there;
    if not exists (
        select 1
        from landing.archives
        where
            day = of_day
            and attached_at is null
            and (row_count, content_digest) = (rows_there, content_there)
    ) then
        raise exception 'its rows are not those that were archived';
    end if;
    execute format('revoke insert on landing.%I from metering_landing, metering_erase', partition_name);
    execute format(
        'alter table landing.usage_events attach partition landing.%I for values from (%L) to (%L)',
        partition_name, of_day::text || ' 00:00:00+00', (of_day + 1)::text || ' 00:00:00+00'
    );
    perform catalog.make_hours_known('landing', 'usage_events', array[of_day]);
    with attached as (
        update landing.archives
        set attached_at = at
        where day = of_day and attached_at is null
        returning file_key
    )

    insert into landing.loose_archive_files (file_key)
    select file_key
    from attached
    on conflict do nothing;
end
$$;

revoke execute on function landing.archive_day(date, text, bigint, numeric, bigint, text, timestamptz) from public;
revoke execute on function landing.open_archived_day(date) from public;
revoke execute on function landing.attach_archived_day(date, timestamptz) from public;
revoke execute on function landing.note_archive_file(text) from public;
revoke execute on function landing.forget_archive_file(text) from public;
grant execute on function landing.archive_day(date, text, bigint, numeric, bigint, text, timestamptz)
to metering_archive;
grant execute on function landing.open_archived_day(date) to metering_landing, metering_erase;
grant execute on function landing.attach_archived_day(date, timestamptz) to metering_landing, metering_erase;
grant execute on function landing.note_archive_file(text) to metering_archive;
grant execute on function landing.forget_archive_file(text) to metering_landing, metering_erase;
grant select on landing.archives, landing.archived_hours, landing.loose_archive_files
to metering_analyst, metering_landing;
