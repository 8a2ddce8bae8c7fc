{{ config(materialized='table_function') }}

-- A document knows what it was issued with, whatever has landed since; a draft what it was drawn up from.

with known as (
    select
        day,
        event_count,
        value_sum,
        event_digest,
        payload_digest
    from invoices.issued_usage
    where invoice_number = given_document and line_number = given_line_number
    union all
    select
        days.day,
        days.event_count,
        days.value_sum,
        days.event_digest,
        days.payload_digest
    from {{ ref('document_lines') }} as lines
    inner join {{ source('rating', 'line_usage') }} as days
        on lines.subscription_id = days.subscription_id
            and lines.charge_id = days.charge_id
            and lines.slice_start = days.slice_start
    where
        lines.document = given_document
        and lines.line_number = given_line_number
        and not lines.is_issued
        and lines.counts_usage
),

counted as (
    select
        day,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
    from {{ ref('line_hours') }}(given_document, given_line_number)
    group by day
)

select
    day,
    coalesce(known.event_count, 0) as known_count,
    coalesce(known.value_sum, 0) as known_sum,
    coalesce(known.event_digest, 0) as known_event_digest,
    coalesce(known.payload_digest, 0) as known_payload_digest,
    coalesce(counted.event_count, 0) as hourly_count,
    coalesce(counted.value_sum, 0) as hourly_sum,
    coalesce(counted.event_digest, 0) as hourly_event_digest,
    coalesce(counted.payload_digest, 0) as hourly_payload_digest,
    {{ classified(
        'known.event_count',
        'counted.event_count',
        '(known.value_sum, known.event_digest, known.payload_digest)
            = (counted.value_sum, counted.event_digest, counted.payload_digest)'
    ) }} as state
from known
full join counted using (day)
order by day
