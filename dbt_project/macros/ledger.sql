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

{# Makes the day partitions that the window's events need, in a transaction of its own before the posting. Of a day
   that is archived it is refused; what has landed and is not posted keeps its days from being archived meanwhile. #}
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

{# Every key of the rollups that the ledger's events make, those for which the condition is true: an event is
   booked in its own landing hour and, once it is voided, taken back in the later of that and the void's. #}
{% macro ledger_keys(condition='true') -%}
select
    events.landed_hour,
    events.tenant_id,
    events.event_type,
    {{ hour_of('events.occurred_at') }} as event_hour
from ledger.usage_events as events
where {{ condition }}
union
select
    greatest(events.landed_hour, voids.landed_hour),
    events.tenant_id,
    events.event_type,
    {{ hour_of('events.occurred_at') }}
from ledger.voids
inner join ledger.usage_events as events
    on
        voids.tenant_id = events.tenant_id
        and voids.occurred_at = events.occurred_at
        and voids.fingerprint = events.fingerprint
where {{ condition }}
{%- endmacro %}

{# The rollups owe all of the window's landing hours again: what the ledger books in them, and what the rollups
   hold of them or, without any landing hour behind it, of the same hours of usage. #}
{% macro owe_window() -%}
select ledger.require_days('{}', array(
    select day::date
    from generate_series(
        ({{ window_start() }} at time zone 'UTC')::date,
        (({{ window_end() }} - interval '1 microsecond') at time zone 'UTC')::date,
        interval '1 day'
    ) as days (day)
));

insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour, released)
select
    landed_hour,
    tenant_id,
    event_type,
    event_hour,
    true
from (
    {{ ledger_keys() }}
    {% for table in ['usage_contributions', 'unreadable_values', 'unmetered_events'] -%}
    union
    select
        landed_hour,
        tenant_id,
        event_type,
        hour
    from rollups.{{ table }}
    {% endfor %}
) as keys
where landed_hour >= {{ window_start() }} and landed_hour < {{ window_end() }}
on conflict (landed_hour, tenant_id, event_type, event_hour) do update set released = true;

insert into rollups.touched_buckets (tenant_id, metric, hour, dimensions)
select
    tenant_id,
    metric,
    hour,
    dimensions
from rollups.usage_hourly
where
    hour >= {{ window_start() }}
    and hour < {{ window_end() }}
    and not exists (
        select 1
        from rollups.usage_contributions as contributions
        where
            contributions.tenant_id = usage_hourly.tenant_id
            and contributions.metric = usage_hourly.metric
            and contributions.hour = usage_hourly.hour
            and contributions.dimensions = usage_hourly.dimensions
    )
on conflict do nothing;

insert into rollups.touched_days (tenant_id, metric, day)
select distinct
    tenant_id,
    metric,
    day
from rollups.usage_daily
where
    day >= ({{ window_start() }} at time zone 'UTC')::date
    and day < {{ window_end() }} at time zone 'UTC'
on conflict do nothing
{%- endmacro %}
