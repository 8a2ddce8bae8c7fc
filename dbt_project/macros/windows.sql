{# The half-open window of landing hours that the run was given, by dbt's own event-time flags, or by variables
   of these names where a command does not know the flags (dbt compile).
   Without one a windowed model does not compile: plain `dbt build` cannot process everything by mistake. #}
{% macro window_start() -%}
    {{ _window_edge('event_time_start') }}
{%- endmacro %}

{% macro window_end() -%}
    {{ _window_edge('event_time_end') }}
{%- endmacro %}

{% macro window_is_one_hour() -%}
    {%- if not execute -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set read = modules.datetime.datetime.fromisoformat -%}
    {%- set start = read(_given('event_time_start') | string) -%}
    {%- set end = read(_given('event_time_end') | string) -%}
    {{ return(end - start == modules.datetime.timedelta(hours=1)) }}
{%- endmacro %}

{% macro _given(flag) -%}
    {{ return(invocation_args_dict.get(flag) or var(flag, none)) }}
{%- endmacro %}

{% macro _window_edge(flag) -%}
    {%- set edge = _given(flag) -%}
    {%- if execute and flags.WHICH in ('run', 'build', 'test', 'compile', 'show') and not edge -%}
        {{ exceptions.raise_compiler_error(
            model.name ~ ' needs a window of landing hours: use `metering run --hour H` '
            ~ '(or dbt with --event-time-start and --event-time-end, UTC).'
        ) }}
    {%- endif -%}
    '{{ edge or "1970-01-01 00:00:00" }}+00'::timestamptz
{%- endmacro %}

{# The hour that holds an instant. date_bin is immutable, date_trunc on an instant is not. #}
{% macro hour_of(instant) -%}
    date_bin('1 hour', {{ instant }}, '2000-01-01 00:00:00+00'::timestamptz)
{%- endmacro %}
