{{ config(materialized='posting', full_refresh=false) }}

-- Looks through the newest lookback of the ledger, {{ ref('usage_events') }}, for events that a producer
-- seems to have stamped anew. Compared by a hash of the three fields, so that the grouping stays small.

-- From where on: the lookback before the newest hour that landed anything, be its files there still or not.
create temporary table looked_through on commit drop as
select coalesce(max(landed_hour) - catalog.setting_hours('lookback_hours'), '-infinity') as since
from {{ source('landing', 'files') }}
where superseded_by is null;

select ledger.require_span(since, 'infinity')
from looked_through;

create temporary table recent on commit drop as
select
    events.*,
    hashtextextended(concat_ws(U&'\001F', events.tenant_id, events.event_type, events.correlation_id), 0)
        as identity
from ledger.usage_events as events
where
    events.occurred_at >= (select looked_through.since from looked_through)
    and not exists (
        select 1
        from ledger.voids
        where
            voids.tenant_id = events.tenant_id
            and voids.occurred_at = events.occurred_at
            and voids.fingerprint = events.fingerprint
    );

-- Looked for anew; and older ones that are voided or withdrawn by now. Nothing is withdrawn of a day that is archived.
delete from ledger.suspects
where
    occurred_at >= (select looked_through.since from looked_through)
    or exists (
        select 1
        from ledger.voids
        where
            voids.tenant_id = suspects.tenant_id
            and voids.occurred_at = suspects.occurred_at
            and voids.fingerprint = suspects.fingerprint
    )
    or (
        (occurred_at at time zone 'UTC')::date not in (
            select archived.day from {{ source('ledger', 'archived_days') }} as archived
        )
        and not exists (
            select 1
            from ledger.usage_events as events
            where
                events.tenant_id = suspects.tenant_id
                and events.occurred_at = suspects.occurred_at
                and events.fingerprint = suspects.fingerprint
        )
    );

insert into ledger.suspects
with repeated as (
    select identity
    from recent
    group by identity
    having count(*) > 1
),

in_order as (
    select
        recent.*,
        first_value(recent.occurred_at) over same_request as first_occurred_at,
        first_value(recent.fingerprint) over same_request as first_fingerprint,
        row_number() over same_request as place
    from recent
    inner join repeated on recent.identity = repeated.identity
    window same_request as (
        partition by recent.tenant_id, recent.event_type, recent.correlation_id
        order by recent.occurred_at, recent.fingerprint
    )
)

select
    tenant_id,
    event_type,
    correlation_id,
    occurred_at,
    fingerprint,
    first_occurred_at,
    first_fingerprint,
    quantity,
    landed_hour,
    file_id,
    line_number
from in_order
where place > 1
order by occurred_at, fingerprint
