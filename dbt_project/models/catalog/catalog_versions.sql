{{ config(materialized='posting', full_refresh=false) }}

{%- set tables = catalog_tables() %}
{%- set measuring_columns = 'metric, event_type, aggregation, value_property, percentile, dimensions, filter' %}

-- Publishes the catalog as a whole: validated, cast, moved in one transaction, so that a reader sees the
-- old one or the new one. A content not seen before the last time is a new version.

set local time zone 'UTC';

-- 1. Nothing is published while there is a problem: {{ ref('catalog_problems') }}.
do $$
declare
    problem_count bigint;
    listing text;
begin
    select
        count(*),
        string_agg(line, e'\n' order by line) filter (where place <= 20)
    into problem_count, listing
    from (
        select
            format(
                '  %s%s%s%s: %s',
                catalog_table,
                ' row "' || nullif(row_key, '') || '"',
                ' column ' || nullif(column_name, ''),
                ' value "' || value || '"',
                problem
            ) as line,
            row_number() over (order by catalog_table, row_key, column_name, problem) as place
        from {{ ref('catalog_problems') }}
    ) as problems;
    if problem_count > 0 then
        raise exception e'the catalog has % problem(s) and was not published; the first ones:\n%',
            problem_count, listing
            using hint = 'Correct these rows of the seeds (dbt_project/seeds) or of your own catalog tables, '
            'and run again. All of them: select * from staging.catalog_problems';
    end if;
end
$$;

create temporary table former_metrics on commit drop as
select *
from catalog.metrics;

-- 2. Move. The references between the tables are checked at the end of the transaction.
{% for table, fields in tables.items() -%}
delete from catalog.{{ table }};

insert into catalog.{{ table }} (
    {{ fields['columns'].keys() | join(', ') }}
)
select
    {%- for column, kind in fields['columns'].items() %}
    {{ catalog_cast(catalog_text(column, kind), catalog_kind(kind).base) }}{{ ',' if not loop.last }}
    {%- endfor %}
from {{ ref(table) }};

{% endfor -%}
-- 3. A metric that is new or that measures otherwise is owed over all of history: every key of its event type.
create temporary table changed_types on commit drop as
with changed as (
    {% for one, other in [('former_metrics', 'catalog.metrics'), ('catalog.metrics', 'former_metrics')] -%}
    select event_type
    from (
        select
            {{ measuring_columns }}
        from {{ one }}
        except
        select
            {{ measuring_columns }}
        from {{ other }}
    ) as differing
    {{ 'union' if not loop.last }}
    {% endfor %}
)

select event_type
from changed;

select ledger.require_days(array(
    select day
    from {{ source('ledger', 'archived_days') }}
    where event_types && array(select event_type from changed_types)
));

insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour, released)
select
    landed_hour,
    tenant_id,
    event_type,
    event_hour,
    true
from (
    {{ ledger_keys('events.event_type in (select changed_types.event_type from changed_types)') }}
) as keys
on conflict (landed_hour, tenant_id, event_type, event_hour) do update set released = true;

-- 4. A new version if the content differs from the last one's; then the drafts are of yesterday.
with content as (
    {% for table, fields in tables.items() -%}
    select
        {{ loop.index }} as place,
        '{{ table }}' || e'\n' || coalesce(string_agg(
            to_jsonb({{ table }})::text, e'\n' order by {{ catalog_key(fields['key'], table) }} collate "C"
        ), '') as lines
    from catalog.{{ table }}
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

digest as (
    select encode(sha256(convert_to(string_agg(lines, e'\n' order by place), 'UTF8')), 'hex') as content_sha256
    from content
),

published as (
    insert into {{ this }} (content_sha256, published_at)
    select
        digest.content_sha256,
        now()
    from digest
    where digest.content_sha256 is distinct from (
        select versions.content_sha256
        from {{ this }} as versions
        order by versions.catalog_version desc
        limit 1
    )
    returning catalog_version
)

update invoices.draft_state
set stale = true
where exists (
    select 1
    from published
)
