{#
  A model that is a function: a query with arguments. Its yml says which: meta.arguments, meta.requires
  (what must be true of them, and what to say when it is not), meta.guards (calls that raise where the query must
  not be asked, as ledger.require_span) and the columns that it returns. In the query
  an argument is called given_<name>, since arguments are named as the columns that they choose by.

  It asks for the caller's own rights and reads by the caller's snapshot. It is made as a view is (view.sql).
#}
{% materialization table_function, adapter='postgres' %}
    {%- set name = adapter.quote(this.schema) ~ '.' ~ adapter.quote(this.identifier) -%}
    {%- set definition = table_function_definition(name, config.get('meta'), model.columns.values(), sql) -%}
    {%- set remark = 'Defined by ' ~ model.original_file_path ~ ', ' ~ local_md5(definition) -%}

    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('standing', fetch_result=True) %}
        select coalesce(obj_description(to_regproc('{{ name }}'), 'pg_proc') = '{{ remark }}', false)
    {% endcall %}
    {% call statement('main') %}
        {%- if load_result('standing')['data'][0][0] %}
        select 'the function stands as it is defined'
        {%- else %}
        -- again: dbt loses its role where its first transaction is rolled back
        set local role {{ target.role }};
        {{ wait_for_pipeline() }};
        drop function if exists {{ name }} cascade;
        {{ definition }};
        comment on function {{ name }} is '{{ remark }}'
        {%- endif %}
    {% endcall %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}

    {{ return({'relations': []}) }}
{% endmaterialization %}

{# A function in PL/pgSQL is planned when it is called: who reads a view that may call it does not pay for that. #}
{% macro table_function_definition(name, meta, columns, query) -%}
create function {{ name }}(
    {%- for each in meta.arguments %}{{ each.name }} {{ each.data_type }}{{ ', ' if not loop.last }}{% endfor -%}
) returns table (
    {%- for each in columns %}{{ each.name }} {{ each.data_type }}{{ ', ' if not loop.last }}{% endfor -%}
) language plpgsql stable parallel safe as $function$
#variable_conflict use_column
declare
    {%- for each in meta.arguments %}
    given_{{ each.name }} alias for ${{ loop.index }};
    {%- endfor %}
begin
    {%- for each in meta.requires or [] %}
    if ({{ each.condition }}) is not true then
        raise exception using errcode = 'invalid_parameter_value', message = {{ each.otherwise }};
    end if;
    {%- endfor %}
    {%- for each in meta.guards or [] %}
    perform {{ each }};
    {%- endfor %}
    return query
    select
        {%- for each in columns %} result.{{ each.name }}::{{ each.data_type }}{{ ',' if not loop.last }}{% endfor %}
    from (
{{ query }}
    ) as result;
end
$function$
{%- endmacro %}

{# The days of the span that is asked for are in the ledger and not archived. #}
{% macro ledger_has_span() -%}
    {{ return('ledger.require_span(given_starts_at, given_ends_at)') }}
{%- endmacro %}

{# The requirement that an argument is the first instant of an hour. #}
{% macro whole_hour(argument) -%}
    {{ return({
        'condition': 'given_' ~ argument ~ ' = ' ~ hour_of('given_' ~ argument),
        'otherwise': "format('%s must be the first instant of an hour (UTC), not %s.', '" ~ argument ~ "', coalesce(given_"
            ~ argument ~ "::text, 'null'))",
    }) }}
{%- endmacro %}
