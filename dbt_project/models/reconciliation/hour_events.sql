{{ config(materialized='table_function', meta={'requires': [{
    'condition': 'given_starts_at <= given_ends_at',
    'otherwise': "'The span must not end before it starts: give two instants, the earlier one first.'",
}], 'guards': [ledger_has_span()]}) }}

-- The events that a span of usage counts, event by event, with the place that each came from. The hashes are
-- computed anew from the fields, and compared with those that the digests were added up from; of a payload that was
-- erased the hash is all there is.

with standing as (
    {{ standing_events('given_tenant_id', 'given_starts_at', 'given_ends_at') }}
        and events.event_type = (
            select metrics.event_type
            from {{ source('catalog', 'metrics') }} as metrics
            where metrics.metric = given_metric
        )
),

metered as (
    {{ metric_events('standing') }}
),

chosen as (
    select *
    from metered
    where
        metric = given_metric
        and unreadable is null
        and dimensions @> given_with_dimensions
    order by occurred_at, fingerprint
    limit given_at_most
)

select
    chosen.occurred_at,
    chosen.event_type,
    chosen.correlation_id,
    chosen.dimensions,
    chosen.value,
    chosen.quantity,
    payload.properties_text,
    chosen.fingerprint,
    chosen.payload_hash,
    chosen.fingerprint = {{ fingerprint('chosen') }} as fingerprint_holds,
    erased.erased_at is not null or chosen.payload_hash = encode(substring(sha256(convert_to(concat_ws(
        U&'\001F', trim_scale(chosen.quantity), payload.properties_text
    ), 'UTF8')) for 16), 'hex')::uuid as payload_holds,
    chosen.landed_hour,
    chosen.file_id,
    files.file_key,
    chosen.line_number,
    erased.erased_at
from chosen
cross join lateral (
    select reconciliation.canonical_text(chosen.properties) as properties_text
) as payload
left join {{ source('landing', 'files') }} as files on chosen.file_id = files.file_id
left join (
    select
        requests.correlation_id,
        erasures.erased_at
    from {{ source('landing', 'erased_requests') }} as requests
    inner join {{ source('landing', 'erasures') }} as erasures on requests.erasure_id = erasures.erasure_id
    where requests.tenant_id = given_tenant_id
) as erased on chosen.correlation_id = erased.correlation_id
order by chosen.occurred_at, chosen.fingerprint
