-- Each issued document against its parts as they stand today: what was frozen in its content, which its hash and the
-- chain are made of, is compared with the document's own columns (line 0), its lines, their tier slices, taxes,
-- coupons and usage. A number that is missing from a series is a missing document.
-- Issued tables go by their names: issuing comes after the drafts, which are made together with this.

with documents as (
    select
        invoices.*,
        case when pg_input_is_valid(invoices.content, 'jsonb') then invoices.content::jsonb else '{}' end as frozen
    from invoices.issued_invoices as invoices
),

frozen_lines as (
    select
        documents.billing_date,
        documents.invoice_number,
        (elements.line ->> 'line_number')::integer as line_number,
        documents.tenant_id,
        elements.line
    from documents
    cross join jsonb_array_elements(documents.frozen -> 'lines') as elements (line)
),

headers as (
    select
        documents.billing_date,
        documents.invoice_number,
        0 as line_number,
        documents.tenant_id,
        documents.total as frozen_amount,
        (
            select sum(lines.amount)
            from invoices.issued_invoice_lines as lines
            where lines.invoice_number = documents.invoice_number
        ) as amount,
        {{ unlike_frozen('documents.frozen', 'to_jsonb(documents)', ['lines', 'credits']) }}
        || array_remove(array[
            case
                when documents.content_sha256 <> encode(sha256(convert_to(documents.content, 'UTF8')), 'hex')
                    then 'content'
            end,
            case
                when
                    documents.previous_sha256 <> coalesce(
                        (
                            select previous.content_sha256
                            from invoices.issued_invoices as previous
                            where
                                previous.series = documents.series
                                and previous.series_number = documents.series_number - 1
                        ), repeat('0', 64)
                    )
                    then 'chain'
            end,
            case
                when
                    documents.frozen -> 'credits' <> coalesce(
                        (
                            select jsonb_object_agg(entries.credit_id, (-entries.amount)::text)
                            from invoices.credit_entries as entries
                            where entries.invoice_number = documents.invoice_number
                        ), '{}'
                    )
                    then 'credits'
            end
        ], null) as differs_in,
        1 as frozen_count,
        1 as found_count
    from documents
),

lines as (
    select
        frozen_lines.billing_date,
        frozen_lines.invoice_number,
        frozen_lines.line_number,
        frozen_lines.tenant_id,
        (frozen_lines.line ->> 'amount')::numeric as frozen_amount,
        lines.amount,
        case
            when lines.invoice_number is null then '{}'
            else
                {{ unlike_frozen(
                    'frozen_lines.line', 'to_jsonb(lines)', ['tiers', 'taxes', 'coupons', 'usage_sha256']
                ) }} || array_remove(array[
                    {%- for part, table, columns in [
                        ('tiers', 'issued_tier_slices', [
                            'tier', 'quantity', 'unit_amount', 'flat_amount', 'rate_percent', 'dimension_values', 'amount'
                        ]),
                        ('taxes', 'issued_invoice_taxes', ['tax_code', 'rate', 'taxable_amount', 'tax_amount']),
                        ('coupons', 'coupon_entries', ['coupon_id', 'amount', 'description']),
                    ] %}
                    case
                        when {{ unlike_frozen_parts(
                            "frozen_lines.line -> '" ~ part ~ "'", 'invoices.' ~ table, 'lines', columns
                        ) }} then '{{ part }}'
                    end,
                    {%- endfor %}
                    case
                        when
                            frozen_lines.line ->> 'usage_sha256' is distinct from (
                                select encode(sha256(convert_to(
                                    string_agg(
                                        concat_ws(
                                            ',', to_char(days.day, 'YYYY-MM-DD'), days.event_count, days.value_sum,
                                            days.event_digest, days.payload_digest
                                        ),
                                        chr(10)
                                        order by days.day
                                    ), 'UTF8'
                                )), 'hex')
                                from invoices.issued_usage as days
                                where
                                    days.invoice_number = lines.invoice_number
                                    and days.line_number = lines.line_number
                            )
                            then 'usage'
                    end
                ], null)
        end as differs_in,
        1 as frozen_count,
        case when lines.invoice_number is null then 0 else 1 end as found_count
    from frozen_lines
    left join invoices.issued_invoice_lines as lines
        on frozen_lines.invoice_number = lines.invoice_number and frozen_lines.line_number = lines.line_number
),

extra_lines as (
    select
        documents.billing_date,
        lines.invoice_number,
        lines.line_number,
        documents.tenant_id,
        null::numeric as frozen_amount,
        lines.amount,
        '{}'::text[] as differs_in,
        0 as frozen_count,
        1 as found_count
    from documents
    inner join invoices.issued_invoice_lines as lines
        on documents.invoice_number = lines.invoice_number
    where
        not exists (
            select 1
            from jsonb_array_elements(documents.frozen -> 'lines') as elements (line)
            where (elements.line ->> 'line_number')::integer = lines.line_number
        )
),

missing_documents as (
    select
        coalesce(following.billing_date, current_date) as billing_date,
        format('%s-%s', heads.series, lpad(numbers.number::text, 6, '0')) as invoice_number,
        0 as line_number,
        null as tenant_id,
        null::numeric as frozen_amount,
        null::numeric as amount,
        '{}'::text[] as differs_in,
        1 as frozen_count,
        0 as found_count
    from invoices.invoice_series as heads
    cross join lateral generate_series(1, heads.last_number) as numbers (number)
    left join lateral (
        select neighbors.billing_date
        from invoices.issued_invoices as neighbors
        where neighbors.series = heads.series
        order by neighbors.series_number < numbers.number, abs(neighbors.series_number - numbers.number)
        limit 1
    ) as following on true
    where
        not exists (
            select 1
            from invoices.issued_invoices as invoices
            where invoices.series = heads.series and invoices.series_number = numbers.number
        )
),

compared as (
    select * from headers
    union all
    select * from lines
    union all
    select * from extra_lines
    union all
    select * from missing_documents
)

select
    billing_date,
    invoice_number,
    line_number,
    tenant_id,
    frozen_amount,
    amount,
    differs_in,
    {{ classified('frozen_count', 'found_count', "differs_in = '{}' and frozen_amount is not distinct from amount") }}
        as state
from compared
