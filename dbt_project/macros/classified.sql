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

{# Of two sides that a grouping holds, a row each: the columns in which they differ, where both are there. The side
   is a condition that tells the later stage's row; a column is compared as text where min() does not know its type. #}
{% macro differing_columns(side, columns) -%}
case
        when bool_or({{ side }}) and not bool_and({{ side }}) then array_remove(array[
            {%- for column in columns %}
            case
                when
                    min({{ column }}) filter (where {{ side }}) is distinct from min({{ column }}) filter (where not {{ side }})
                    then '{{ column.split('::')[0] }}'
            end{{ ',' if not loop.last }}
            {%- endfor %}
        ], null)
        else '{}'
    end
{%- endmacro %}

{# The columns in which a frozen JSON object says something else than a row does today. #}
{% macro unlike_frozen(frozen, row, except) -%}
array(
            select pairs.name
            from jsonb_each_text({{ frozen }}) as pairs (name, value)
            where
                pairs.name not in ({% for each in except %}'{{ each }}'{{ ', ' if not loop.last }}{% endfor %})
                and case
                    when pairs.name in ('slice_start', 'slice_end', 'bill_at', 'issued_at')
                        then pairs.value::timestamptz is distinct from ({{ row }} ->> pairs.name)::timestamptz
                    else pairs.value is distinct from {{ row }} ->> pairs.name
                end
            order by pairs.name
        )
{%- endmacro %}

{# Whether the parts of a line, as a frozen JSON array has them, are other ones than its rows in a table. #}
{% macro unlike_frozen_parts(frozen, table, line, columns) -%}
(
                            select string_agg(
                                concat_ws('|'{% for each in columns %}, parts.part ->> '{{ each }}'{% endfor %}), e'\n'
                                order by parts.part ->> '{{ columns[0] }}' collate "C"
                            )
                            from jsonb_array_elements({{ frozen }}) as parts (part)
                        )
                        is distinct from (
                            select string_agg(
                                concat_ws('|'{% for each in columns %}, parts.{{ each }}{% endfor %}), e'\n'
                                order by parts.{{ columns[0] }}::text collate "C"
                            )
                            from {{ table }} as parts
                            where
                                parts.invoice_number = {{ line }}.invoice_number
                                and parts.line_number = {{ line }}.line_number
                        )
{%- endmacro %}
