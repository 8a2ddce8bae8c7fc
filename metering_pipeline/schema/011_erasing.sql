-- What is taken out again: payloads that were erased on somebody's behalf, and the bytes of old rejected records.

alter table landing.rejected_events alter column raw_line drop not null;
create index rejected_events_with_bytes on landing.rejected_events (landed_hour, file_id) where raw_line is not null;

-- Each erasure for good: who, why, and how many rows of each table it took something out of. Never what it took.
create table landing.erasures (
    erasure_id bigint generated always as identity primary key,
    tenant_id text collate "C" not null,
    why text not null,
    erased_by text not null,
    erased_at timestamptz not null,
    figures jsonb not null
);

-- Whose payloads are erased, by the producer's request: those that land later too.
create table landing.erased_requests (
    tenant_id text collate "C" not null,
    correlation_id text collate "C" not null,
    erasure_id bigint not null references landing.erasures,
    primary key (tenant_id, correlation_id)
);

-- The properties that metrics read of an event of a type: what usage is counted by stays.
create function landing.kept_properties(of_type text, properties jsonb) returns jsonb
language sql stable strict as $$
    select coalesce(jsonb_object_agg(members.key, members.value), '{}')
    from jsonb_each(properties) as members
    where members.key in (
        select unnest(
            metrics.dimensions || metrics.value_property
            || array(select jsonb_object_keys(metrics.filter))
            || case when metrics.aggregation = 'unique_count' then 'operation' end
        )
        from catalog.metrics
        where metrics.event_type = of_type
    )
$$;

-- The ways in which a text may stand in a record's bytes: as it is, in JSON (also with slashes, or all but ASCII,
-- escaped), in CSV.
create function landing.written_forms(of_text text) returns bytea[]
language sql immutable strict as $$
    with in_json as (
        select substr(to_json(of_text)::text, 2, length(to_json(of_text)::text) - 2) as form
    ),

    letters as (
        select
            place,
            letter,
            case
                when ascii(letter) between 128 and 65535 then array[ascii(letter)]
                -- beyond, JSON writes a pair of surrogates
                when ascii(letter) > 65535
                    then array[55296 + ((ascii(letter) - 65536) >> 10), 56320 + ((ascii(letter) - 65536) & 1023)]
            end as units
        from in_json
        cross join regexp_split_to_table(in_json.form, '') with ordinality as split (letter, place)
    ),

    escaped as (
        select
            place,
            coalesce(
                (select string_agg('\u' || lpad(to_hex(unit), 4, '0'), '') from unnest(units) as unit), letter
            ) as lower_case,
            coalesce(
                (select string_agg('\u' || lpad(upper(to_hex(unit)), 4, '0'), '') from unnest(units) as unit), letter
            ) as upper_case
        from letters
    )

    select array_agg(distinct convert_to(form, 'UTF8'))
    from (
        select of_text as form
        union all
        select replace(of_text, '"', '""')
        union all
        select form from in_json
        union all
        select replace(form, '/', '\/') from in_json
        union all
        select string_agg(lower_case, '' order by place) from escaped
        union all
        select string_agg(upper_case, '' order by place) from escaped
    ) as forms
$$;

create function landing.holds_any(raw_line bytea, forms bytea[]) returns boolean
language sql immutable strict as $$
    select exists (
        select 1
        from unnest(forms) as form
        where position(form in raw_line) > 0
    )
$$;

-- The rejected records whose bytes may be those of an erased request: its id stands in them. Where that may be by
-- chance, of a short id or the two parts of a CloudEvent's, the tenant's has to stand there too.
create function landing.rejected_of_erased(first_hour timestamptz, last_hour timestamptz)
returns table (file_id bigint, line_number bigint)
language sql stable as $$
    with requests as materialized (
        select
            landing.written_forms(tenant_id) as tenant_forms,
            landing.written_forms(correlation_id) as whole_forms,
            landing.written_forms(split_part(correlation_id, ' ', 1)) as source_forms,
            landing.written_forms(substr(correlation_id, strpos(correlation_id, ' ') + 1)) as id_forms,
            octet_length(correlation_id) >= 8 as is_telling
        from landing.erased_requests
    )

    select
        rejected.file_id,
        rejected.line_number
    from landing.rejected_events as rejected
    where
        rejected.raw_line is not null
        and rejected.landed_hour between first_hour and last_hour
        and exists (
            select 1
            from requests
            where
                landing.holds_any(rejected.raw_line, requests.source_forms)
                and landing.holds_any(rejected.raw_line, requests.id_forms)
                and (
                    landing.holds_any(rejected.raw_line, requests.tenant_forms)
                    or (requests.is_telling and landing.holds_any(rejected.raw_line, requests.whole_forms))
                )
        )
$$;

