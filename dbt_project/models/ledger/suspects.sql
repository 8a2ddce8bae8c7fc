{{ config(materialized='posting', full_refresh=false) }}

{% set columns = [
    'tenant_id', 'event_type', 'correlation_id', 'occurred_at', 'fingerprint',
    'quantity', 'landed_hour', 'file_id', 'line_number',
] -%}
-- Looks through the newest lookback of the ledger, {{ ref('usage_events') }}, for events that a producer
-- seems to have stamped anew. What is listed stays, however old, until one of the two is voided or withdrawn:
-- both are billed, and time does not change that.

-- From where on: the lookback before the newest hour that landed anything, be its files there still or not.
create temporary table looked_through on commit drop as
select coalesce(max(landed_hour) - catalog.setting_hours('lookback_hours'), '-infinity') as since
from {{ source('landing', 'files') }}
where superseded_by is null;

select ledger.require_span(since, 'infinity')
from looked_through;

-- 1. What stands of that lookback, and of what is listed and older. Nothing is withdrawn of a day that is archived:
-- of such a day the list itself says what stands. The first of a request needs no more than its place in the order.
-- Compared by a hash of the three fields, so that the grouping stays small.
create temporary table standing on commit drop as
with listed as (
    select
        {{ columns | join(',\n        ') }}
    from ledger.suspects
    union all
    select distinct
        tenant_id,
        event_type,
        correlation_id,
        first_occurred_at,
        first_fingerprint,
        null::numeric,
        null::timestamptz,
        null::bigint,
        null::bigint
    from ledger.suspects
),

looked_at as (
    select
        {{ columns | join(',\n        ') }}
    from ledger.usage_events
    where occurred_at >= (select looked_through.since from looked_through)
    union all
    select
        {% for column in columns[:5] -%}
        listed.{{ column }},
        {% endfor -%}
        {% for column in columns[5:] -%}
        coalesce(events.{{ column }}, listed.{{ column }}){{ ',' if not loop.last }}
        {% endfor %}
    from listed
    left join ledger.usage_events as events
        on
            listed.tenant_id = events.tenant_id
            and listed.occurred_at = events.occurred_at
            and listed.fingerprint = events.fingerprint
    where
        listed.occurred_at < (select looked_through.since from looked_through)
        and (
            events.fingerprint is not null
            or (listed.occurred_at at time zone 'UTC')::date in (
                select archived.day from {{ source('ledger', 'archived_days') }} as archived
            )
        )
)

select
    looked_at.*,
    hashtextextended(
        concat_ws(U&'\001F', looked_at.tenant_id, looked_at.event_type, looked_at.correlation_id), 0
    ) as identity
from looked_at
where not exists (
    select 1
    from ledger.voids
    where
        voids.tenant_id = looked_at.tenant_id
        and voids.occurred_at = looked_at.occurred_at
        and voids.fingerprint = looked_at.fingerprint
);

-- 2. Of each request all but the first.
create temporary table found on commit drop as
with repeated as (
    select identity
    from standing
    group by identity
    having count(*) > 1
),

in_order as (
    select
        standing.*,
        first_value(standing.occurred_at) over same_request as first_occurred_at,
        first_value(standing.fingerprint) over same_request as first_fingerprint,
        row_number() over same_request as place
    from standing
    inner join repeated on standing.identity = repeated.identity
    window same_request as (
        partition by standing.tenant_id, standing.event_type, standing.correlation_id
        order by standing.occurred_at, standing.fingerprint
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
where place > 1;

-- 3. What is listed as it should be keeps its row.
delete from ledger.suspects
using (
    select * from ledger.suspects
    except
    select * from found
) as outdated
where
    suspects.tenant_id = outdated.tenant_id
    and suspects.occurred_at = outdated.occurred_at
    and suspects.fingerprint = outdated.fingerprint;

insert into ledger.suspects
select * from found
order by occurred_at, fingerprint
on conflict do nothing
