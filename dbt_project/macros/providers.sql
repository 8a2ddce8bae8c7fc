{# The first instant of a UTC month and of the next, in any session's zone. #}
{% macro utc_month_start(instant) -%}
date_trunc('month', {{ instant }}, 'UTC')
{%- endmacro %}

{% macro utc_month_end(instant) -%}
date_add(date_trunc('month', {{ instant }}, 'UTC'), '1 month', 'UTC')
{%- endmacro %}

{# What the figures of a metric's hours come to for all of them together. #}
{% macro quantity_of_hours(aggregation, hours) -%}
case {{ aggregation }}
            when 'count' then sum({{ hours }}.event_count)
            when 'sum' then sum({{ hours }}.value_sum)
            when 'min' then min({{ hours }}.value_min)
            when 'max' then max({{ hours }}.value_max)
            when 'latest' then {{ latest_of(hours, 'value_latest') }}
        end
{%- endmacro %}

{# The same of values that stand for spans of time, the latest by the span's start. #}
{% macro quantity_of_pieces(aggregation, value, starts_at) -%}
case {{ aggregation }}
            when 'min' then min({{ value }})
            when 'max' then max({{ value }})
            when 'latest' then (array_agg({{ value }} order by {{ starts_at }} desc) filter (where {{ value }} is not null))[1]
            else sum({{ value }})
        end
{%- endmacro %}
