{# The copies that the window's files hold, of those files for which the condition is true. #}
{% macro landed_copies(condition) -%}
select
        case when events.void then 'void' else 'event' end as kind,
        events.tenant_id,
        events.event_type,
        events.occurred_at,
        events.correlation_id,
        {{ fingerprint('events') }} as fingerprint,
        {{ payload_hash('events') }} as payload_hash,
        trim_scale(events.quantity) as quantity,
        events.properties::jsonb as properties,
        events.landed_hour,
        events.file_id,
        events.line_number,
        files.file_key
    from {{ source('landing', 'usage_events') }} as events
    inner join {{ source('landing', 'files') }} as files on events.file_id = files.file_id
    where
        events.landed_hour >= {{ window_start() }}
        and events.landed_hour < {{ window_end() }}
        and {{ condition }}
{%- endmacro %}

{# The columns of a ledger row from a relation with an event's columns, in the tables' order. #}
{% macro ledger_columns(relation=none) -%}
{%- set prefix = relation ~ '.' if relation else '' -%}
{%- for column in ['tenant_id', 'event_type', 'occurred_at', 'correlation_id', 'fingerprint', 'payload_hash'] %}
{{ prefix }}{{ column }},
{%- endfor %}
{{ prefix }}quantity,
{{ prefix }}properties,
{{ prefix }}landed_hour,
{{ prefix }}file_id,
{{ prefix }}line_number,
{% if relation in ('usage_events', 'duplicates', 'conflicts', 'voids', 'copies') -%}
{{ prefix }}recorded_at
{%- else -%}
'{{ run_started_at }}'::timestamptz as recorded_at
{%- endif %}
{%- endmacro %}

{# Makes the day partitions that the window's events need, in a transaction of its own before the posting. #}
{% macro ensure_ledger_partitions() -%}
select catalog.ensure_day_partitions('ledger', 'usage_events', array(
    select (day at time zone 'UTC')::date
    from (
        select distinct date_bin('1 day', occurred_at, '2000-01-01 00:00:00+00'::timestamptz) as day
        from landing.usage_events
        where landed_hour >= {{ window_start() }} and landed_hour < {{ window_end() }}
    ) as days
))
{%- endmacro %}
