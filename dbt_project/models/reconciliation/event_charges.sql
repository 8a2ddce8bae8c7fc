{{ config(materialized='table_function', meta={'guards': [
    "ledger.require_span(given_occurred_at, given_occurred_at + interval '1 microsecond')",
]}) }}

-- What an event's usage came to: for each metric that reads it the charge or the reason why there is none, and the
-- documents and drafts that count that charge's slice. A document counts what it knew: a copy that had landed when it
-- was issued, and no void.

with event as (
    select
        given_tenant_id as tenant_id,
        given_event_type as event_type,
        given_occurred_at as occurred_at,
        given_correlation_id as correlation_id
),

wanted as (
    select
        event.*,
        {{ fingerprint('event') }} as fingerprint
    from event
),

copies as (
    {{ all_copies('wanted') }}
),

-- Depends on {{ source('catalog', 'metrics') }}. Of a withdrawn event its last copy speaks.
spoken as (
    select *
    from copies
    where kind = 'event'
    order by stands_as is distinct from 'event', known_until desc nulls first, landed_hour, file_key, line_number
    limit 1
),

metered as (
    {{ metric_events('spoken', unmetered='true') }}
),

charged as (
    select
        metered.*,
        {{ hour_of('metered.occurred_at') }} as hour,
        slice.subscription_id,
        slice.charge_id,
        slice.slice_start,
        slice.slice_end
    from metered
    left join lateral (
        {{ slice_of_usage('metered.tenant_id', 'metered.metric', 'metered.dimensions', 'metered.occurred_at') }}
    ) as slice on metered.unreadable is null
)

select
    charged.metric,
    charged.dimensions,
    charged.value,
    charged.hour,
    exists(
        select 1
        from {{ source('rollups', 'indebted_hours') }} as indebted
        where indebted.tenant_id = charged.tenant_id and indebted.hour = charged.hour
    ) as is_owed,
    coalesce(
        charged.unreadable,
        case when charged.metric is null then 'unmetered' end,
        case when charged.charge_id is null then coalesce(unrated.reason, 'not_rated_yet') end
    ) as reason,
    charged.subscription_id,
    charged.charge_id,
    charged.slice_start,
    charged.slice_end,
    lines.document,
    lines.document_kind,
    lines.line_number,
    lines.kind as line_kind,
    lines.issued_at,
    lines.document is not null
    and exists (
        select 1
        from copies
        where
            copies.kind = 'event'
            and copies.known_from <= coalesce(lines.issued_at, 'infinity')
            and coalesce(copies.known_until, 'infinity') > coalesce(lines.issued_at, '-infinity')
            and (lines.is_issued or copies.known_until is null)
    )
    and not exists (
        select 1
        from copies
        where
            copies.kind = 'void'
            and copies.known_from <= coalesce(lines.issued_at, 'infinity')
            and coalesce(copies.known_until, 'infinity') > coalesce(lines.issued_at, '-infinity')
            and (lines.is_issued or copies.known_until is null)
    ) as is_counted,
    voids.document as voided_by
from charged
left join lateral (
    select unrated_usage.reason
    from {{ source('rating', 'unrated_usage') }} as unrated_usage
    where
        unrated_usage.tenant_id = charged.tenant_id
        and unrated_usage.metric = charged.metric
        and unrated_usage.dimensions = charged.dimensions
        and unrated_usage.piece_start <= charged.occurred_at
        and unrated_usage.piece_end > charged.occurred_at
        and unrated_usage.reason <> 'unreadable_value'
    limit 1
) as unrated on charged.charge_id is null and charged.metric is not null
left join {{ ref('document_lines') }} as lines
    on charged.subscription_id = lines.subscription_id
        and charged.charge_id = lines.charge_id
        and charged.slice_start = lines.slice_start
        and lines.counts_usage
left join lateral (
    select issued_invoices.invoice_number as document
    from invoices.issued_invoices as issued_invoices
    where issued_invoices.refers_to = lines.document and issued_invoices.document_kind = 'void'
) as voids on true
order by charged.metric, lines.issued_at nulls last, lines.document, lines.line_number
