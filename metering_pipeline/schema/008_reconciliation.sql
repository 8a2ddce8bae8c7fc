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

-- The canonical text of properties, from the ledger's jsonb: keys in the order of their UTF-8 bytes at every depth,
-- numbers without trailing zeros. It is what landing wrote, made by another piece of code. What an object holds is
-- written in one statement, since a call costs more than all the rest.
create function reconciliation.canonical_text(value jsonb) returns text
language plpgsql immutable strict parallel safe as $$
begin
    case jsonb_typeof(value)
        when 'object' then return (
            select
                '{' || coalesce(string_agg(
                    to_json(key)::text || ':' || case
                        when jsonb_typeof(member) = 'number' then trim_scale(member::numeric)::text
                        when jsonb_typeof(member) in ('object', 'array') then reconciliation.canonical_text(member)
                        else member::text
                    end,
                    ',' order by key collate "C"
                ), '') || '}'
            from jsonb_each(value) as members (key, member)
        );
        when 'array' then return (
            select '[' || coalesce(string_agg(reconciliation.canonical_text(element), ',' order by place), '') || ']'
            from jsonb_array_elements(value) with ordinality as elements (element, place)
        );
        when 'number' then return trim_scale(value::numeric)::text;
        else return value::text;
    end case;
end
$$;

-- The second eight bytes of a hash, as a signed number: what laws sum, by code of their own. From PostgreSQL 18 on a
-- cast does it; the way through texts before was a quarter of what L3 costs.
do $$
declare
    number_of constant text := case
        when current_setting('server_version_num')::integer >= 180000 then 'substring(hash from 9 for 8)::bigint'
        else '(''x'' || encode(substring(hash from 9 for 8), ''hex''))::bit(64)::bigint'
    end;
begin
    execute
        'create function reconciliation.second_eight_bytes(hash bytea) returns bigint'
        || ' language sql immutable strict parallel safe return ' || number_of;
end;
$$;

-- Microseconds from 1970 to an instant, which fingerprints are made of. An instant is sent as those from 2000 on; from
-- PostgreSQL 18 on a cast reads that, without a detour through decimals.
do $$
declare
    micros constant text := case
        when current_setting('server_version_num')::integer >= 180000
            then 'timestamptz_send(instant)::bigint + 946684800000000'
        else '(extract(epoch from instant) * 1000000)::bigint'
    end;
begin
    execute
        'create function reconciliation.micros_since_1970(instant timestamptz) returns bigint'
        || ' language sql immutable strict parallel safe return ' || micros;
end;
$$;

-- What a billing provider, or a table of the company's own, said of our tenants' usage: a row for each time that it
-- was asked. The span is [starts_at, ends_at). Exact: whatever is not there for the span is not known to it; else
-- the span is that of its rows, whose days may begin in several zones.
create table reconciliation.provider_fetches (
    fetch_id bigint generated always as identity primary key,
    source text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    is_exact boolean not null,
    metrics text[] not null,
    fetched_at timestamptz not null,
    fetched_by text not null,
    check (starts_at < ends_at)
);
create index provider_fetches_by_source on reconciliation.provider_fetches (source, fetch_id);

-- The values that it gave, as it named them and as the catalog mapped them then; null: to nobody and nothing.
create table reconciliation.provider_usage (
    fetch_id bigint not null references reconciliation.provider_fetches,
    customer text collate "C" not null,
    tenant_id text collate "C",
    meter text collate "C" not null,
    metric text collate "C",
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    value numeric not null,
    place text not null,
    primary key (fetch_id, customer, meter, starts_at),
    check (starts_at < ends_at)
);

-- What was found or fetched stays what it was: neither the pipeline nor a careless hand rewrites it.
create function reconciliation.refuse_change() returns trigger
language plpgsql as $$
begin
    raise exception '%.% is append-only: % refused. What was recorded stays; a later row corrects it.',
        tg_table_schema, tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end
$$;

