{#
  The project's own materialization. A model is a script: its statements run in order, in ONE
  transaction, under the pipeline's lock, on tables that the schema files own. So a queue is
  consumed, its work done and the next queue written together or not at all; readers see the
  state before or the state after; a full refresh changes nothing, since nothing is dropped.

  A script that waits for the lock itself (wait_for_pipeline) does before it what others may write meanwhile.
#}
{% materialization posting, adapter='postgres' %}
    {%- if run_query("select to_regclass('" ~ this ~ "')")[0][0] is none -%}
        {{ exceptions.raise_compiler_error(this ~ ' does not exist: tables are made by the schema files (metering db start).') }}
    {%- endif -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% call statement('lock') %}
        {% if pre_hooks | rejectattr('transaction') | list -%}
            -- such a hook ends the transaction by a text that the driver does not read, and so begins no other
            begin;
        {% endif -%}
        {% if wait_for_pipeline() not in sql -%}
            {{ wait_for_pipeline() }};
        {% endif -%}
        -- a batch is sorted and grouped in memory: few write at a time, so it is bounded
        set local work_mem = '192MB'
    {% endcall %}
    {% call statement('main') %}
        {{ sql }}
    {% endcall %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': []}) }}
{% endmaterialization %}

{# The number of the one advisory lock that every writing transaction of the pipeline takes
   (postgres.PIPELINE_LOCK in Python: a house test compares them). #}
{% macro pipeline_lock() %}7304211{% endmacro %}

{% macro wait_for_pipeline() -%}
    select pg_advisory_xact_lock({{ pipeline_lock() }})
{%- endmacro %}

{# The number of the lock over what has landed, which stands still while it is held shared (postgres.LANDED_LOCK). #}
{% macro landed_lock() %}7304212{% endmacro %}

{% macro hold_landed() -%}
    select pg_advisory_xact_lock_shared({{ landed_lock() }})
{%- endmacro %}
