-- The taxes of the lines that go: an outside engine's where it has any for the line, else the catalog's that
-- are in force on the last day of the line's service, in the subscription's zone; one that names the charge
-- goes before one that does not.
with lines as (
    select
        lines.draft_id,
        lines.line_number,
        lines.tenant_id,
        lines.charge_id,
        ((lines.slice_end - interval '1 microsecond') at time zone subscriptions.time_zone)::date as last_day,
        array_agg(external.tax_code) filter (where external.tax_code is not null) as external_codes,
        array_agg(external.rate) filter (where external.tax_code is not null) as external_rates
    from invoices.draft_invoice_lines as lines
    inner join catalog.subscriptions
        on lines.subscription_id = subscriptions.subscription_id
            and lines.subscription_version = subscriptions.version
    left join invoices.external_taxes as external
        on lines.draft_id = external.draft_id
            and lines.charge_id = external.charge_id
            and lines.component = external.component
            and lines.slice_start = external.slice_start
    where lines.draft_id = any(%(draft_ids)s::text[])
    group by lines.draft_id, lines.line_number, subscriptions.time_zone
)

(
    select distinct on (lines.draft_id, lines.line_number, rates.tax_code)
        lines.draft_id,
        lines.line_number,
        rates.tax_code,
        rates.rate
    from lines
    inner join catalog.tax_rates as rates
        on lines.tenant_id = rates.tenant_id
            and (rates.charge_id is null or lines.charge_id = rates.charge_id)
            and lines.last_day >= rates.effective_from
    where lines.external_codes is null
    order by
        lines.draft_id, lines.line_number, rates.tax_code, rates.charge_id is null, rates.effective_from desc
)
union all
select
    lines.draft_id,
    lines.line_number,
    external.tax_code,
    external.rate
from lines
cross join lateral unnest(lines.external_codes, lines.external_rates) as external (tax_code, rate)
order by draft_id, line_number, tax_code
