{#
  The project's own materialization. A model is a script: its statements run in order, in ONE
  transaction, under the pipeline's locks, on tables that the schema files own. So a queue is
  consumed, its work done and the next queue written together or not at all; readers see the
  state before or the state after; a full refresh changes nothing, since nothing is dropped.

  A script that waits for a lock itself needs no other, and does before it what others may write meanwhile.
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
        {% if 'pg_advisory_xact_lock(' not in sql -%}
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

{# The numbers of the advisory locks (postgres.py has them too, and says what they are: a house test compares them). #}
{% macro landed_lock() %}7304212{% endmacro %}
{% macro ledger_lock() %}7304214{% endmacro %}
{% macro rollups_lock() %}7304211{% endmacro %}

{% macro wait_for(lock) -%}
    select pg_advisory_xact_lock({{ lock }})
{%- endmacro %}

{% macro wait_for_pipeline() -%}
    {{ wait_for(ledger_lock()) }};
    {{ wait_for(rollups_lock()) }}
{%- endmacro %}

{% macro hold_landed() -%}
    select pg_advisory_xact_lock_shared({{ landed_lock() }})
{%- endmacro %}
