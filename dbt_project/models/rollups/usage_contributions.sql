{{ config(materialized='posting', full_refresh=false) }}

-- Rewrites the contributions of the pending keys, from the ledger, and nothing else. On time, late and
-- early are the same thing: the work follows what changed. Depends on {{ ref('usage_events') }}, and on
-- what is to be metered: {{ source('catalog', 'metrics') }}.

-- 1. Take the debt within the lookback, and what was released beyond it.
create temporary table taken on commit drop as
select
    landed_hour,
    tenant_id,
    event_type,
    event_hour
from ledger.pending
where
    landed_hour < {{ window_end() }}
    and (released or landed_hour - event_hour <= catalog.setting_hours('lookback_hours'));

delete from ledger.pending
using taken
where
    pending.landed_hour = taken.landed_hour
    and pending.tenant_id = taken.tenant_id
    and pending.event_type = taken.event_type
    and pending.event_hour = taken.event_hour;

analyze taken;

-- 2. The ledger's events of these keys; a voided one is taken back in the later of the two landing hours.
create temporary table booked on commit drop as
with bounds as (
    select
        min(landed_hour) as first_landed,
        max(landed_hour) as last_landed,
        min(event_hour) as first_event,
        max(event_hour) + interval '1 hour' as end_event
    from taken
),

signed as (
    select
        events.landed_hour as booked_hour,
        1 as sign,
        events.*
    from ledger.usage_events as events
    where
        events.landed_hour >= (select bounds.first_landed from bounds)
        and events.landed_hour <= (select bounds.last_landed from bounds)
        and events.occurred_at >= (select bounds.first_event from bounds)
        and events.occurred_at < (select bounds.end_event from bounds)
    union all
    select
        greatest(events.landed_hour, voids.landed_hour) as booked_hour,
        -1 as sign,
        events.*
    from ledger.voids
    inner join ledger.usage_events as events
        on voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
    where
        voids.occurred_at >= (select bounds.first_event from bounds)
        and voids.occurred_at < (select bounds.end_event from bounds)
)

select
    signed.booked_hour,
    signed.sign,
    taken.event_hour,
    signed.tenant_id,
    signed.event_type,
    signed.occurred_at,
    signed.fingerprint,
    signed.quantity,
    signed.properties,
    signed.file_id,
    signed.line_number,
    {{ digest_term('signed.fingerprint') }} as event_term,
    {{ digest_term('signed.payload_hash') }} as payload_term,
    row_number() over (order by signed.occurred_at, signed.fingerprint, signed.sign) as place_in_time
from signed
inner join taken
    on signed.booked_hour = taken.landed_hour
        and signed.tenant_id = taken.tenant_id
        and signed.event_type = taken.event_type
        and {{ hour_of('signed.occurred_at') }} = taken.event_hour;

-- 3. What these keys contributed until now goes; its buckets are touched, vanished dimensions too.
with removed as (
    delete from rollups.usage_contributions
    using taken
    where
        usage_contributions.landed_hour = taken.landed_hour
        and usage_contributions.tenant_id = taken.tenant_id
        and usage_contributions.event_type = taken.event_type
        and usage_contributions.hour = taken.event_hour
    returning usage_contributions.*
)

insert into rollups.touched_buckets (tenant_id, metric, hour, dimensions)
select distinct
    tenant_id,
    metric,
    hour,
    dimensions
from removed
on conflict do nothing;

{% for table in ['unreadable_values', 'unmetered_events'] -%}
delete from rollups.{{ table }}
using taken
where
    {{ table }}.landed_hour = taken.landed_hour
    and {{ table }}.tenant_id = taken.tenant_id
    and {{ table }}.event_type = taken.event_type
    and {{ table }}.hour = taken.event_hour;

{% endfor -%}
analyze booked;

-- 4. What they contribute now, what no metric can read, and what no metric reads. The latest event of a bucket
-- is found by its place in time and looked up afterwards: an ordered aggregate would sort everything.
create temporary table metered on commit drop as
select
    booked_hour,
    sign,
    event_hour,
    tenant_id,
    event_type,
    metric,
    dimensions,
    value,
    unreadable,
    event_term,
    payload_term,
    place_in_time,
    file_id,
    line_number
from (
    {{ metric_events('booked') }}
) as measured;

analyze metered;

with totals as (
    select
        booked_hour,
        tenant_id,
        metric,
        event_hour,
        dimensions,
        event_type,
        sum(sign) as event_count,
        count(*) filter (where sign < 0) as voided_count,
        sum(sign * value) as value_sum,
        min(value) filter (where sign > 0) as value_min,
        max(value) filter (where sign > 0) as value_max,
        max(place_in_time) filter (where sign > 0) as latest_place,
        sum(sign * event_term::numeric) as event_digest,
        sum(sign * payload_term::numeric) as payload_digest
    from metered
    where unreadable is null
    group by booked_hour, tenant_id, metric, event_hour, dimensions, event_type
),

contributed as (
    insert into rollups.usage_contributions (
        landed_hour, tenant_id, metric, hour, dimensions, event_type, event_count, voided_count,
        value_sum, value_min, value_max, value_latest, latest_at, latest_fingerprint, event_digest, payload_digest
    )
    select
        totals.booked_hour,
        totals.tenant_id,
        totals.metric,
        totals.event_hour,
        totals.dimensions,
        totals.event_type,
        totals.event_count,
        totals.voided_count,
        totals.value_sum,
        totals.value_min,
        totals.value_max,
        latest.value,
        booked.occurred_at,
        booked.fingerprint,
        totals.event_digest,
        totals.payload_digest
    from totals
    left join metered as latest
        on totals.latest_place = latest.place_in_time
            and totals.metric = latest.metric
    left join booked on totals.latest_place = booked.place_in_time
    order by totals.booked_hour, totals.tenant_id, totals.event_hour, totals.metric, totals.dimensions
    returning tenant_id, metric, hour, dimensions
),

touched as (
    insert into rollups.touched_buckets (tenant_id, metric, hour, dimensions)
    select distinct
        tenant_id,
        metric,
        hour,
        dimensions
    from contributed
    on conflict do nothing
)

insert into rollups.unreadable_values (
    landed_hour, tenant_id, metric, hour, event_type, reason, event_count, sample_file_id, sample_line_number
)
select
    booked_hour,
    tenant_id,
    metric,
    event_hour,
    event_type,
    unreadable,
    sum(sign),
    min(file_id),
    (array_agg(line_number order by file_id, line_number))[1]
from metered
where unreadable is not null
group by booked_hour, tenant_id, metric, event_hour, event_type, unreadable;

insert into rollups.unmetered_events (landed_hour, tenant_id, event_type, hour, event_count)
select
    booked_hour,
    tenant_id,
    event_type,
    event_hour,
    sum(sign)
from booked
where not exists (
    select 1
    from catalog.metrics
    where metrics.event_type = booked.event_type
)
group by booked_hour, tenant_id, event_type, event_hour
