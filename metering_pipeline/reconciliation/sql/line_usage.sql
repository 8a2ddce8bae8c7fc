-- The usage of lines, read anew, as far as it had landed before an instant: each event in its order or, for a
-- line that is not by_event, what was used of each combination of dimensions: whole hours by what the landing hours
-- contributed, parts of hours from the ledger. Each row with the digests of its events: where some are archived the
-- digests are not those of the line, and its usage can no longer be told.
with
lines as (
    select *
    from unnest(
        %(places)s::integer[], %(tenants)s::text[], %(metrics)s::text[], %(starts)s::timestamptz[],
        %(ends)s::timestamptz[], %(routes)s::text[], %(by_event)s::boolean[], %(landed_before)s::timestamptz[]
    ) as lines (place, tenant_id, metric, slice_start, slice_end, route, by_event, landed_before)
),

cut_lines as (
    select
        lines.*,
        date_bin('1 hour', slice_start, '2000-01-01 00:00:00+00') as first_hour,
        date_bin('1 hour', slice_end, '2000-01-01 00:00:00+00') as last_hour
    from lines
    where not by_event
),

spans as (
    select
        place,
        slice_start as span_start,
        slice_end as span_end
    from lines
    where by_event
    union all
    select
        place,
        slice_start,
        least(first_hour + interval '1 hour', slice_end)
    from cut_lines
    where first_hour < slice_start
    union all
    select
        place,
        last_hour,
        slice_end
    from cut_lines
    where last_hour < slice_end and last_hour >= slice_start
),

events as (
    select
        lines.place,
        lines.route,
        events.occurred_at,
        events.fingerprint,
        events.payload_hash,
        (
            select coalesce(jsonb_object_agg(names.name, events.properties ->> names.name), '{}')
            from unnest(metrics.dimensions) as names (name)
        ) as dimensions,
        case
            when metrics.aggregation = 'count' then 1
            when metrics.value_property is null then events.quantity
            when (events.properties ->> metrics.value_property) ~ '^(-|)[0-9]{1,20}(|[.][0-9]{1,18})$'
                then (events.properties ->> metrics.value_property)::numeric
        end as quantity
    from spans
    inner join lines on spans.place = lines.place
    inner join catalog.metrics on lines.metric = metrics.metric
    inner join ledger.usage_events as events
        on lines.tenant_id = events.tenant_id
            and metrics.event_type = events.event_type
            and spans.span_start <= events.occurred_at
            and spans.span_end > events.occurred_at
            and lines.landed_before > events.landed_hour
            and metrics.filter <@ events.properties
    where not exists (
        select 1
        from ledger.voids
        where
            voids.occurred_at = events.occurred_at
            and voids.fingerprint = events.fingerprint
            and voids.landed_hour < lines.landed_before
    )
)

select
    place,
    occurred_at,
    fingerprint,
    dimensions,
    quantity,
    catalog.low_64_bits(fingerprint)::numeric as event_digest,
    catalog.low_64_bits(payload_hash)::numeric as payload_digest
from events
where
    quantity is not null
    and dimensions @> route::jsonb
    and not exists (
        select 1
        from jsonb_each_text(dimensions) as each
        where octet_length(each.value) > 255
    )
union all
select
    cut_lines.place,
    null,
    null,
    hours.dimensions,
    case metrics.aggregation when 'count' then sum(hours.event_count) else sum(hours.value_sum) end,
    sum(hours.event_digest),
    sum(hours.payload_digest)
from cut_lines
inner join catalog.metrics on cut_lines.metric = metrics.metric
inner join rollups.usage_contributions as hours
    on cut_lines.tenant_id = hours.tenant_id
        and cut_lines.metric = hours.metric
        and cut_lines.slice_start <= hours.hour
        and cut_lines.slice_end >= hours.hour + interval '1 hour'
        and cut_lines.landed_before > hours.landed_hour
        and cut_lines.route::jsonb <@ hours.dimensions
group by cut_lines.place, hours.dimensions, metrics.aggregation
order by place, occurred_at, fingerprint
