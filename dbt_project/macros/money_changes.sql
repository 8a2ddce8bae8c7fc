{#
  What the rating models change in money: the drafts' and the rated lines as they were before, kept in
  temporary tables of the session (remember_money) and compared with what stands in the end.
#}
{% macro remember_money() -%}
create temporary table former_draft_lines as
select *
from invoices.draft_invoice_lines;

create temporary table former_rated_lines as
select *
from rating.rated_lines;
{%- endmacro %}

{# The drafts whose lines change: what each comes to before and after, and the issued documents that it adjusts. #}
{% macro draft_changes() -%}
with lines as (
    {{ _compared_draft_lines() }}
),

touched as (
    select distinct draft_id
    from lines
    where amount_before <> amount_after
)

select
    lines.draft_id,
    lines.tenant_id,
    lines.currency,
    sum(lines.amount_before)::text as total_before,
    sum(lines.amount_after)::text as total_after,
    count(*) filter (where lines.amount_before <> lines.amount_after) as lines_changed,
    coalesce(string_agg(
        distinct adjusted.invoice_number, ', ' order by adjusted.invoice_number
    ) filter (where lines.amount_before <> lines.amount_after), '') as adjusts
from lines
inner join touched on lines.draft_id = touched.draft_id
left join lateral (
    select issued.invoice_number
    from invoices.issued_invoice_lines as issued
    where
        issued.subscription_id = lines.subscription_id
        and issued.charge_id = lines.charge_id
        and issued.component = lines.component
        and issued.slice_start = lines.slice_start
        and issued.currency = lines.currency
    order by issued.invoice_number desc
    limit 1
) as adjusted on true
group by lines.draft_id, lines.tenant_id, lines.currency
order by abs(sum(lines.amount_after) - sum(lines.amount_before)) desc, lines.draft_id asc
{%- endmacro %}

{# The lines that change, of so many drafts: the parameter $1 is the array of their names. #}
{% macro draft_line_changes() -%}
select
    draft_id,
    charge_id,
    component,
    slice_start,
    slice_end,
    quantity_before::text,
    quantity_after::text,
    amount_before::text,
    amount_after::text
from (
    {{ _compared_draft_lines() }}
) as lines
where amount_before <> amount_after and draft_id = any(string_to_array($1::text, e'\n'))
order by draft_id, slice_start, charge_id, component
{%- endmacro %}

{# The rated lines whose slice starts in [$1, $2), of the tenants $3 (a line each), as they were and as they are. #}
{% macro rated_lines_compared() -%}
{% for relation, which in [('former_rated_lines', 'before'), ('rating.rated_lines', 'after')] -%}
select
    '{{ which }}' as side,
    lines.tenant_id,
    lines.subscription_id,
    lines.charge_id,
    coalesce(charges.description, lines.charge_id) as description,
    lines.component,
    lines.metric,
    lines.slice_start,
    lines.slice_end,
    lines.quantity::text,
    lines.amount::text,
    lines.currency
from {{ relation }} as lines
left join catalog.charges on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
where
    lines.slice_start >= $1::timestamptz
    and lines.slice_start < $2::timestamptz
    and lines.tenant_id = any(string_to_array($3::text, e'\n'))
{{ 'union all' if not loop.last }}
{% endfor -%}
order by tenant_id, subscription_id, slice_start, charge_id, component
{%- endmacro %}

{# What the rated lines whose slice starts in [$1, $2) come to for each tenant, before and after. #}
{% macro rated_totals_compared() -%}
select
    tenant_id,
    currency,
    count(*) filter (where coalesce(former.amount, 0) <> coalesce(standing.amount, 0)) as lines,
    coalesce(sum(former.amount), 0)::text as total_before,
    coalesce(sum(standing.amount), 0)::text as total_after
from (
    select *
    from former_rated_lines
    where slice_start >= $1::timestamptz and slice_start < $2::timestamptz
) as former
full join (
    select *
    from rating.rated_lines
    where slice_start >= $1::timestamptz and slice_start < $2::timestamptz
) as standing using (tenant_id, subscription_id, charge_id, component, slice_start, currency)
group by tenant_id, currency
order by tenant_id, currency
{%- endmacro %}

{# A line that moves to another draft leaves the one and comes to the other. #}
{% macro _compared_draft_lines() -%}
select
        draft_id,
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        coalesce(former.tenant_id, standing.tenant_id) as tenant_id,
        coalesce(standing.slice_end, former.slice_end) as slice_end,
        coalesce(former.quantity, 0) as quantity_before,
        coalesce(standing.quantity, 0) as quantity_after,
        coalesce(former.amount, 0) as amount_before,
        coalesce(standing.amount, 0) as amount_after
    from former_draft_lines as former
    full join invoices.draft_invoice_lines as standing
        using (draft_id, subscription_id, charge_id, component, slice_start, currency)
{%- endmacro %}
