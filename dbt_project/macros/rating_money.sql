{# The one place where money is rounded: half away from zero, to the currency's minor digits. #}
{% macro round_money(amount, minor_digits) -%}
    round({{ amount }}, {{ minor_digits }})
{%- endmacro %}

{# A share of an amount by days. Twenty more digits are carried than the amount has, so that the quotient
   is cut far below any minor unit and rounding happens once, later. #}
{% macro prorated(amount, days, full_days) -%}
    case
        when {{ days }} = {{ full_days }} then {{ amount }}
        else trim_scale({{ amount }} * {{ days }} * 1.00000000000000000000 / {{ full_days }})
    end
{%- endmacro %}

{# What a metric's figures amount to; without events 0. #}
{% macro aggregated_quantity(aggregation, figures) -%}
    coalesce(case {{ aggregation }}
        when 'count' then {{ figures }}.event_count
        when 'sum' then {{ figures }}.value_sum
        when 'min' then {{ figures }}.value_min
        when 'max' then {{ figures }}.value_max
        when 'latest' then {{ figures }}.value_latest
    end, 0)
{%- endmacro %}
