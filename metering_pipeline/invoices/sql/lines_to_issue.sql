-- The lines of the drafts that go, each with the hash of the usage by day that it pins, and with how the catalog
-- says now that it is measured and priced.
with usage_hashes as (
    select
        lines.draft_id,
        lines.line_number,
        encode(sha256(convert_to(
            string_agg(
                concat_ws(
                    ',', to_char(days.day, 'YYYY-MM-DD'), days.event_count, days.value_sum,
                    days.event_digest, days.payload_digest
                ),
                chr(10)
                order by days.day
            ), 'UTF8'
        )), 'hex') as usage_sha256
    from invoices.draft_invoice_lines as lines
    inner join rating.line_usage as days
        on lines.subscription_id = days.subscription_id
            and lines.charge_id = days.charge_id
            and lines.slice_start = days.slice_start
    where lines.draft_id = any(%(draft_ids)s::text[]) and lines.component = 'usage'
    group by lines.draft_id, lines.line_number
)

select
    lines.draft_id,
    lines.line_number,
    lines.subscription_id,
    lines.tenant_id,
    lines.charge_id,
    lines.charge_version,
    lines.subscription_version,
    lines.component,
    lines.metric,
    lines.slice_start,
    lines.slice_end,
    lines.quantity,
    lines.event_count,
    lines.event_digest,
    lines.payload_digest,
    lines.rated_amount,
    lines.amount,
    lines.currency,
    lines.kind,
    lines.description,
    charges.charge_model,
    charges.package_size,
    metrics.aggregation,
    metrics.unit,
    usage_hashes.usage_sha256
from invoices.draft_invoice_lines as lines
left join catalog.charges
    on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
left join catalog.metrics on lines.metric = metrics.metric
left join usage_hashes using (draft_id, line_number)
where lines.draft_id = any(%(draft_ids)s::text[])
order by lines.draft_id, lines.line_number