-- The UTC days that were built anew from the stage before and compared, row for row: one row a run, day and stage. Of
-- landing it is a day of landing, else a day of usage. Left out: files that are gone, events still to be posted.
create table reconciliation.rebuilt_days (
    rebuilt_day_id bigint generated always as identity primary key,
    week date not null,
    day date not null,
    stage text not null check (stage in ('landing', 'ledger', 'rollups')),
    rebuilt_count bigint not null,
    missing_count bigint not null,
    extra_count bigint not null,
    modified_count bigint not null,
    left_out_count bigint not null,
    samples jsonb not null,
    rebuilt_at timestamptz not null
);
create index rebuilt_days_by_day on reconciliation.rebuilt_days (day, stage, rebuilt_day_id);

-- Where each day stands by the newest rebuild of each stage: when it was proven, and whether anything differed.
create view reconciliation.current_rebuilt_days with (security_invoker = true) as
select distinct on (day, stage) *
from reconciliation.rebuilt_days
order by day, stage, rebuilt_day_id desc;

do $$
declare
    table_name text;
begin
    foreach table_name in array array['provider_fetches', 'provider_usage', 'law_results', 'rebuilt_days'] loop
        execute format(
            'create trigger append_only before update or delete on reconciliation.%I'
            ' for each row execute function reconciliation.refuse_change()', table_name
        );
        execute format(
            'create trigger never_truncated before truncate on reconciliation.%I'
            ' for each statement execute function reconciliation.refuse_change()', table_name
        );
    end loop;
end
$$;

-- What producers say that they sent against what landed of it, by manifest in force and event type: accepted
-- records, copies and voids included, before anything is counted once. Missing: less landed than was sent.
create view reconciliation.control_totals with (security_invoker = true) as
with named as (
    select
        manifests.manifest_id,
        files.file_id,
        files.rejected_count
    from landing.manifests
    inner join landing.manifest_files on manifests.manifest_id = manifest_files.manifest_id
    inner join landing.files on manifest_files.file_key = files.file_key and files.superseded_by is null
    where manifests.superseded_by is null
),

landed as (
    select
        named.manifest_id,
        totals.event_type,
        sum(totals.event_count) as event_count,
        sum(totals.quantity) as quantity,
        sum(totals.event_digest) as event_digest
    from named
    inner join landing.file_totals as totals on named.file_id = totals.file_id
    group by named.manifest_id, totals.event_type
),

sent as (
    select totals.*
    from landing.manifest_totals as totals
    inner join landing.manifests on totals.manifest_id = manifests.manifest_id
    where manifests.superseded_by is null
),

rejected as (
    select
        manifest_id,
        sum(rejected_count) as rejected_count
    from named
    group by manifest_id
)

select
    manifests.landed_hour,
    manifests.source,
    manifests.file_key,
    coalesce(sent.event_type, landed.event_type) as event_type,
    coalesce(sent.event_count, 0) as sent_count,
    coalesce(landed.event_count, 0) as landed_count,
    coalesce(sent.quantity, 0) as sent_quantity,
    coalesce(landed.quantity, 0) as landed_quantity,
    sent.event_digest as sent_digest,
    coalesce(landed.event_digest, 0) as landed_digest,
    coalesce(rejected.rejected_count, 0) as rejected_count,
    case
        when coalesce(sent.event_count, 0) > coalesce(landed.event_count, 0) then 'missing'
        when coalesce(sent.event_count, 0) < coalesce(landed.event_count, 0) then 'extra'
        when
            coalesce(sent.quantity, 0) <> coalesce(landed.quantity, 0)
            or sent.event_digest <> coalesce(landed.event_digest, 0)
            then 'modified'
        else 'identical'
    end as state
from sent
full outer join landed on sent.manifest_id = landed.manifest_id and sent.event_type = landed.event_type
inner join landing.manifests on coalesce(sent.manifest_id, landed.manifest_id) = manifests.manifest_id
left join rejected on manifests.manifest_id = rejected.manifest_id;

