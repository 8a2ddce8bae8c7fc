{{ config(materialized='table_function') }}

-- The pieces of usage that a line counts as they are known now: whole hours, those that the rollups owe from the
-- ledger, and the parts of hours that a period's edge cuts. What a recurring metric carries from before the slice is
-- of the day before it.

with line as (
    select *
    from {{ ref('document_lines') }}
    where document = given_document and line_number = given_line_number and counts_usage
),

pieces as (
    select
        hours.hour as starts_at,
        hours.hour + interval '1 hour' as ends_at,
        hours.dimensions,
        hours.event_count,
        hours.value_sum,
        hours.event_digest,
        hours.payload_digest
    from line
    inner join {{ ref('usage_realtime') }} as hours
        on line.tenant_id = hours.tenant_id
            and line.metric = hours.metric
            and {{ hour_of('line.counted_from') }} <= hours.hour
            and line.slice_end > hours.hour
    where not exists (
        select 1
        from {{ source('rating', 'edge_usage') }} as parts
        where
            parts.tenant_id = hours.tenant_id
            and parts.metric = hours.metric
            and parts.piece_start >= hours.hour
            and parts.piece_start < hours.hour + interval '1 hour'
    )
    union all
    select
        parts.piece_start,
        parts.piece_end,
        parts.dimensions,
        parts.event_count,
        parts.value_sum,
        parts.event_digest,
        parts.payload_digest
    from line
    inner join {{ source('rating', 'edge_usage') }} as parts
        on line.tenant_id = parts.tenant_id
            and line.metric = parts.metric
            and line.counted_from <= parts.piece_start
            and line.slice_end > parts.piece_start
),

counted as (
    select
        pieces.*,
        pieces.starts_at < line.slice_start as is_carried,
        line.slice_start
    from line
    cross join pieces
    where
        pieces.dimensions @> line.dimension_route
        and (
            (pieces.starts_at < line.slice_start and pieces.starts_at >= line.counted_from)
            or (
                pieces.starts_at >= line.slice_start
                and (line.subscription_id, line.charge_id, line.slice_start) in (
                    select
                        slice.subscription_id,
                        slice.charge_id,
                        slice.slice_start
                    from (
                        {{ slice_of_usage(
                            'line.tenant_id', 'line.metric', 'pieces.dimensions', 'pieces.starts_at'
                        ) | indent(20) }}
                    ) as slice
                )
            )
        )
)

select
    case
        when is_carried then (slice_start at time zone 'UTC')::date - 1
        else (starts_at at time zone 'UTC')::date
    end as day,
    starts_at,
    ends_at,
    dimensions,
    is_carried,
    event_count,
    value_sum,
    event_digest,
    payload_digest
from counted
order by starts_at, dimensions
