{#
  Views in place of dbt's own. A view whose definition stands is left alone, so that runs take no lock that
  keeps readers out; another is made under the pipeline's locks, where dbt's own way lets two runs collide.
  It takes the views that read it along: these come after it in the run, which finds them missing.
  While all stand, a landing hour's run does not ask for any of them (transform/standing.py).
  Views ask for the reader's own rights.
#}
{% materialization view, adapter='postgres' %}
    {%- set name = adapter.quote(this.schema) ~ '.' ~ adapter.quote(this.identifier) -%}
    {%- set remark = 'Defined by ' ~ model.original_file_path ~ ', ' ~ local_md5(sql) -%}

    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('standing', fetch_result=True) %}
        select coalesce(obj_description(to_regclass('{{ name }}'), 'pg_class') = '{{ remark }}', false)
    {% endcall %}
    {% call statement('main') %}
        {%- if load_result('standing')['data'][0][0] %}
        select 'the view stands as it is defined'
        {%- else %}
        -- again: dbt loses its role where its first transaction is rolled back
        set local role {{ target.role }};
        {{ wait_for_pipeline() }};
        drop view if exists {{ name }} cascade;
        create view {{ name }} with (security_invoker = true) as
        {{ sql }};
        comment on view {{ name }} is '{{ remark }}'
        {%- endif %}
    {% endcall %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}

    {{ return({'relations': []}) }}
{% endmaterialization %}
