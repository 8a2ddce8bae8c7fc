{# The instant of a wall time in a zone. A wall time that a clock change repeats is its first occurrence,
   one that it leaves out is moved by the change; PostgreSQL itself would take the second occurrence. #}
{% macro instant_of(wall_time, zone) -%}
    case
        when (({{ wall_time }} at time zone {{ zone }}) - interval '1 hour') at time zone {{ zone }} = {{ wall_time }}
            then ({{ wall_time }} at time zone {{ zone }}) - interval '1 hour'
        when (({{ wall_time }} at time zone {{ zone }}) - interval '30 minutes') at time zone {{ zone }} = {{ wall_time }}
            then ({{ wall_time }} at time zone {{ zone }}) - interval '30 minutes'
        else {{ wall_time }} at time zone {{ zone }}
    end
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
