{# The difference between two neighbouring stages, as a person reads it: identical; missing (the later stage
   has less), extra (it has more), modified (as many, but not the same). #}
{% macro classified(earlier_count, later_count, same) -%}
    case
        when coalesce({{ earlier_count }}, 0) > coalesce({{ later_count }}, 0) then 'missing'
        when coalesce({{ earlier_count }}, 0) < coalesce({{ later_count }}, 0) then 'extra'
        when coalesce({{ same }}, true) then 'identical'
        else 'modified'
    end
{%- endmacro %}

{# A hash of what a row itself says, the same for landing's canonical text and the ledger's jsonb. #}
{% macro content_hash(row) -%}
jsonb_hash_extended({{ row }}.properties::jsonb, hash_numeric_extended({{ row }}.quantity,
            hashtextextended({{ row }}.correlation_id, hashtextextended({{ row }}.event_type,
                (extract(epoch from {{ row }}.occurred_at) * 1000000)::bigint))))
{%- endmacro %}
