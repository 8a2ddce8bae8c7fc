{{ config(materialized='table_function', meta={'guards': [
    'ledger.require_span(pieces.starts_at, pieces.ends_at)'
    ~ ' from reconciliation.provider_pieces(given_source) as pieces where pieces.difference <> 0',
]}) }}

-- Why a provider's usage differs from ours, as far as our own records account for it. For each value that differs
-- it is tried whether what is known of the same instants makes up the difference exactly: by the fewest causes.

with differing as (
    select
        *,
        row_number() over () as piece,
        greatest(abs(theirs), abs(ours)) / 1000000000 as tolerance,
        coalesce(theirs, 0) = 0 as has_nothing,
        aggregation in ('count', 'sum') as adds_up
    from {{ ref('provider_pieces') }}(given_source)
    where difference <> 0
),

-- What did not count, or no longer does, as rows of the ledger. A conflict says what its event would have said too.
-- Voids and conflicts of the values in question lead to their events, which are too many to be looked through.
{% set event_of = {'voided': source('ledger', 'voids'), 'in conflict': source('ledger', 'conflicts')} -%}
copies as (
    {% for kind, relation in [
        ('duplicate', source('ledger', 'duplicates')),
        ('conflict', source('ledger', 'conflicts')),
        ('voided', ref('usage_events')),
        ('in conflict', ref('usage_events')),
    ] -%}
    {% set found = 'others' if kind in event_of else 'copies' -%}
    {% if not loop.first %}union all
    {% endif -%}
    select
        '{{ kind }}' as kind,
        copies.tenant_id,
        copies.event_type,
        copies.occurred_at,
        copies.correlation_id,
        copies.quantity,
        copies.properties
    from {{ relation }} as copies
    {% if kind in event_of -%}
    inner join (
        select distinct
            tenant_id,
            occurred_at,
            fingerprint
        from {{ event_of[kind] }}
    ) as others on copies.occurred_at = others.occurred_at and copies.fingerprint = others.fingerprint
    {% endif -%}
    where
        exists (
            select 1
            from differing
            where
                differing.tenant_id = {{ found }}.tenant_id
                and differing.starts_at <= {{ found }}.occurred_at
                and differing.ends_at > {{ found }}.occurred_at
        )
        {% if kind == 'duplicate' %}and copies.kind = 'event'{% endif %}
    {% endfor %}
),

metered as (
    {{ metric_events('copies') }}
),

beside as (
    select
        differing.piece,
        coalesce(sum(metered.value) filter (where metered.kind = 'voided'), 0) as voided,
        count(*) filter (where metered.kind = 'voided') as voided_count,
        coalesce(sum(metered.value) filter (where metered.kind = 'duplicate'), 0) as duplicate,
        count(*) filter (where metered.kind = 'duplicate') as duplicate_count,
        coalesce(sum(metered.value) filter (where metered.kind = 'conflict'), 0) as conflict,
        count(*) filter (where metered.kind = 'conflict') as conflict_count,
        coalesce(sum(metered.value) filter (where metered.kind = 'in conflict'), 0) as in_conflict,
        (array_agg(metered.correlation_id order by metered.occurred_at) filter (where metered.kind = 'voided'))[1]
            as voided_id,
        (array_agg(metered.correlation_id order by metered.occurred_at) filter (where metered.kind = 'duplicate'))[1]
            as duplicate_id,
        (array_agg(metered.correlation_id order by metered.occurred_at) filter (where metered.kind = 'conflict'))[1]
            as conflict_id
    from differing
    inner join metered
        on differing.tenant_id = metered.tenant_id
            and differing.metric = metered.metric
            and differing.starts_at <= metered.occurred_at
            and differing.ends_at > metered.occurred_at
            and metered.unreadable is null
    where differing.adds_up
    group by differing.piece
),

