-- Issued documents of a range of billing dates with their faults: content, lines, usage, amounts and the hash
-- chain; a void or a write-off must be the negation of the document that it is about.
with
documents as materialized (
    select *
    from invoices.issued_invoices
    where
        billing_date >= (%(window_start)s::timestamptz at time zone 'UTC')::date
        and billing_date < (%(window_end)s::timestamptz at time zone 'UTC')
),

-- The chain: each document with the one before it in its series.
chained as (
    select
        invoice_number,
        lag(series_number) over series_order as previous_number,
        lag(content_sha256) over series_order as previous_content_sha256,
        lag(tenant_id) over series_order as previous_tenant_id
    from invoices.issued_invoices
    window series_order as (partition by series order by series_number)
),

usage_sums as (
    select
        days.invoice_number,
        days.line_number,
        sum(days.event_count) as event_count,
        sum(days.event_digest) as event_digest,
        sum(days.payload_digest) as payload_digest,
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
    from invoices.issued_usage as days
    inner join documents on days.invoice_number = documents.invoice_number
    group by days.invoice_number, days.line_number
),

tiers as (
    select
        slices.invoice_number,
        slices.line_number,
        jsonb_agg(
            jsonb_build_object(
                'tier', slices.tier,
                'quantity', slices.quantity::text,
                'unit_amount', slices.unit_amount::text,
                'flat_amount', slices.flat_amount::text,
                'rate_percent', slices.rate_percent::text,
                'dimension_values', slices.dimension_values,
                'amount', slices.amount::text
            )
            order by slices.tier
        ) as content
    from invoices.issued_tier_slices as slices
    inner join documents on slices.invoice_number = documents.invoice_number
    group by slices.invoice_number, slices.line_number
),

taxes as (
    select
        taxes.invoice_number,
        taxes.line_number,
        sum(taxes.tax_amount) as amount,
        jsonb_agg(
            jsonb_build_object(
                'tax_code', taxes.tax_code,
                'rate', taxes.rate::text,
                'taxable_amount', taxes.taxable_amount::text,
                'tax_amount', taxes.tax_amount::text
            )
            order by taxes.tax_code collate "C"
        ) as content
    from invoices.issued_invoice_taxes as taxes
    inner join documents on taxes.invoice_number = documents.invoice_number
    group by taxes.invoice_number, taxes.line_number
),

coupons as (
    select
        entries.invoice_number,
        entries.line_number,
        sum(entries.amount) as amount,
        jsonb_agg(
            jsonb_build_object(
                'coupon_id', entries.coupon_id,
                'amount', entries.amount::text,
                'description', entries.description
            )
            order by entries.coupon_id collate "C"
        ) as content
    from invoices.coupon_entries as entries
    inner join documents on entries.invoice_number = documents.invoice_number
    group by entries.invoice_number, entries.line_number
),

credits as (
    select
        entries.invoice_number,
        sum(-entries.amount) as amount,
        jsonb_object_agg(entries.credit_id, (-entries.amount)::text) as content
    from invoices.credit_entries as entries
    inner join documents on entries.invoice_number = documents.invoice_number
    group by entries.invoice_number
),

overdrawn as (
    select distinct entries.invoice_number
    from invoices.credit_entries as entries
    inner join documents on entries.invoice_number = documents.invoice_number
    where (
        select sum(moves.amount)
        from invoices.credit_entries as moves
        where moves.credit_id = entries.credit_id
    ) < 0
),

-- Taxes that are not the rate of what they are of: the line, with what lowers it, less its coupons;
-- a minimum stands alone.
net_lines as (
    select
        lines.invoice_number,
        lines.line_number,
        lines.charge_id,
        lines.slice_start,
        lines.component = 'minimum' as stands_alone,
        lines.amount - coalesce(coupons.amount, 0) as amount
    from invoices.issued_invoice_lines as lines
    inner join documents on lines.invoice_number = documents.invoice_number
    left join coupons
        on lines.invoice_number = coupons.invoice_number and lines.line_number = coupons.line_number
),

taxables as (
    select
        invoice_number,
        line_number,
        sum(amount) over (partition by invoice_number, charge_id, slice_start, stands_alone) as amount
    from net_lines
),

