-- Each rated line against what explains it: its tier slices, which must add up to it, and its usage by day, which it
-- must hold the events of. A line that waits to be rated anew is a debt and no difference.

with sides as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        'line' as side,
        tenant_id,
        charge_version,
        currency,
        billable_quantity as quantity,
        exact_amount,
        amount,
        event_count,
        event_digest,
        payload_digest
    from {{ ref('rated_lines') }}
    union all
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        'slice' as side,
        null as tenant_id,
        null as charge_version,
        null as currency,
        quantity,
        amount as exact_amount,
        null as amount,
        null as event_count,
        null as event_digest,
        null as payload_digest
    from {{ source('rating', 'tier_slices') }}
    union all
    select
        subscription_id,
        charge_id,
        'usage' as component,
        slice_start,
        'day' as side,
        null as tenant_id,
        null as charge_version,
        null as currency,
        null as quantity,
        null as exact_amount,
        null as amount,
        event_count,
        event_digest,
        payload_digest
    from {{ source('rating', 'line_usage') }}
),

summed as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        max(tenant_id) as tenant_id,
        max(charge_version) as charge_version,
        max(currency) as currency,
        bool_or(side = 'line') as is_line,
        coalesce(sum(exact_amount) filter (where side = 'line'), 0) as line_amount,
        coalesce(sum(exact_amount) filter (where side = 'slice'), 0) as slices_amount,
        coalesce(sum(amount), 0) as rounded_amount,
        coalesce(sum(quantity) filter (where side = 'line'), 0) as line_quantity,
        coalesce(sum(quantity) filter (where side = 'slice'), 0) as slices_quantity,
        coalesce(sum(event_count) filter (where side = 'line'), 0)::bigint as line_events,
        coalesce(sum(event_count) filter (where side = 'day'), 0)::bigint as usage_events,
        coalesce(sum(case side when 'line' then event_digest when 'day' then -event_digest end), 0) = 0
        and coalesce(sum(case side when 'line' then payload_digest when 'day' then -payload_digest end), 0) = 0
            as same_usage
    from sides
    group by subscription_id, charge_id, component, slice_start
),

compared as (
    select
        summed.*,
        array_remove(array[
            case when summed.line_amount <> summed.slices_amount then 'amount' end,
            case when summed.rounded_amount <> round(summed.line_amount, currencies.minor_digits) then 'rounding' end,
            case
                when
                    summed.component = 'usage'
                    and charges.charge_model <> 'percentage'
                    and summed.line_quantity <> summed.slices_quantity
                    then 'quantity'
            end,
            case
                when
                    summed.component = 'usage'
                    and (summed.line_events <> summed.usage_events or not summed.same_usage)
                    then 'usage'
            end
        ], null) as differs_in
    from summed
    left join {{ source('catalog', 'currencies') }} as currencies on summed.currency = currencies.currency
    left join {{ source('catalog', 'charges') }} as charges
        on summed.charge_id = charges.charge_id and summed.charge_version = charges.version
)

select
    subscription_id,
    tenant_id,
    charge_id,
    component,
    slice_start,
    currency,
    line_amount,
    slices_amount,
    rounded_amount,
    line_quantity,
    slices_quantity,
    line_events,
    usage_events,
    differs_in,
    exists(
        select 1
        from rating.touched_slices as queued
        where
            queued.subscription_id = compared.subscription_id
            and queued.charge_id = compared.charge_id
            and queued.component = compared.component
            and queued.slice_start = compared.slice_start
    ) as is_pending,
    case
        when not is_line then 'extra'
        when 'amount' = any(differs_in) and slices_amount = 0 then 'missing'
        when differs_in = '{}' then 'identical'
        else 'modified'
    end as state
from compared
