{#
  The one place where an event becomes the metrics' values. Reads a relation of ledger events and gives a
  row for each event and metric that reads its type and passes its filter: the relation's columns, and

  metric, dimensions  the bucket's key; a missing dimension is null, a dimension's value is text
  dimension_values    the dimensions' values as text, which is cheaper to group by (dimensions_of makes the object)
  value               numeric; count and unique_count: 1, otherwise the value property or, without one, the quantity
  moment              for weighted_sum the value times the seconds from 1970 to the event, else null
  unique_value        for unique_count and percentile the value as text, else null
  removed             whether the event takes a unique value away: its property operation is "remove"
  unreadable          null, or why the value cannot be read: value_missing, value_not_a_number, value_too_long,
                      unknown_operation, dimension_too_long

  Events for which the condition `unmetered`, if there is one, is true come too, with a null metric.
#}
{% macro metric_events(events, unmetered=none) -%}
select
    events.*,
    metrics.metric,
    case
        when metrics.dimension_count = 0 then '{}'::jsonb
        -- one dimension, the usual case, without a subquery for each event
        when metrics.dimension_count = 1
            then jsonb_build_object(metrics.dimension, events.properties ->> metrics.dimension)
        when metrics.dimension_count > 1 then {{ several_dimensions() }}
    end as dimensions,
    case
        when metrics.dimension_count = 1 then events.properties ->> metrics.dimension
        when metrics.dimension_count > 1 then {{ several_dimensions() }}::text
    end as dimension_values,
    case
        when metrics.counts then 1
        else {{ metric_number() }}
    end as value,
    case
        when metrics.aggregation = 'weighted_sum'
            then {{ metric_number() }} * extract(epoch from events.occurred_at)
    end as moment,
    case metrics.aggregation
        when 'unique_count' then events.properties ->> metrics.value_property
        when 'percentile' then trim_scale({{ metric_number() }})::text
    end as unique_value,
    metrics.aggregation = 'unique_count'
    and coalesce(events.properties ->> 'operation' = 'remove', false) as removed,
    case
        when metrics.metric is null then null
        when metrics.dimension_count = 1
            and octet_length(events.properties ->> metrics.dimension) > 255 then 'dimension_too_long'
        when metrics.dimension_count > 1
            and exists (
                select 1
                from unnest(metrics.dimensions) as dimension
                where octet_length(events.properties ->> dimension) > 255
            ) then 'dimension_too_long'
        when metrics.reads_no_property then null
        when metrics.aggregation = 'unique_count' then case
            when events.properties ->> metrics.value_property is null then 'value_missing'
            when octet_length(events.properties ->> metrics.value_property) > 255 then 'value_too_long'
            when events.properties ->> 'operation' not in ('add', 'remove') then 'unknown_operation'
        end
        when jsonb_typeof(events.properties -> metrics.value_property) = 'number' then null
        when events.properties ->> metrics.value_property is null then 'value_missing'
        when (events.properties ->> metrics.value_property) !~ {{ readable_number() }} then 'value_not_a_number'
    end as unreadable
from {{ events }} as events
{{ 'left' if unmetered else 'inner' }} join (
    {{ metrics_prepared() }}
) as metrics
    on events.event_type = metrics.event_type
        and (metrics.reads_all or events.properties @> metrics.filter)
{%- if unmetered %}
where metrics.metric is not null or {{ unmetered }}
{%- endif %}
{%- endmacro %}

{# The metrics, with what can be said of one without an event: else it would be asked again for each of them. #}
{% macro metrics_prepared() -%}
select
        *,
        cardinality(dimensions) as dimension_count,
        dimensions[1] as dimension,
        filter = '{}' as reads_all,
        aggregation in ('count', 'unique_count') as counts,
        aggregation = 'count' or value_property is null as reads_no_property
    from catalog.metrics
    -- or the planner would move these expressions to where they are used
    offset 0
{%- endmacro %}

{# An event's several dimensions as one object. #}
{% macro several_dimensions() -%}
(
            select jsonb_object_agg(dimension, events.properties ->> dimension)
            from unnest(metrics.dimensions) as dimension
        )
{%- endmacro %}

{# The dimensions as an object, out of the values by which events were grouped. #}
{% macro dimensions_of(values) -%}
case
        when metrics.dimension_count = 0 then '{}'::jsonb
        when metrics.dimension_count = 1 then jsonb_build_object(metrics.dimension, {{ values }})
        when metrics.dimension_count > 1 then {{ values }}::jsonb
    end
{%- endmacro %}

{# A tenant's events of a span of instants that are not voided; as far as they, and the voids, landed before an instant. #}
{% macro standing_events(tenant_id, starts_at, ends_at, landed_before="'infinity'") -%}
select
        events.*,
        1 as sign
    from {{ ref('usage_events') }} as events
    where
        events.tenant_id = {{ tenant_id }}
        and events.occurred_at >= {{ starts_at }}
        and events.occurred_at < {{ ends_at }}
        and events.landed_hour < {{ landed_before }}
        and not exists (
            select 1
            from ledger.voids
            where
                voids.tenant_id = events.tenant_id
                and voids.occurred_at = events.occurred_at
                and voids.fingerprint = events.fingerprint
                and voids.landed_hour < {{ landed_before }}
        )
{%- endmacro %}

{# The number that a metric reads of an event, or null. #}
{% macro metric_number() -%}
case
            when metrics.value_property is null then events.quantity
            -- landing has bounded the digits of a number, not those of a text
            when jsonb_typeof(events.properties -> metrics.value_property) = 'number'
                then (events.properties -> metrics.value_property)::numeric
            when (events.properties ->> metrics.value_property) ~ {{ readable_number() }}
                then (events.properties ->> metrics.value_property)::numeric
        end
{%- endmacro %}

{# The additive digest of a set of metric events by one of their hashes. Not a product with the sign: the
   smallest term has no opposite. #}
{% macro signed_digest(hash) -%}
coalesce(sum({{ digest_term(hash) }}) filter (where sign > 0), 0)
        - coalesce(sum({{ digest_term(hash) }}) filter (where sign < 0), 0)
{%- endmacro %}

{# A value is a number in plain decimal, bounded as a quantity is: texts among the properties are not
   checked when they land, and an exponent in one of them would overflow the sum of a whole batch. #}
{% macro readable_number() -%}
'^-?[0-9]{1,20}([.][0-9]{1,18})?$'
{%- endmacro %}

{# Whether no sum is enough for a metric, so that its single values are kept. #}
{% macro needs_single_values() -%}
aggregation in ('unique_count', 'percentile')
{%- endmacro %}

{# What became of the single values of a set of metric events: how often each came, and the latest of it. #}
{% macro unique_value_figures() -%}
sum(sign) as event_count,
    count(*) filter (where sign < 0) as voided_count,
    max(occurred_at) filter (where sign > 0) as latest_at,
    (array_agg(fingerprint order by occurred_at desc, fingerprint desc) filter (where sign > 0))[1]
        as latest_fingerprint,
    (array_agg(removed order by occurred_at desc, fingerprint desc) filter (where sign > 0))[1] as removed
{%- endmacro %}

{# The figures of a set of metric events in which an event that is taken back has sign -1. #}
{% macro bucket_figures() -%}
sum(sign) as event_count,
    count(*) filter (where sign < 0) as voided_count,
    sum(sign * value) as value_sum,
    sum(sign * moment) as value_moment,
    min(value) filter (where sign > 0) as value_min,
    max(value) filter (where sign > 0) as value_max,
    (array_agg(value order by occurred_at desc, fingerprint desc) filter (where sign > 0))[1] as value_latest,
    max(occurred_at) filter (where sign > 0) as latest_at,
    (array_agg(fingerprint order by occurred_at desc, fingerprint desc) filter (where sign > 0))[1]
        as latest_fingerprint,
    {{ signed_digest('fingerprint') }} as event_digest,
    {{ signed_digest('payload_hash') }} as payload_digest
{%- endmacro %}

{# The figures of buckets merged: contributions into hours, hours into days, pieces into slices. #}
{% macro merged_figures(buckets) -%}
sum({{ buckets }}.event_count) as event_count,
    sum({{ buckets }}.value_sum) as value_sum,
    sum({{ buckets }}.value_moment) as value_moment,
    min({{ buckets }}.value_min) as value_min,
    max({{ buckets }}.value_max) as value_max,
    {{ latest_of(buckets, 'value_latest') }} as value_latest,
    max({{ buckets }}.latest_at) as latest_at,
    {{ latest_of(buckets, 'latest_fingerprint') }} as latest_fingerprint,
    sum({{ buckets }}.event_digest) as event_digest,
    sum({{ buckets }}.payload_digest) as payload_digest
{%- endmacro %}

{# What a column says in the latest of the buckets: by the event's time, then by its fingerprint. #}
{% macro latest_of(buckets, column) -%}
(array_agg(
        {{ buckets }}.{{ column }}
        order by {{ buckets }}.latest_at desc nulls last, {{ buckets }}.latest_fingerprint desc
    ))[1]
{%- endmacro %}

{# The columns that merged_figures and bucket_figures give, in order. #}
{% macro figure_columns() -%}
event_count, value_sum, value_moment, value_min, value_max, value_latest, latest_at, latest_fingerprint,
    event_digest, payload_digest
{%- endmacro %}

{# What becomes of a bucket that stands once it gains the row that an insert excluded: as merged_figures of both. #}
{% macro figures_gained(standing) -%}
{%- set is_later %}(excluded.latest_at, excluded.latest_fingerprint) > ({{ standing }}.latest_at, {{ standing }}.latest_fingerprint){% endset -%}
event_count = {{ standing }}.event_count + excluded.event_count,
    value_sum = {{ standing }}.value_sum + excluded.value_sum,
    value_moment = coalesce(
        {{ standing }}.value_moment + excluded.value_moment, {{ standing }}.value_moment, excluded.value_moment
    ),
    value_min = least({{ standing }}.value_min, excluded.value_min),
    value_max = greatest({{ standing }}.value_max, excluded.value_max),
    {% for column in ['value_latest', 'latest_at', 'latest_fingerprint'] -%}
    {{ column }} = case when {{ is_later }} then excluded.{{ column }} else {{ standing }}.{{ column }} end,
    {% endfor -%}
    event_digest = {{ standing }}.event_digest + excluded.event_digest,
    payload_digest = {{ standing }}.payload_digest + excluded.payload_digest
{%- endmacro %}