-- Records that are no valid events, as far as they can be read. How much they would have come to is known of counts.
refused as (
    select
        said.record ->> 'tenant_id' as tenant_id,
        said.record ->> 'event_type' as event_type,
        case
            when pg_input_is_valid(said.record ->> 'occurred_at', 'timestamptz')
                then (said.record ->> 'occurred_at')::timestamptz
        end as occurred_at
    from {{ source('landing', 'rejected_events') }} as rejected
    inner join {{ source('landing', 'files') }} as files on rejected.file_id = files.file_id
    cross join lateral (
        select encode(rejected.raw_line, 'escape') as line
    ) as raw
    cross join lateral (
        select
            case
                when pg_input_is_valid(raw.line, 'jsonb') then raw.line::jsonb
            end as record
    ) as said
    where files.superseded_by is null
),

rejected as (
    select
        differing.piece,
        count(*) as rejected_count
    from differing
    inner join {{ source('catalog', 'metrics') }} as metrics on differing.metric = metrics.metric
    inner join refused
        on differing.tenant_id = refused.tenant_id
            and metrics.event_type = refused.event_type
            and differing.starts_at <= refused.occurred_at
            and differing.ends_at > refused.occurred_at
    where differing.aggregation = 'count'
    group by differing.piece
),

-- What landed after the value's end, or after the provider was asked: by each hour since when it may be lacking.
landed_later as (
    select
        differing.piece,
        contributions.landed_hour,
        sum(case differing.aggregation when 'count' then contributions.event_count else contributions.value_sum end)
            as quantity,
        sum(contributions.event_count) as event_count
    from differing
    inner join {{ ref('usage_contributions') }} as contributions
        on differing.tenant_id = contributions.tenant_id
            and differing.metric = contributions.metric
            and differing.starts_at <= contributions.hour
            and differing.ends_at >= contributions.hour + interval '1 hour'
    where
        differing.adds_up
        and contributions.landed_hour >= least(differing.ends_at, {{ hour_of('differing.fetched_at') }})
        -- all of an hour that is simply not there came late only if it came after the period had ended
        and (
            not differing.has_nothing
            or contributions.landed_hour >= least(differing.period_end, {{ hour_of('differing.fetched_at') }})
        )
    group by differing.piece, contributions.landed_hour
),

late as materialized (
    select
        piece,
        landed_hour,
        -sum(quantity) over since as amount,
        sum(event_count) over since as event_count
    from landed_later
    window since as (partition by piece order by landed_hour desc)
),

explained as (
    select
        differing.*,
        beside.voided_count,
        beside.voided_id,
        beside.duplicate_count,
        beside.duplicate_id,
        beside.conflict_count,
        beside.conflict_id,
        rejected.rejected_count,
        fitting.*
    from differing
    left join beside on differing.piece = beside.piece
    left join rejected on differing.piece = rejected.piece
    left join lateral (
        select
            lateness.landed_hour,
            lateness.event_count as late_count,
            lateness.amount as late_amount,
            voided.amount as voided_amount,
            duplicate.amount as duplicate_amount,
            conflict.amount as conflict_amount,
            refusal.amount as rejected_amount
        from (
            select
                null::timestamptz as landed_hour,
                0 as event_count,
                0 as amount
            union all
            select
                late.landed_hour,
                late.event_count,
                late.amount
            from late
            where late.piece = differing.piece and late.amount <> 0
        ) as lateness
        cross join lateral (
            values (0), (beside.voided)
        ) as voided (amount)
        cross join lateral (
            values (0), (beside.duplicate)
        ) as duplicate (amount)
        -- both were counted, or the other one was
        cross join lateral (
            values (0), (beside.conflict), (beside.conflict - beside.in_conflict)
        ) as conflict (amount)
        cross join lateral (
            values (0), (rejected.rejected_count)
        ) as refusal (amount)
        cross join lateral (
            select
                num_nulls(
                    nullif(lateness.amount, 0), nullif(voided.amount, 0), nullif(duplicate.amount, 0),
                    nullif(conflict.amount, 0), nullif(refusal.amount, 0)
                ) as unused_count
        ) as used
        where
            used.unused_count < 5
            and abs(
                differing.difference - lateness.amount - voided.amount - duplicate.amount - conflict.amount
                - refusal.amount
            ) <= differing.tolerance
        order by
            used.unused_count desc, voided.amount desc, duplicate.amount desc, abs(conflict.amount) desc,
            refusal.amount desc, lateness.landed_hour
        limit 1
    ) as fitting on differing.adds_up
),