wrong_taxes as (
    select distinct taxes.invoice_number
    from invoices.issued_invoice_taxes as taxes
    inner join documents on taxes.invoice_number = documents.invoice_number
    inner join taxables
        on taxes.invoice_number = taxables.invoice_number and taxes.line_number = taxables.line_number
    where
        documents.document_kind <> 'write_off'
        and (
            taxes.taxable_amount <> taxables.amount
            or taxes.tax_amount <> round(taxes.taxable_amount * taxes.rate * 0.01, documents.minor_digits)
        )
),

-- A void or a write-off against the document that it is about: every amount, and every line's.
unlike_reversals as (
    select documents.invoice_number
    from documents
    inner join invoices.issued_invoices as earlier on documents.refers_to = earlier.invoice_number
    where
        (
            documents.total, documents.coupon_amount, documents.tax_amount, documents.credit_amount,
            documents.tenant_id, documents.currency
        ) <> (
            -earlier.total, -earlier.coupon_amount, -earlier.tax_amount, -earlier.credit_amount,
            earlier.tenant_id, earlier.currency
        )
    union
    select documents.invoice_number
    from documents
    inner join invoices.issued_invoice_lines as earlier on documents.refers_to = earlier.invoice_number
    left join invoices.issued_invoice_lines as lines
        on documents.invoice_number = lines.invoice_number and earlier.line_number = lines.line_number
    where lines.amount is distinct from -earlier.amount
),

