{#
  What the posting models change in the rollups, however many of them run: the rows as they were before, kept
  by the keys of the queue that the model is about to take. All is in temporary tables of the session, written
  before each model (remember_rows) and compared with the rollups in the end (row_changes, bucket_changes).
#}
{% macro watched_tables() -%}
{{ return([
    {
        'table': 'usage_contributions',
        'queue': 'ledger.pending',
        'queue_key': ['landed_hour', 'tenant_id', 'event_type', 'event_hour'],
        'table_key': ['landed_hour', 'tenant_id', 'event_type', 'hour'],
        'row_key': ['landed_hour', 'tenant_id', 'metric', 'hour', 'dimensions'],
    },
    {
        'table': 'usage_hourly',
        'queue': 'rollups.touched_buckets',
        'queue_key': ['tenant_id', 'metric', 'hour', 'dimensions'],
        'table_key': ['tenant_id', 'metric', 'hour', 'dimensions'],
        'row_key': ['tenant_id', 'metric', 'hour', 'dimensions'],
    },
    {
        'table': 'usage_daily',
        'queue': 'rollups.touched_days',
        'queue_key': ['tenant_id', 'metric', 'day'],
        'table_key': ['tenant_id', 'metric', 'day'],
        'row_key': ['tenant_id', 'metric', 'day', 'dimensions'],
    },
]) }}
{%- endmacro %}

{% macro watch_rows() -%}
{% for watched in watched_tables() -%}
create temporary table watched_{{ watched.table }} as
select {{ watched.queue_key | join(', ') }}
from {{ watched.queue }}
with no data;

create unique index on watched_{{ watched.table }} ({{ watched.queue_key | join(', ') }});

create temporary table former_{{ watched.table }} (like rollups.{{ watched.table }});

{% endfor -%}
{%- endmacro %}

{# Before a model takes its queue: the rows of the keys that are there for the first time. #}
{% macro remember_rows() -%}
{% for watched in watched_tables() -%}
with added as (
    insert into watched_{{ watched.table }}
    select {{ watched.queue_key | join(', ') }}
    from {{ watched.queue }}
    on conflict do nothing
    returning *
)

insert into former_{{ watched.table }}
select standing.*
from added
inner join rollups.{{ watched.table }} as standing
    on {{ _same(watched.queue_key, 'added', watched.table_key, 'standing') }};

{% endfor -%}
{%- endmacro %}

{# Rows by table: those that stay, and those that are new, say something else or vanish. #}
{% macro row_changes() -%}
{% for watched in watched_tables() -%}
select
    '{{ watched.table }}' as relation,
    {{ _kinds_of_change() }}
from {{ _compared(watched) }}
{{ 'union all' if not loop.last }}
{% endfor -%}
{%- endmacro %}

{# The hourly buckets that change, by tenant and metric, with what they hold before and after. #}
{% macro bucket_changes() -%}
{%- set watched = watched_tables() | selectattr('table', 'eq', 'usage_hourly') | first -%}
select
    coalesce(former.tenant_id, standing.tenant_id) as tenant_id,
    coalesce(former.metric, standing.metric) as metric,
    {{ _kinds_of_change() }},
    coalesce(sum(former.event_count), 0)::bigint as events_before,
    coalesce(sum(standing.event_count), 0)::bigint as events_after,
    coalesce(sum(former.value_sum), 0)::text as quantity_before,
    coalesce(sum(standing.value_sum), 0)::text as quantity_after
from {{ _compared(watched) }}
where row(former.*) is distinct from row(standing.*)
group by 1, 2
{%- endmacro %}

{% macro _compared(watched) -%}
former_{{ watched.table }} as former
full join (
    select rows.*
    from watched_{{ watched.table }} as watched
    inner join rollups.{{ watched.table }} as rows
        on {{ _same(watched.queue_key, 'watched', watched.table_key, 'rows') }}
) as standing on {{ _same(watched.row_key, 'former', watched.row_key, 'standing') }}
{%- endmacro %}

{% macro _kinds_of_change() -%}
count(*) filter (where row(former.*) is not distinct from row(standing.*)) as identical,
    count(*) filter (where former.tenant_id is null) as new,
    count(*) filter (
        where
            former.tenant_id is not null
            and standing.tenant_id is not null
            and row(former.*) is distinct from row(standing.*)
    ) as changed,
    count(*) filter (where standing.tenant_id is null) as vanished
{%- endmacro %}

{% macro _same(columns, relation, other_columns, other_relation) -%}
{%- for column in columns -%}
{{ 'and ' if not loop.first }}{{ relation }}.{{ column }} = {{ other_relation }}.{{ other_columns[loop.index0] }} {# -#}
{%- endfor -%}
{%- endmacro %}