causes as (
    select
        explained.*,
        found.cause,
        found.amount,
        found.detail
    from explained
    cross join lateral (
        values
        (
            'late', explained.late_amount,
            format(
                '%s events landed from %s on', explained.late_count,
                to_char(explained.landed_hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
            )
        ),
        (
            'voided', explained.voided_amount,
            format('%s voided events, the first with correlation id %s', explained.voided_count, explained.voided_id)
        ),
        (
            'duplicate', explained.duplicate_amount,
            format(
                '%s further copies, the first with correlation id %s', explained.duplicate_count, explained.duplicate_id
            )
        ),
        (
            'conflict', explained.conflict_amount,
            format(
                '%s copies that say something else, the first with correlation id %s',
                explained.conflict_count, explained.conflict_id
            )
        ),
        ('rejected', explained.rejected_amount, format('%s records that are no valid events', explained.rejected_count))
    ) as found (cause, amount, detail)
    where found.amount <> 0
    union all
    select
        explained.*,
        case
            when explained.tenant_id is null then 'unknown_customer'
            when explained.metric is null then 'unmetered'
            when explained.has_nothing and explained.customer is null and not exists (
                select 1
                from {{ source('reconciliation', 'provider_usage') }} as usage
                where usage.fetch_id = explained.fetch_id and usage.tenant_id = explained.tenant_id
            ) and not exists (
                select 1
                from {{ source('catalog', 'provider_customers') }} as customers
                where customers.tenant_id = explained.tenant_id
            ) then 'no_customer'
            when explained.ends_at > explained.fetched_at then 'partial_period'
            when explained.has_nothing then 'missed_hours'
            else 'quantity'
        end as cause,
        explained.difference as amount,
        case
            when explained.tenant_id is null then format('customer %s is no tenant of ours', explained.customer)
            when explained.metric is null then format('meter %s is no metric of ours', explained.meter)
            when explained.has_nothing then (
                select
                    format(
                        '%s hours with usage: %s%s', count(*),
                        string_agg(to_char(hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24'), ', ' order by hour)
                            filter (where place <= 5),
                        case when count(*) > 5 then ', …' end
                    )
                from (
                    select
                        hour,
                        row_number() over (order by hour) as place
                    from {{ ref('usage_hourly') }}
                    where
                        tenant_id = explained.tenant_id
                        and metric = explained.metric
                        and hour >= {{ hour_of('explained.starts_at') }}
                        and hour < explained.ends_at
                    group by hour
                ) as hours
            )
            else format(
                'theirs %s, ours %s, from %s to %s; beside it lie %s duplicates, %s conflicts, %s voids',
                explained.theirs, explained.ours,
                to_char(explained.starts_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI'),
                to_char(explained.ends_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI'),
                coalesce(explained.duplicate_count, 0), coalesce(explained.conflict_count, 0),
                coalesce(explained.voided_count, 0)
            )
        end as detail
    from explained
    where explained.late_amount is null
)

select
    fetch_id,
    tenant_id,
    string_agg(distinct customer, ', ') as customer,
    metric,
    string_agg(distinct meter, ', ') as meter,
    period_start,
    period_end,
    cause,
    sum(amount) as amount,
    count(*) as value_count,
    min(starts_at) as first_start,
    max(ends_at) as last_end,
    (array_agg(detail order by starts_at))[1]
    || case when count(*) > 1 then format('; and %s values more', count(*) - 1) else '' end as detail
from causes
group by
    fetch_id, tenant_id, case when tenant_id is null then customer end, metric,
    case when metric is null then meter end, period_start, period_end, cause
