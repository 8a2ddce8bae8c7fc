{# The copies that files of the window hold, by a relation of these files: (file_id, file_key). #}
{% macro landed_copies(files, condition=none) -%}
select
        case when events.void then 'void' else 'event' end as kind,
        events.tenant_id,
        events.event_type,
        events.occurred_at,
        events.correlation_id,
        {{ fingerprint('events') }} as fingerprint,
        {{ payload_hash('events') }} as payload_hash,
        events.quantity,
        events.properties,
        events.landed_hour,
        events.file_id,
        events.line_number,
        {{ files }}.file_key
    from {{ source('landing', 'usage_events') }} as events
    inner join {{ files }} on events.file_id = {{ files }}.file_id
    where
        events.landed_hour >= {{ window_start() }}
        and events.landed_hour < {{ window_end() }}
        {%- if condition %}
        and {{ condition }}
        {%- endif %}
{%- endmacro %}

{# The columns of a ledger row from a relation with an event's columns, in the tables' order. #}
{% macro ledger_columns(relation=none) -%}
{%- set prefix = relation ~ '.' if relation else '' -%}
{%- for column in ['tenant_id', 'event_type', 'occurred_at', 'correlation_id', 'fingerprint', 'payload_hash'] %}
{{ prefix }}{{ column }},
{%- endfor %}
trim_scale({{ prefix }}quantity) as quantity,
{{ prefix }}properties::jsonb as properties,
{{ prefix }}landed_hour,
{{ prefix }}file_id,
{{ prefix }}line_number,
{% if relation in ('usage_events', 'duplicates', 'conflicts', 'voids', 'copies') -%}
{{ prefix }}recorded_at
{%- else -%}
'{{ run_started_at }}'::timestamptz as recorded_at
{%- endif %}
{%- endmacro %}

{# Where each contested event stands: its owner, and the landing hours that book it and its void. #}
{% macro contested_state() -%}
select
    contested.occurred_at,
    contested.fingerprint,
    events.tenant_id,
    events.event_type,
    events.landed_hour,
    events.file_id,
    events.line_number,
    voids.landed_hour as void_landed_hour
from contested
inner join ledger.usage_events as events
    on contested.occurred_at = events.occurred_at and contested.fingerprint = events.fingerprint
left join ledger.voids
    on contested.occurred_at = voids.occurred_at and contested.fingerprint = voids.fingerprint
{%- endmacro %}

{# Makes the day partitions that the window's events need, in a transaction of its own before the posting. #}
{% macro ensure_ledger_partitions() -%}
select catalog.ensure_day_partitions('ledger', 'usage_events', array(
    select distinct (occurred_at at time zone 'UTC')::date
    from landing.usage_events
    where landed_hour >= {{ window_start() }} and landed_hour < {{ window_end() }}
))
{%- endmacro %}
