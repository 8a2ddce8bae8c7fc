{# The one place where an event's fingerprint is computed: the first 128 bits of SHA-256 over the four
   identifying fields, joined by U+001F. Control characters are refused at landing, so the joining is unambiguous. #}
{% macro fingerprint(row) -%}
    encode(substring(sha256(convert_to(concat_ws(
        U&'\001F',
        {{ row }}.tenant_id,
        {{ row }}.event_type,
        (extract(epoch from {{ row }}.occurred_at) * 1000000)::bigint,
        {{ row }}.correlation_id
    ), 'UTF8')) for 16), 'hex')::uuid
{%- endmacro %}

{# The first 128 bits of SHA-256 over quantity and properties, both in landing's canonical text; of a payload that was
   erased what it was before. #}
{% macro payload_hash(row) -%}
    coalesce({{ row }}.erased_payload_hash, encode(substring(sha256(convert_to(concat_ws(
        U&'\001F', trim_scale({{ row }}.quantity), {{ row }}.properties
    ), 'UTF8')) for 16), 'hex')::uuid)
{%- endmacro %}

{# The low 64 bits of a hash, signed: summed exactly, an additive digest of a set of events. #}
{% macro digest_term(hash) -%}
    catalog.low_64_bits({{ hash }})
{%- endmacro %}
