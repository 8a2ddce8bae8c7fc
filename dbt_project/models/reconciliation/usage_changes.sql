{{ config(materialized='table_function', meta={'requires': [{
    'condition': 'given_starts_at <= given_ends_at',
    'otherwise': "'The span must not end before it starts: give two instants, the earlier one first.'",
}], 'guards': [ledger_has_span()]}) }}

-- What files have changed in a span of usage since: those of landing hours from one on, or those that landed after an
-- instant of the clock. An event is compared with itself, as its owner and its voids were before those files and as
-- they are now; what it counted before has sign -1, what it counts now +1. So the sum over the rows is the change.

with new_files as (
    select
        file_id,
        landed_hour
    from {{ source('landing', 'files') }}
    where landed_hour >= given_landed_from or landed_at > given_known_after
),

type as (
    select event_type
    from {{ source('catalog', 'metrics') }}
    where metric = given_metric
),

-- The hours of usage to which landing hours with such files contributed, or owe it.
changed_hours as (
    select
        hour,
        array_agg(distinct landed_hour) as landed_hours
    from (
        select
            contributions.hour,
            contributions.landed_hour
        from {{ ref('usage_contributions') }} as contributions
        where
            contributions.tenant_id = given_tenant_id
            and contributions.metric = given_metric
            and contributions.hour > given_starts_at - interval '1 hour'
            and contributions.hour < given_ends_at
        union
        select
            pending.event_hour,
            pending.landed_hour
        from {{ source('ledger', 'pending') }} as pending
        where
            pending.tenant_id = given_tenant_id
            and pending.event_type = (select type.event_type from type)
            and pending.event_hour > given_starts_at - interval '1 hour'
            and pending.event_hour < given_ends_at
    ) as contributed
    where landed_hour in (select new_files.landed_hour from new_files)
    group by hour
),

wanted as (
    select
        found.tenant_id,
        found.event_type,
        found.occurred_at,
        found.correlation_id,
        found.fingerprint
    from changed_hours
    cross join lateral (
        select events.*
        from {{ ref('usage_events') }} as events
        where
            events.occurred_at >= changed_hours.hour
            and events.occurred_at < changed_hours.hour + interval '1 hour'
            and events.landed_hour = any(changed_hours.landed_hours)
            and events.tenant_id = given_tenant_id
            and events.event_type = (select type.event_type from type)
    ) as found
    where
        found.occurred_at >= given_starts_at
        and found.occurred_at < given_ends_at
        and found.file_id in (select new_files.file_id from new_files)
    union
    select
        voids.tenant_id,
        voids.event_type,
        voids.occurred_at,
        voids.correlation_id,
        voids.fingerprint
    from {{ source('ledger', 'voids') }} as voids
    where
        voids.tenant_id = given_tenant_id
        and voids.event_type = (select type.event_type from type)
        and voids.occurred_at >= given_starts_at
        and voids.occurred_at < given_ends_at
        and voids.file_id in (select new_files.file_id from new_files)
    union
    select
        withdrawn.tenant_id,
        withdrawn.event_type,
        withdrawn.occurred_at,
        withdrawn.correlation_id,
        withdrawn.fingerprint
    from {{ source('ledger', 'withdrawn') }} as withdrawn
    where
        withdrawn.tenant_id = given_tenant_id
        and withdrawn.event_type = (select type.event_type from type)
        and withdrawn.occurred_at >= given_starts_at
        and withdrawn.occurred_at < given_ends_at
        and withdrawn.file_key in (
            select files.file_key
            from new_files
            inner join {{ source('landing', 'files') }} as files on new_files.file_id = files.file_id
        )
),

copies as (
    {{ all_copies('wanted') }}
),

dated as (
    select
        *,
        landed_hour < given_landed_from
        and known_from <= given_known_after
        and (known_until is null or known_until > given_known_after) as was_known,
        known_until is null as is_known
    from copies
),

-- A copy that was the owner, or is it. The order is that of the ledger.
owners as (
    select
        *,
        was_known
        and row_number() over (
            partition by kind, fingerprint, was_known
            order by landed_hour, file_key collate "C", line_number
        ) = 1 as was_owner,
        is_known
        and row_number() over (
            partition by kind, fingerprint, is_known
            order by landed_hour, file_key collate "C", line_number
        ) = 1 as is_owner
    from dated
),

-- Each copy beside what is to be known of the whole event. One pass: a join with itself would be quadratic.
beside as (
    select
        owners.*,
        coalesce(bool_or(was_owner and kind = 'event') over copies_of_event, false)
        and not coalesce(bool_or(was_owner and kind = 'void') over copies_of_event, false) as counted_before,
        coalesce(bool_or(is_owner and kind = 'event') over copies_of_event, false)
        and not coalesce(bool_or(is_owner and kind = 'void') over copies_of_event, false) as counts_now,
        coalesce(bool_or(was_owner and kind = 'void') over copies_of_event, false) as was_void,
        coalesce(bool_or(is_owner and kind = 'void') over copies_of_event, false) as is_void,
        max(payload_hash::text) filter (where was_owner and kind = 'event') over copies_of_event
        = max(payload_hash::text) filter (where is_owner and kind = 'event') over copies_of_event as says_the_same,
        max(file_key) filter (where is_owner and kind = 'void') over copies_of_event as void_file_key,
        max(line_number) filter (where is_owner and kind = 'void') over copies_of_event as void_line_number,
        max(landed_hour) filter (where is_owner and kind = 'void') over copies_of_event as void_landed_hour,
        max(known_from) filter (where is_owner and kind = 'void') over copies_of_event as void_known_from
    from owners
    window copies_of_event as (partition by fingerprint)
),

changes as (
    select
        beside.*,
        case
            when counts_now and not counted_before and was_void then 'void withdrawn'
            when counts_now and not counted_before then 'added'
            when counts_now then 'owner changed'
            when is_void then 'voided'
            else 'withdrawn'
        end as change
    from beside
    where
        kind = 'event'
        and (was_owner or is_owner)
        and (counted_before <> counts_now or (counted_before and not says_the_same))
),

-- The place named is that of the record which took the event back, or brought it.
signed as (
    select
        changes.*,
        sides.sign,
        case when change = 'voided' then void_file_key else file_key end as cause_file_key,
        case when change = 'voided' then void_line_number else line_number end as cause_line_number,
        case when change = 'voided' then void_landed_hour else landed_hour end as cause_landed_hour,
        case change
            when 'voided' then void_known_from
            when 'withdrawn' then known_until
            else known_from
        end as changed_at
    from changes
    inner join (values (-1), (1)) as sides (sign)
        on (sides.sign < 0 and changes.was_owner and changes.counted_before)
            or (sides.sign > 0 and changes.is_owner and changes.counts_now)
),

metered as (
    {{ metric_events('signed') }}
)

select
    change,
    sign,
    occurred_at,
    event_type,
    correlation_id,
    dimensions,
    value,
    quantity,
    properties,
    fingerprint,
    payload_hash,
    cause_landed_hour as landed_hour,
    cause_file_key as file_key,
    cause_line_number as line_number,
    changed_at
from metered
where metric = given_metric and unreadable is null
order by occurred_at, fingerprint, sign
