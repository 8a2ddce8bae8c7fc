{#
  Whether rating goes on as if nothing had been issued: no version is pinned, nothing that an invoice refers to
  must stay. Only for a transaction that is undone (what a month would cost under another catalog).
#}
{% macro rating_afresh() -%}
    coalesce(current_setting('metering.rating_afresh', true), '') = 'on'
{%- endmacro %}
