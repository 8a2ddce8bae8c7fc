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

{# What a metric's figures amount to in the span of time [start, end) that they are of; without events 0.
   What sums cannot tell (unique_count, percentile) is the column from_values of the relation of that name. #}
{% macro aggregated_quantity(aggregation, figures, start, end, from_values) -%}
    coalesce(case {{ aggregation }}
        when 'count' then {{ figures }}.event_count
        when 'sum' then {{ figures }}.value_sum
        when 'min' then {{ figures }}.value_min
        when 'max' then {{ figures }}.value_max
        when 'latest' then {{ figures }}.value_latest
        when 'weighted_sum' then {{ weighted_sum(figures, start, end) }}
        else {{ from_values }}.from_values
    end, 0)
{%- endmacro %}

{# The running sum weighted by time: each value counts for the share of the span that was left when it came.
   Cut at 18 digits after the point, as every quantity is. #}
{% macro weighted_sum(figures, start, end) -%}
    trim_scale(round(
        ({{ figures }}.value_sum * extract(epoch from {{ end }}) - {{ figures }}.value_moment)
        * 1.000000000000000000000000000000 / extract(epoch from {{ end }} - {{ start }}), 18
    ))
{%- endmacro %}

{# unique_count and percentile of each key, from single values: a relation with the key's columns, aggregation,
   percentile, value, event_count, latest_at, latest_fingerprint and removed. Of a unique_count the members at the
   end: a value whose latest event removes it is none. Of a percentile the nearest rank: the smallest value that
   so many percent of the events do not exceed. Gives the key and from_values. #}
{% macro quantities_from_values(relation, key) -%}
{%- set key_columns = key | join(', ') -%}
select
        {{ key_columns }},
        count(*) filter (where is_latest and not removed)::numeric as from_values
    from (
        select
            *,
            row_number() over (
                partition by {{ key_columns }}, value
                order by latest_at desc, latest_fingerprint desc
            ) = 1 as is_latest
        from {{ relation }}
        where aggregation = 'unique_count'
    ) as members
    group by {{ key_columns }}
    union all
    select
        {{ key_columns }},
        min(number) filter (where not_larger * 100 >= percentile * all_events) as from_values
    from (
        select
            *,
            value::numeric as number,
            sum(event_count) over (partition by {{ key_columns }} order by value::numeric) as not_larger,
            sum(event_count) over (partition by {{ key_columns }}) as all_events
        from {{ relation }}
        where aggregation = 'percentile'
    ) as ranked
    group by {{ key_columns }}
{%- endmacro %}
