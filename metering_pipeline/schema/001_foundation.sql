-- The six stages, in the order the data flows, and beside them the catalog (what is sold to whom)
-- and staging (views that rename and cast).
create schema landing;
create schema ledger;
create schema rollups;
create schema rating;
create schema invoices;
create schema reconciliation;
create schema if not exists catalog;
create schema staging;

-- The settings that SQL must know, written by the pipeline from its environment.
create table catalog.settings (
    name text primary key,
    value text not null
);

create function catalog.setting_hours(setting_name text) returns interval
language sql stable as $$
    select make_interval(hours => value::integer)
    from catalog.settings
    where name = setting_name
$$;

-- The low 64 bits of a hash, signed. From PostgreSQL 18 on a cast does it, at a fifth of the cost.
do $$
declare
    bits text := case
        when current_setting('server_version_num')::integer >= 180000 then 'substring(uuid_send(hash) from 9)::bigint'
        else '(''x'' || encode(substring(uuid_send(hash) from 9), ''hex''))::bit(64)::bigint'
    end;
begin
    execute
        'create function catalog.low_64_bits(hash uuid) returns bigint language sql immutable strict parallel safe return '
        || bits;
end;
$$;

-- Makes the missing UTC-day partitions of a table. Each is built beside the table and attached,
-- so that readers never wait. Runs as the tables' owner: the pipeline itself may not create tables.
create function catalog.ensure_day_partitions(parent_schema text, parent_table text, days date[])
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO' as $$
declare
    day date;
    partition_name text;
    parent_oid oid;
    made integer := 0;
begin
    if (parent_schema, parent_table) not in (('landing', 'usage_events'), ('ledger', 'usage_events')) then
        raise exception 'table %.% is not partitioned by day', parent_schema, parent_table;
    end if;
    parent_oid := format('%I.%I', parent_schema, parent_table)::regclass;
    perform pg_advisory_xact_lock(hashtextextended('partitions of ' || parent_schema, 0));
    -- a later schema file makes the archives
    if to_regclass('catalog.archives') is not null then
        perform catalog.refuse_archived_days(parent_schema, array_agg(archives.day order by archives.day))
        from catalog.archives
        where archives.stage = parent_schema and archives.attached_at is null and archives.day = any(days);
    end if;
    foreach day in array days loop
        partition_name := format('%s_%s', parent_table, to_char(day, 'YYYYMMDD'));
        if not exists (
            select 1
            from pg_inherits
            where inhparent = parent_oid
                and inhrelid = to_regclass(format('%I.%I', parent_schema, partition_name))
        ) then
            execute format(
                'create table %I.%I (like %I.%I including all)',
                parent_schema, partition_name, parent_schema, parent_table
            );
            execute format(
                'alter table %I.%I attach partition %I.%I for values from (%L) to (%L)',
                parent_schema, parent_table, parent_schema, partition_name,
                day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00'
            );
            made := made + 1;
        end if;
    end loop;
    return made;
end
$$;

-- Makes known to the planner, which takes a new hour for empty, what this transaction has added to days, where it is
-- much. A day has few hours and files: a third of the rows that statistics are usually made of is enough.
create function catalog.make_hours_known(parent_schema text, parent_table text)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set default_statistics_target = 30 as $$
declare
    known_columns text;
    partition regclass;
begin
    known_columns := case parent_schema || '.' || parent_table
        when 'landing.usage_events' then 'landed_hour, file_id'
        when 'ledger.usage_events' then 'landed_hour, occurred_at'
    end;
    if known_columns is null then
        raise exception 'table %.% is not partitioned by day', parent_schema, parent_table;
    end if;
    for partition in
        select inhrelid
        from pg_inherits
        where
            inhparent = format('%I.%I', parent_schema, parent_table)::regclass
            and pg_stat_get_xact_tuples_inserted(inhrelid) >= 50000
    loop
        execute format('analyze %s (%s)', partition, known_columns);
    end loop;
end
$$;

-- New statistics of a table: only the owner may analyze it (a role of its own can be allowed to from PostgreSQL 17 on).
create function catalog.renew_statistics(of_table regclass)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select 1 from pg_class where oid = of_table and relowner = current_user::regrole) then
        raise exception '% is no table of the pipeline', of_table;
    end if;
    execute format('analyze %s', of_table);
end
$$;

-- The side schema in which a rebuild works, in the transaction of the caller: it may make no schema itself.
create function catalog.make_rebuild_schema()
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    create schema ledger_rebuilt authorization metering_transform;
end
$$;
