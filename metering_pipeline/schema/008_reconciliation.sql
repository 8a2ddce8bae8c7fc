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

create function reconciliation.refuse_change() returns trigger
language plpgsql as $$
begin
    raise exception '%.% is append-only: % refused. What was fetched stays; fetch again.',
        tg_table_schema, tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end
$$;

do $$
declare
    table_name text;
begin
    foreach table_name in array array['provider_fetches', 'provider_usage'] loop
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