-- Who let an hour of a source count as complete, and why: a row for each of its problems as it was then.
create table reconciliation.waivers (
    waiver_id bigint generated always as identity primary key,
    landed_hour timestamptz not null,
    source text collate "C" not null,
    reason text not null,
    detail text not null,
    waived_by text not null,
    waiver_reason text not null,
    waived_at timestamptz not null
);
create index waivers_by_hour on reconciliation.waivers (landed_hour, source);
create trigger append_only before update or delete on reconciliation.waivers
for each row execute function reconciliation.refuse_change();
create trigger never_truncated before truncate on reconciliation.waivers
for each statement execute function reconciliation.refuse_change();

-- What is wrong with the manifests of each source and hour, the manifests in force. The detail is the same as
-- long as the cause is; a waiver is good for that cause. A declared source's problems hold its tenants' invoices
-- (tenants empty: all), but for those that are only to be known of.
create view reconciliation.manifest_problems with (security_invoker = true) as
with patterns as (
    select
        sources.*,
        coalesce(declared_until, 'infinity') as until,
        replace(replace(replace(replace(file_pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%') as file_names
    from catalog.sources
),

-- Each manifest in force, its source's declaration beside it.
in_force as (
    select
        manifests.*,
        patterns.source is not null as is_declared,
        patterns.file_names
    from landing.manifests
    left join patterns
        on manifests.source = patterns.source
            and manifests.landed_hour >= patterns.declared_from
            and manifests.landed_hour < patterns.until
    where manifests.superseded_by is null
),

named as (
    select
        in_force.manifest_id,
        in_force.landed_hour,
        in_force.source,
        in_force.file_key as manifest_key,
        files.file_key,
        files.size_bytes,
        files.content_sha256
    from in_force
    inner join landing.manifest_files as files on in_force.manifest_id = files.manifest_id
),

problems as (
    select
        landed_hour,
        source,
        file_key,
        'malformed' as reason,
        unnest(problems) as detail
    from in_force
    union all
    select
        landed_hour,
        source,
        file_key,
        'undeclared_source',
        'source: ' || source || ' is not declared for this hour; add it to the catalog''s sources, or correct it'
    from in_force
    where not is_declared and problems = '{}'
    union all
    select
        landed_hour,
        source,
        file_key,
        'manifest_vanished',
        'the manifest is no longer in the landing root; what it said still counts'
    from in_force
    where missing_since is not null
    union all
    select
        landed_hour,
        source,
        max(file_key),
        'two_manifests',
        'source: ' || source || ' has ' || string_agg(file_key, ' and ' order by file_key)
        || '; keep one (an empty list of files takes the other back)'
    from in_force
    where problems = '{}' and source is not null and exists (
        select 1
        from landing.manifest_files as files
        where files.manifest_id = in_force.manifest_id
    )
    group by landed_hour, source
    having count(*) > 1
    union all
    select
        named.landed_hour,
        named.source,
        named.manifest_key,
        'file_absent',
        'files: ' || named.file_key || ' is named and has not landed'
    from named
    left join landing.files on named.file_key = files.file_key and files.superseded_by is null
    where files.file_id is null
    union all
    select
        named.landed_hour,
        named.source,
        named.manifest_key,
        'file_differs',
        'files: ' || named.file_key || ' landed with ' || files.size_bytes || ' bytes and SHA-256 '
        || files.content_sha256 || ', not ' || concat_ws(
            ' and ', named.size_bytes || ' bytes', 'SHA-256 ' || named.content_sha256
        )
    from named
    inner join landing.files on named.file_key = files.file_key and files.superseded_by is null
    where named.size_bytes <> files.size_bytes or named.content_sha256 <> files.content_sha256
    union all
    select
        named.landed_hour,
        named.source,
        named.manifest_key,
        'file_named_twice',
        'files: ' || named.file_key || ' is named by ' || other.manifest_key || ' too'
    from named
    inner join named as other on named.file_key = other.file_key and named.manifest_id <> other.manifest_id
    union all
    select
        in_force.landed_hour,
        in_force.source,
        in_force.file_key,
        'file_not_named',
        'files: ' || files.file_key || ' landed with ' || files.accepted_count || ' events and is not named'
    from in_force
    inner join landing.files
        on in_force.landed_hour = files.landed_hour
            and files.superseded_by is null
    cross join lateral (select split_part(files.file_key, '/', 2) as file_name) as names
    where
        in_force.problems = '{}'
        and case
            when in_force.is_declared then names.file_name like in_force.file_names
            else not exists (
                select 1
                from patterns
                where
                    names.file_name like patterns.file_names
                    and in_force.landed_hour >= patterns.declared_from
                    and in_force.landed_hour < patterns.until
            )
        end
        and not exists (
            select 1
            from named
            where named.file_key = files.file_key
        )
    union all
    select
        landed_hour,
        source,
        file_key,
        'totals_differ',
        'totals: ' || event_type || ' sent ' || sent_count || ', landed ' || landed_count
        || case
            when state <> 'modified' then ''
            when sent_quantity = landed_quantity
                then '; the digests differ: ' || sent_digest || ' and ' || landed_digest
            else '; quantities ' || trim_scale(sent_quantity) || ' and ' || trim_scale(landed_quantity)
        end
        || case when rejected_count > 0 then '; ' || rejected_count || ' rejected in its files' else '' end
    from reconciliation.control_totals
    where state <> 'identical'
    union all
    select
        hours.landed_hour,
        patterns.source,
        null,
        case
            when hours.listed_at < hours.landed_hour + make_interval(hours => 1 + patterns.due_hours)
                then 'manifest_awaited'
            else 'manifest_absent'
        end,
        'no manifest of ' || patterns.source
    from patterns
    inner join landing.hours
        on patterns.declared_from <= hours.landed_hour
            and patterns.until > hours.landed_hour
    where
        patterns.expects_manifest
        and not exists (
            select 1
            from in_force
            where in_force.landed_hour = hours.landed_hour and in_force.source = patterns.source
        )
)

select
    problems.landed_hour,
    problems.source,
    problems.file_key,
    problems.reason,
    problems.detail,
    coalesce(patterns.tenants, '{}') as tenants,
    patterns.source is not null and problems.reason not in ('manifest_vanished', 'undeclared_source')
    and waived.waiver_id is null as holds,
    waived.waived_by,
    waived.waiver_reason,
    waived.waived_at
from problems
left join patterns
    on problems.source = patterns.source
        and problems.landed_hour >= patterns.declared_from
        and problems.landed_hour < patterns.until
left join lateral (
    select waivers.*
    from reconciliation.waivers
    where
        waivers.landed_hour = problems.landed_hour
        and waivers.source = problems.source
        and waivers.detail = problems.detail
    order by waivers.waiver_id desc
    limit 1
) as waived on true;

-- Completeness: one row for each source and hour that has a manifest or needs one.
create view reconciliation.source_hours with (security_invoker = true) as
with expected as (
    select
        hours.landed_hour,
        sources.source
    from catalog.sources
    inner join landing.hours
        on sources.declared_from <= hours.landed_hour
            and coalesce(sources.declared_until, 'infinity') > hours.landed_hour
    where sources.expects_manifest
    union
    select
        landed_hour,
        source
    from landing.manifests
    where superseded_by is null and source is not null
),

problems as (
    select
        landed_hour,
        source,
        count(*) as problem_count,
        count(*) filter (where waived_at is null) as open_count,
        bool_or(reason = 'manifest_absent') as is_absent,
        bool_or(reason = 'manifest_awaited') as is_awaited
    from reconciliation.manifest_problems
    where reason not in ('manifest_vanished', 'undeclared_source')
    group by landed_hour, source
)

select
    expected.landed_hour,
    expected.source,
    coalesce(problems.problem_count, 0) as problem_count,
    case
        when problems.landed_hour is null then 'complete'
        when problems.open_count = 0 then 'waived'
        when problems.is_absent then 'absent'
        when problems.is_awaited then 'awaited'
        else 'differs'
    end as state
from expected
left join problems on expected.landed_hour = problems.landed_hour and expected.source = problems.source;