lines as (
    select
        lines.invoice_number,
        count(*) as line_count,
        max(lines.line_number) as last_line,
        sum(lines.amount) as amount,
        sum(taxes.amount) as tax_amount,
        sum(coupons.amount) as coupon_amount,
        count(*) filter (
            where
                documents.refers_to is null
                -- these say the usage of the line that they are beside, and pin none of their own
                and lines.component not in ('discount', 'maximum', 'minimum')
                and (
                    lines.event_count <> coalesce(usage_sums.event_count, 0)
                    or lines.event_digest <> coalesce(usage_sums.event_digest, 0)
                    or lines.payload_digest <> coalesce(usage_sums.payload_digest, 0)
                )
        ) as lines_unlike_usage,
        count(*) filter (
            where lines.tenant_id <> documents.tenant_id or lines.currency <> documents.currency
        ) as foreign_lines,
        jsonb_agg(
            jsonb_build_object(
                'line_number', lines.line_number,
                'subscription_id', lines.subscription_id,
                'tenant_id', lines.tenant_id,
                'charge_id', lines.charge_id,
                'charge_version', lines.charge_version,
                'subscription_version', lines.subscription_version,
                'component', lines.component,
                'metric', lines.metric,
                'slice_start', to_char(lines.slice_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'slice_end', to_char(lines.slice_end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'quantity', lines.quantity::text,
                'event_count', lines.event_count,
                'event_digest', lines.event_digest::text,
                'payload_digest', lines.payload_digest::text,
                'rated_amount', lines.rated_amount::text,
                'amount', lines.amount::text,
                'currency', lines.currency,
                'kind', lines.kind,
                'description', lines.description,
                'charge_model', lines.charge_model,
                'package_size', lines.package_size::text,
                'aggregation', lines.aggregation,
                'unit', lines.unit,
                'usage_sha256', usage_sums.usage_sha256,
                'tiers', coalesce(tiers.content, '[]'),
                'taxes', coalesce(taxes.content, '[]'),
                'coupons', coalesce(coupons.content, '[]')
            )
            order by lines.line_number
        ) as content
    from invoices.issued_invoice_lines as lines
    inner join documents on lines.invoice_number = documents.invoice_number
    left join usage_sums
        on lines.invoice_number = usage_sums.invoice_number and lines.line_number = usage_sums.line_number
    left join tiers
        on lines.invoice_number = tiers.invoice_number and lines.line_number = tiers.line_number
    left join taxes
        on lines.invoice_number = taxes.invoice_number and lines.line_number = taxes.line_number
    left join coupons
        on lines.invoice_number = coupons.invoice_number and lines.line_number = coupons.line_number
    group by lines.invoice_number
)

select
    documents.billing_date,
    documents.tenant_id,
    documents.invoice_number,
    documents.series,
    documents.series_number,
    chained.previous_tenant_id,
    array_remove(array[
        case
            when documents.content_sha256 <> encode(sha256(convert_to(documents.content, 'UTF8')), 'hex')
                then 'content does not have its hash'
        end,
        case
            when not pg_input_is_valid(documents.content, 'jsonb') then 'content is not JSON'
            when
                documents.content::jsonb <> jsonb_build_object(
                    'invoice_number', documents.invoice_number,
                    'series', documents.series,
                    'series_number', documents.series_number,
                    'document_kind', documents.document_kind,
                    'tenant_id', documents.tenant_id,
                    'subscription_id', documents.subscription_id,
                    'legal_entity', documents.legal_entity,
                    'currency', documents.currency,
                    'total', documents.total::text,
                    'billing_date', to_char(documents.billing_date, 'YYYY-MM-DD'),
                    'bill_at', to_char(documents.bill_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'catalog_version', documents.catalog_version,
                    'issued_at', to_char(documents.issued_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'previous_sha256', documents.previous_sha256,
                    'coupon_amount', documents.coupon_amount::text,
                    'tax_amount', documents.tax_amount::text,
                    'credit_amount', documents.credit_amount::text,
                    'amount_due', documents.amount_due::text,
                    'refers_to', documents.refers_to,
                    'decided_by', documents.decided_by,
                    'reason', documents.reason,
                    'tenant_name', documents.tenant_name,
                    'legal_entity_name', documents.legal_entity_name,
                    'plan_name', documents.plan_name,
                    'time_zone', documents.time_zone,
                    'minor_digits', documents.minor_digits,
                    'lines', coalesce(lines.content, '[]'),
                    'credits', coalesce(credits.content, '{}')
                ) then 'content differs from the columns, the lines or their usage'
        end,
        case when documents.total <> coalesce(lines.amount, 0) then 'lines do not add up to the total' end,
        case
            when coalesce(lines.last_line, 0) <> coalesce(lines.line_count, 0) then 'line numbers have a gap'
        end,
        case when lines.foreign_lines > 0 then 'a line has another tenant or currency' end,
        case
            when documents.tax_amount <> coalesce(lines.tax_amount, 0) then 'taxes do not add up to the tax'
        end,
        case when wrong_taxes.invoice_number is not null then 'a tax is not the rate of its line' end,
        case
            when
                documents.document_kind <> 'write_off'
                and documents.coupon_amount <> coalesce(lines.coupon_amount, 0)
                then 'coupon entries do not add up'
        end,
        case
            when
                documents.document_kind <> 'write_off' and documents.credit_amount <> coalesce(credits.amount, 0)
                then 'credit entries do not add up'
        end,
        case
            when
                documents.document_kind = 'write_off'
                and (lines.coupon_amount is not null or credits.amount is not null)
                then 'a write-off gives something back'
        end,
        case when overdrawn.invoice_number is not null then 'a credit of it is overdrawn' end,
        case
            when
                documents.amount_due
                <> documents.total - documents.coupon_amount + documents.tax_amount - documents.credit_amount
                then 'what is due does not add up'
        end,
        case
            when unlike_reversals.invoice_number is not null
                then 'it is not the negation of the document that it is about'
        end,
        case when lines.lines_unlike_usage > 0 then 'the pinned usage does not add up to its line' end,
        case
            when
                documents.document_kind in ('invoice', 'credit_note')
                and (documents.document_kind = 'credit_note') <> (documents.total < 0)
                then 'the kind of document does not fit its total'
        end
    ], null) as faults,
    documents.previous_sha256 <> coalesce(chained.previous_content_sha256, repeat('0', 64)) as chain_broken,
    documents.series_number <> coalesce(chained.previous_number, 0) + 1 as number_missing
from documents
inner join chained on documents.invoice_number = chained.invoice_number
left join lines on documents.invoice_number = lines.invoice_number
left join credits on documents.invoice_number = credits.invoice_number
left join overdrawn on documents.invoice_number = overdrawn.invoice_number
left join wrong_taxes on documents.invoice_number = wrong_taxes.invoice_number
left join unlike_reversals on documents.invoice_number = unlike_reversals.invoice_number
order by documents.billing_date, documents.series, documents.series_number