-- Takes the payloads of all erased requests out of what has landed in the hours from first to last; how many
-- records, accepted and rejected, lost something. What was erased before stays as it is, whatever metrics read now.
create function landing.erase_landed(first_hour timestamptz, last_hour timestamptz)
returns table (landed bigint, rejected bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    landed := 0;
    rejected := 0;
    if not exists (select 1 from landing.erased_requests) then
        return next;
        return;
    end if;
    update landing.usage_events as events
    set
        erased_payload_hash = encode(substring(sha256(convert_to(
            trim_scale(events.quantity)::text || chr(31) || events.properties, 'UTF8'
        )) for 16), 'hex')::uuid,
        properties = reconciliation.canonical_text(
            landing.kept_properties(events.event_type, events.properties::jsonb)
        )
    from landing.erased_requests as requests
    where
        events.landed_hour between first_hour and last_hour
        and events.tenant_id = requests.tenant_id
        and events.correlation_id = requests.correlation_id
        and events.erased_payload_hash is null
        and events.properties::jsonb <> landing.kept_properties(events.event_type, events.properties::jsonb);
    get diagnostics landed = row_count;
    update landing.rejected_events as events
    set
        raw_line = null,
        detail = 'erased'
    from landing.rejected_of_erased(first_hour, last_hour) as found
    where events.file_id = found.file_id and events.line_number = found.line_number;
    get diagnostics rejected = row_count;
    return next;
end
$$;

-- Erases the payloads of a tenant's requests wherever the database has them, in the caller's transaction and under
-- the pipeline's locks; how many rows of each table lost something. Hashes, quantities and what metrics read stay.
-- The ledger's hashes must be those of what landed: once the payloads are gone nobody can tell any more.
create function landing.erase_payloads(
    of_tenant text, of_requests text[], why text, erased_by text, erased_at timestamptz
)
returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    erasure bigint;
    counts jsonb;
    ordered bigint;
    of_table text;
    emptied bigint;
    differing bigint;
begin
    if why !~ '\S' or erased_by !~ '\S' then
        raise exception 'an erasure says who and why';
    end if;
    perform pg_advisory_xact_lock(7304212);
    perform pg_advisory_xact_lock(7304214);
    perform pg_advisory_xact_lock(7304211);
    insert into landing.erasures (tenant_id, why, erased_by, erased_at, figures)
    values (of_tenant, why, erased_by, erased_at, '{}')
    returning erasure_id into erasure;
    insert into landing.erased_requests (tenant_id, correlation_id, erasure_id)
    select
        of_tenant,
        request,
        erasure
    from unnest(of_requests) as request
    on conflict do nothing;
    get diagnostics ordered = row_count;

    select jsonb_build_object(
        'requests', ordered, 'landing.usage_events', erased.landed, 'landing.rejected_events', erased.rejected
    )
    into counts
    from landing.erase_landed('-infinity', 'infinity') as erased;
    foreach of_table in array array['usage_events', 'duplicates', 'conflicts', 'voids', 'withdrawn'] loop
        execute format(
            $statement$
            update ledger.%I as posted
            set properties = events.properties::jsonb
            from landing.usage_events as events
            where
                posted.tenant_id = $1
                and posted.correlation_id = any($2)
                and events.landed_hour = posted.landed_hour
                and events.file_id = posted.file_id
                and events.line_number = posted.line_number
                and events.erased_payload_hash = posted.payload_hash
                and events.properties::jsonb <> posted.properties
            $statement$,
            of_table
        )
        using of_tenant, of_requests;
        get diagnostics emptied = row_count;
        execute format(
            $statement$
            select count(*)
            from ledger.%I as posted
            left join landing.usage_events as events using (landed_hour, file_id, line_number)
            where
                posted.tenant_id = $1
                and posted.correlation_id = any($2)
                and posted.properties is distinct from events.properties::jsonb
            $statement$,
            of_table
        )
        into differing
        using of_tenant, of_requests;
        if differing > 0 then
            raise exception 'ledger.% says something else than what landed in % of these records', of_table, differing;
        end if;
        counts := counts || jsonb_build_object('ledger.' || of_table, emptied);
    end loop;
    update landing.erasures
    set figures = counts
    where erasure_id = erasure;
    return counts;
end
$$;

-- Takes out the bytes of the rejected records that landed so long ago that nobody will mend them any more; how many.
create function landing.expire_rejected(as_of timestamptz) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    expired bigint;
begin
    update landing.rejected_events as rejected
    set raw_line = null
    from landing.files
    where
        rejected.raw_line is not null
        and files.file_id = rejected.file_id
        and files.landed_at < least(as_of, now()) - (
            select make_interval(days => settings.value::integer)
            from catalog.settings
            where settings.name = 'rejected_days'
        );
    get diagnostics expired = row_count;
    return expired;
end
$$;

-- Who may: erasing has a role of its own; landing takes out what is to be erased as it lands, and what is too old.
revoke execute on function landing.erase_payloads(text, text[], text, text, timestamptz) from public;
revoke execute on function landing.erase_landed(timestamptz, timestamptz) from public;
revoke execute on function landing.rejected_of_erased(timestamptz, timestamptz) from public;
revoke execute on function landing.expire_rejected(timestamptz) from public;
grant execute on function landing.erase_payloads(text, text[], text, text, timestamptz) to metering_erase;
grant execute on function landing.erase_landed(timestamptz, timestamptz) to metering_landing;
grant execute on function landing.expire_rejected(timestamptz) to metering_landing;
grant select on landing.erasures, landing.erased_requests to metering_analyst;
