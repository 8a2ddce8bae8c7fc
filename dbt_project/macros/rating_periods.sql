{# The instant of a wall time in a zone: one that a clock change repeats is its first occurrence, one that it
   leaves out is moved by the change. PostgreSQL would take the second occurrence; the first has the offset
   of the day before. #}
{% macro instant_of(wall_time, zone) -%}
    {%- set later = '(' ~ wall_time ~ ' at time zone ' ~ zone ~ ')' -%}
    {%- set a_day_before = '(' ~ later ~ " - interval '24 hours') at time zone " ~ zone -%}
    {%- set first = '(' ~ later ~ ' + (' ~ wall_time ~ " - interval '24 hours' - (" ~ a_day_before ~ ')))' -%}
    case when {{ first }} at time zone {{ zone }} = {{ wall_time }} then {{ first }} else {{ later }} end
{%- endmacro %}

{# The months, and the days, of so many intervals; one of the two is 0. #}
{% macro interval_months(interval, count) -%}
    case {{ interval }} when 'month' then 1 when 'quarter' then 3 when 'half_year' then 6 when 'year' then 12 else 0 end
    * {{ count }}
{%- endmacro %}

{% macro interval_days(interval, count) -%}
    case {{ interval }} when 'day' then 1 when 'week' then 7 else 0 end * {{ count }}
{%- endmacro %}

{# How many whole steps of months (or else days) lie between two days, each month as a whole. #}
{% macro steps_apart(from_day, to_day, months, days) -%}
    floor(
        case
            when {{ months }} > 0 then {{ months_apart(from_day, to_day) }}::numeric / {{ months }}
            else ({{ to_day }} - {{ from_day }})::numeric / {{ days }}
        end
    )::integer
{%- endmacro %}

{# The months between two local days' months, whatever the days. #}
{% macro months_apart(from_day, to_day) -%}
    (
        (extract(year from {{ to_day }}) - extract(year from {{ from_day }})) * 12
        + extract(month from {{ to_day }}) - extract(month from {{ from_day }})
    )::integer
{%- endmacro %}

{# The calendar day of an instant in a zone. #}
{% macro local_day(instant, zone) -%}
    ({{ instant }} at time zone {{ zone }})::date
{%- endmacro %}
