-- The lines of issued documents and of drafts alike, with what leads from them to their usage. A line beside
-- the usage (a discount, a maximum, a minimum) says that line's usage, and counts none of its own.

with lines as (
    select
        lines.invoice_number as document,
        lines.line_number,
        true as is_issued,
        documents.document_kind,
        documents.refers_to,
        documents.issued_at,
        {{ document_line_columns('lines') }}
    from invoices.issued_invoice_lines as lines
    inner join invoices.issued_invoices as documents
        on lines.invoice_number = documents.invoice_number
    union all
    select
        lines.draft_id,
        lines.line_number,
        false,
        'draft',
        null,
        null,
        {{ document_line_columns('lines') }}
    from {{ source('invoices', 'draft_invoice_lines') }} as lines
)

select
    lines.*,
    lines.component = 'usage' and lines.document_kind not in ('void', 'write_off') as counts_usage,
    charges.charge_model,
    charges.dimension_route,
    metrics.event_type,
    metrics.aggregation,
    metrics.unit,
    case
        when metrics.recurring and lines.component = 'usage' then (
            select min(periods.period_start)
            from {{ ref('billing_periods') }} as periods
            where periods.subscription_id = lines.subscription_id
        )
        else lines.slice_start
    end as counted_from
from lines
left join {{ source('catalog', 'charges') }} as charges
    on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
left join {{ source('catalog', 'metrics') }} as metrics on lines.metric = metrics.metric
