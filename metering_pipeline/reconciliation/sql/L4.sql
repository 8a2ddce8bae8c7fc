-- L4: hourly usage = rated + unrated usage, tier slices = lines, lines rounded once; per UTC month and tenant.
-- Tenants whose usage has changed since it was rated are left out of the comparison of usage; lines whose quantity only
-- archived events tell, of that with their quantity.
with
bounds as (
    select
        date_trunc('month', %(window_start)s::timestamptz at time zone 'UTC') at time zone 'UTC' as first_instant,
        (
            date_trunc('month', %(window_end)s::timestamptz at time zone 'UTC' - interval '1 microsecond')
            + interval '1 month'
        ) at time zone 'UTC' as end_instant
),

unsettled as materialized (
    select tenant_id from rating.touched
    union
    select tenant_id from rating.changed_ranges
    union
    select tenant_id from rollups.touched_days
),

-- 1. Each bucket, or piece of one, lies in exactly one slice of one charge, or in the unrated usage. An unreadable
-- value is no usage of a bucket: it lies in the unrated usage alone.
rolled_up as (
    select
        date_trunc('month', hour at time zone 'UTC') as month,
        tenant_id,
        metric,
        sum(event_count) as rolled_up_count,
        sum(value_sum) as rolled_up_sum,
        sum(event_digest) as rolled_up_digest,
        sum(payload_digest) as rolled_up_payload_digest
    from (
        select
            tenant_id,
            metric,
            hour,
            event_count,
            value_sum,
            event_digest,
            payload_digest
        from rollups.usage_hourly
        union all
        select
            tenant_id,
            metric,
            hour,
            event_count,
            0 as value_sum,
            0 as event_digest,
            0 as payload_digest
        from rollups.unreadable_values
    ) as hours
    where
        hour >= (select bounds.first_instant from bounds)
        and hour < (select bounds.end_instant from bounds)
    group by date_trunc('month', hour at time zone 'UTC'), tenant_id, metric
),

assigned as (
    select
        date_trunc('month', day::timestamp) as month,
        tenant_id,
        metric,
        event_count,
        0 as unrated_count,
        value_sum,
        event_digest,
        payload_digest
    from rating.period_usage_daily
    where
        day >= (select (bounds.first_instant at time zone 'UTC')::date from bounds)
        and day < (select (bounds.end_instant at time zone 'UTC')::date from bounds)
    union all
    select
        date_trunc('month', piece_start at time zone 'UTC') as month,
        tenant_id,
        metric,
        event_count,
        event_count as unrated_count,
        value_sum,
        event_digest,
        payload_digest
    from rating.unrated_usage
    where
        piece_start >= (select bounds.first_instant from bounds)
        and piece_start < (select bounds.end_instant from bounds)
),

assigned_sums as (
    select
        month,
        tenant_id,
        metric,
        sum(event_count) as assigned_count,
        sum(unrated_count) as unrated_count,
        sum(value_sum) as assigned_sum,
        sum(event_digest) as assigned_digest,
        sum(payload_digest) as assigned_payload_digest
    from assigned
    group by month, tenant_id, metric
),

judged_usage as materialized (
    select
        month,
        tenant_id,
        metric,
        coalesce(rolled_up.rolled_up_count, 0) as rolled_up_count,
        coalesce(assigned_sums.assigned_count, 0) as assigned_count,
        coalesce(assigned_sums.unrated_count, 0) as unrated_count,
        coalesce(rolled_up.rolled_up_sum, 0) as rolled_up_sum,
        coalesce(assigned_sums.assigned_sum, 0) as assigned_sum,
        unsettled.tenant_id is not null as is_unsettled,
        unsettled.tenant_id is not null
        or (
            coalesce(rolled_up.rolled_up_count, 0) = coalesce(assigned_sums.assigned_count, 0)
            and coalesce(rolled_up.rolled_up_sum, 0) = coalesce(assigned_sums.assigned_sum, 0)
            and coalesce(rolled_up.rolled_up_digest, 0) = coalesce(assigned_sums.assigned_digest, 0)
            and coalesce(rolled_up.rolled_up_payload_digest, 0) = coalesce(assigned_sums.assigned_payload_digest, 0)
        ) as passed
    from rolled_up
    full outer join assigned_sums using (month, tenant_id, metric)
    left join unsettled using (tenant_id)
),

-- 2. Lines: the sum of their slices, rounded once; a usage line is the sum of its days.
lines as materialized (
    select
        lines.*,
        date_trunc('month', lines.slice_start at time zone 'UTC') as month,
        currencies.minor_digits,
        metrics.aggregation,
        case
            when metrics.recurring and lines.component = 'usage' then (
                select min(periods.period_start)
                from rating.billing_periods as periods
                where periods.subscription_id = lines.subscription_id
            )
        end as carried_from,
        charges.charge_model,
        charges.plan_id,
        -- a unit of the last digit that is shown, where a quotient may be cut there
        case when charges.conversion_operation = 'divide' then 1e-18 else 0 end as cut,
        case charges.conversion_operation
            when 'multiply' then lines.quantity * charges.conversion_factor
            when 'divide' then lines.quantity * 1.000000000000000000000 / charges.conversion_factor
            else lines.quantity
        end as converted,
        -- an issued line keeps its quantity when only the metric's definition has changed since
        exists(
            select 1
            from invoices.issued_invoice_lines as issued
            where
                issued.subscription_id = lines.subscription_id
                and issued.charge_id = lines.charge_id
                and issued.component = lines.component
                and issued.slice_start = lines.slice_start
        ) as is_issued
    from rating.rated_lines as lines
    left join catalog.currencies on lines.currency = currencies.currency
    left join catalog.metrics on lines.metric = metrics.metric
    left join catalog.charges on lines.charge_id = charges.charge_id and lines.charge_version = charges.version
    where
        lines.slice_start >= (select bounds.first_instant from bounds)
        and lines.slice_start < (select bounds.end_instant from bounds)
),

slice_sums as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        sum(quantity) as slices_quantity,
        min(amount) filter (where tier = 2) as second_amount,
        sum(amount) as slices_amount
    from rating.tier_slices
    where
        slice_start >= (select bounds.first_instant from bounds)
        and slice_start < (select bounds.end_instant from bounds)
    group by subscription_id, charge_id, component, slice_start, currency
),

usage_sums as (
    select
        subscription_id,
        charge_id,
        slice_start,
        'usage' as component,
        min(tenant_id) as tenant_id,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        min(value_min) as value_min,
        max(value_max) as value_max,
        (array_agg(value_latest order by latest_at desc nulls last, latest_fingerprint desc))[1] as value_latest,
        sum(value_moment) as value_moment,
        sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
    from rating.period_usage_daily
    where
        slice_start >= (select bounds.first_instant from bounds)
        and slice_start < (select bounds.end_instant from bounds)
    group by subscription_id, charge_id, slice_start
),

-- What a line of a recurring metric carries from before its slice: as the rating has it, and of the buckets.
carried_sums as (
    select
        subscription_id,
        charge_id,
        slice_start,
        'usage' as component,
        event_count,
        value_sum,
        event_digest,
        payload_digest
    from rating.carried_usage
    where
        slice_start >= (select bounds.first_instant from bounds)
        and slice_start < (select bounds.end_instant from bounds)
),

carried_pieces as (
    select
        lines.subscription_id,
        lines.charge_id,
        lines.slice_start,
        pieces.event_count,
        pieces.value_sum,
        pieces.event_digest,
        pieces.payload_digest
    from lines
    inner join rating.charge_slices as slices using (subscription_id, charge_id, component, slice_start)
    cross join lateral (
        select
            date_bin('1 hour', lines.carried_from + interval '59:59.999999', '1970-01-01 00:00:00+00') as whole_start,
            date_bin('1 hour', lines.slice_start, '1970-01-01 00:00:00+00'::timestamptz) as whole_end
    ) as hours
    cross join lateral (
        select
            buckets.dimensions,
            buckets.event_count,
            buckets.value_sum,
            buckets.event_digest,
            buckets.payload_digest
        from rollups.usage_hourly as buckets
        where
            buckets.tenant_id = lines.tenant_id
            and buckets.metric = lines.metric
            and buckets.hour >= hours.whole_start
            and buckets.hour < hours.whole_end
        union all
        select
            parts.dimensions,
            parts.event_count,
            parts.value_sum,
            parts.event_digest,
            parts.payload_digest
        from rating.edge_usage as parts
        where
            parts.tenant_id = lines.tenant_id
            and parts.metric = lines.metric
            and parts.piece_start >= lines.carried_from
            and parts.piece_start < lines.slice_start
            and (parts.piece_start < hours.whole_start or parts.piece_start >= hours.whole_end)
    ) as pieces
    where pieces.dimensions @> slices.dimension_route
),

carried_buckets as (
    select
        subscription_id,
        charge_id,
        slice_start,
        'usage' as component,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
    from carried_pieces
    group by subscription_id, charge_id, slice_start
),

-- What a commitment is compared with: the plan's other lines that start within it.
counted as (
    select
        lines.subscription_id,
        lines.charge_id,
        lines.component,
        lines.slice_start,
        lines.currency,
        sum(others.amount) as used
    from lines
    inner join rating.rated_lines as others
        on lines.subscription_id = others.subscription_id
            and lines.currency = others.currency
            and lines.slice_start <= others.slice_start
            and lines.slice_end > others.slice_start
    inner join catalog.charges
        on others.charge_id = charges.charge_id
            and others.charge_version = charges.version
            and lines.plan_id = charges.plan_id
    where lines.component = 'commitment' and others.component <> 'commitment'
    group by lines.subscription_id, lines.charge_id, lines.component, lines.slice_start, lines.currency
),

-- Where no sum tells the quantity: the single values of whole hours, and of cut hours the events.
value_lines as (
    select
        lines.subscription_id,
        lines.charge_id,
        lines.component,
        lines.slice_start,
        coalesce(lines.carried_from, lines.slice_start) as counted_from,
        lines.slice_end,
        lines.tenant_id,
        metrics.metric,
        metrics.event_type,
        metrics.aggregation,
        metrics.percentile,
        metrics.value_property,
        metrics.filter,
        slices.dimension_route,
        date_bin(
            '1 hour', coalesce(lines.carried_from, lines.slice_start) + interval '59:59.999999',
            '1970-01-01 00:00:00+00'
        ) as whole_start,
        date_bin('1 hour', lines.slice_end, '1970-01-01 00:00:00+00'::timestamptz) as whole_end
    from lines
    inner join catalog.metrics on lines.metric = metrics.metric
    inner join rating.charge_slices as slices using (subscription_id, charge_id, component, slice_start)
    where lines.component = 'usage' and metrics.aggregation in ('unique_count', 'percentile')
),

-- Where a cut hour's events are archived the quantity cannot be told.
untold_lines as (
    select
        lines.subscription_id,
        lines.charge_id,
        lines.component,
        lines.slice_start
    from value_lines as lines
    where exists (
        select 1
        from ledger.archived_days as archived
        where
            (lines.counted_from < lines.whole_start and archived.day = (lines.counted_from at time zone 'UTC')::date)
            or (lines.slice_end > lines.whole_end and archived.day = (lines.whole_end at time zone 'UTC')::date)
    )
),

line_values as (
    select
        lines.subscription_id,
        lines.charge_id,
        lines.component,
        lines.slice_start,
        lines.aggregation,
        lines.percentile,
        hours.value,
        hours.event_count,
        hours.latest_at,
        hours.latest_fingerprint,
        hours.removed
    from value_lines as lines
    inner join rollups.unique_values_hourly as hours
        on lines.tenant_id = hours.tenant_id
            and lines.metric = hours.metric
            and lines.whole_start <= hours.hour
            and lines.whole_end > hours.hour
            and lines.dimension_route <@ hours.dimensions
    union all
    select
        lines.subscription_id,
        lines.charge_id,
        lines.component,
        lines.slice_start,
        lines.aggregation,
        lines.percentile,
        coalesce(events.properties ->> lines.value_property, events.quantity::text) as value,
        1 as event_count,
        events.occurred_at,
        events.fingerprint,
        coalesce(events.properties ->> 'operation', 'add') = 'remove' as removed
    from value_lines as lines
    inner join ledger.usage_events as events
        on lines.tenant_id = events.tenant_id
            and lines.event_type = events.event_type
            and lines.filter <@ events.properties
            and lines.counted_from <= events.occurred_at
            and lines.slice_end > events.occurred_at
            and (lines.whole_start > events.occurred_at or lines.whole_end <= events.occurred_at)
    where
        not exists (
            select 1
            from ledger.voids
            where voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
        )
        and not exists (
            select 1
            from jsonb_each_text(lines.dimension_route) as route
            where events.properties ->> route.key is distinct from route.value
        )
        and case lines.aggregation
            when 'unique_count'
                then
                    octet_length(events.properties ->> lines.value_property) <= 255
                    and coalesce(events.properties ->> 'operation', 'add') in ('add', 'remove')
            else
                lines.value_property is null
                or events.properties ->> lines.value_property ~ '^(-|)[0-9]{1,20}(|[.][0-9]{1,18})$'
        end
),

members as (
    select distinct on (subscription_id, charge_id, component, slice_start, value) *
    from line_values
    where aggregation = 'unique_count'
    order by subscription_id, charge_id, component, slice_start, value, latest_at desc, latest_fingerprint desc
),

ranked as (
    select
        *,
        value::numeric as number,
        sum(event_count) over lines as last_rank,
        ceil(sum(event_count) over (partition by subscription_id, charge_id, component, slice_start) * percentile / 100)
            as wanted_rank
    from line_values
    where aggregation = 'percentile'
    window
        lines as (
            partition by subscription_id, charge_id, component, slice_start
            order by value::numeric, latest_at, latest_fingerprint
        )
),

quantities as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        sum(case when removed then 0 else 1 end) as quantity
    from members
    group by subscription_id, charge_id, component, slice_start
    union all
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        number
    from ranked
    where last_rank >= wanted_rank and last_rank - event_count < wanted_rank
),

compared_lines as (
    select
        coalesce(lines.month, date_trunc('month', slice_start at time zone 'UTC')) as month,
        coalesce(lines.tenant_id, usage_sums.tenant_id, subscriptions.tenant_id) as tenant_id,
        component = 'usage' and not lines.is_issued and untold_lines.subscription_id is not null as is_untold,
        subscription_id,
        charge_id,
        component,
        slice_start,
        array_remove(array[
            case when lines.tenant_id is null then 'usage or slices without a line' end,
            case
                when lines.exact_amount is distinct from coalesce(slice_sums.slices_amount, 0)
                    then 'slices do not add up to the line'
            end,
            case
                when
                    component = 'usage'
                    and lines.charge_model <> 'percentage'
                    and lines.billable_quantity is distinct from coalesce(slice_sums.slices_quantity, 0)
                    then 'slices do not hold the quantity of the line'
            end,
            case
                when
                    component = 'usage'
                    and lines.charge_model = 'matrix'
                    and abs(lines.billable_quantity - lines.converted) > lines.cut * 1000
                    then 'rows of the matrix do not hold the usage'
            end,
            case
                when
                    component = 'commitment'
                    and -slice_sums.second_amount is distinct from coalesce(counted.used, 0)
                    then 'commitment is not compared with the other lines'
            end,
            case
                when lines.amount is distinct from round(lines.exact_amount, lines.minor_digits)
                    then 'amount is not the exact amount rounded'
            end,
            case
                when
                    component = 'usage'
                    and (
                        lines.event_count is distinct from
                        coalesce(usage_sums.event_count, 0) + coalesce(carried_sums.event_count, 0)
                        or lines.event_digest is distinct from
                        coalesce(usage_sums.event_digest, 0) + coalesce(carried_sums.event_digest, 0)
                        or lines.payload_digest is distinct from
                        coalesce(usage_sums.payload_digest, 0) + coalesce(carried_sums.payload_digest, 0)
                    )
                    then 'days do not add up to the line'
            end,
            case
                when
                    component = 'usage'
                    and unsettled.tenant_id is null
                    and (
                        coalesce(carried_sums.event_count, 0) <> coalesce(carried_buckets.event_count, 0)
                        or coalesce(carried_sums.value_sum, 0) <> coalesce(carried_buckets.value_sum, 0)
                        or coalesce(carried_sums.event_digest, 0) <> coalesce(carried_buckets.event_digest, 0)
                        or coalesce(carried_sums.payload_digest, 0) <> coalesce(carried_buckets.payload_digest, 0)
                    )
                    then 'what the line carries is not the usage before it'
            end,
            case
                when
                    component = 'usage'
                    and not lines.is_issued
                    and untold_lines.subscription_id is null
                    and lines.quantity is distinct from coalesce(
                        case lines.aggregation
                            when 'count' then usage_sums.event_count
                            when 'sum' then usage_sums.value_sum
                            when 'min' then usage_sums.value_min
                            when 'max' then usage_sums.value_max
                            when 'latest' then usage_sums.value_latest
                            when 'weighted_sum'
                                then round(
                                    (
                                        usage_sums.value_sum * extract(epoch from lines.slice_end)
                                        - usage_sums.value_moment
                                    ) * 1.000000000000000000000000000000
                                    / extract(epoch from lines.slice_end - slice_start), 18
                                )
                            else quantities.quantity
                        end,
                        0
                    )
                    + case lines.aggregation when 'unique_count' then 0 else coalesce(carried_sums.value_sum, 0) end
                    then 'quantity is not that of the days'
            end
        ], null) as faults
    from lines
    full outer join slice_sums using (subscription_id, charge_id, component, slice_start, currency)
    full outer join usage_sums using (subscription_id, charge_id, component, slice_start)
    left join carried_sums using (subscription_id, charge_id, component, slice_start)
    left join carried_buckets using (subscription_id, charge_id, component, slice_start)
    left join unsettled on lines.tenant_id = unsettled.tenant_id
    left join quantities using (subscription_id, charge_id, component, slice_start)
    left join untold_lines using (subscription_id, charge_id, component, slice_start)
    left join counted using (subscription_id, charge_id, component, slice_start, currency)
    left join catalog.current_subscriptions as subscriptions using (subscription_id)
),

judged_lines as materialized (
    select
        *,
        cardinality(faults) = 0 as passed
    from compared_lines
    where not exists (
        select 1
        from rating.touched_slices as waiting
        where
            waiting.subscription_id = compared_lines.subscription_id
            and waiting.charge_id = compared_lines.charge_id
            and waiting.component = compared_lines.component
            and waiting.slice_start = compared_lines.slice_start
    )
),

usage_figures as (
    select
        month,
        tenant_id,
        (
            array_agg(
                jsonb_build_object(
                    'metric', metric, 'rolled_up', rolled_up_count, 'rated', assigned_count - unrated_count,
                    'unrated', unrated_count, 'rolled_up_sum', rolled_up_sum::text,
                    'assigned_sum', assigned_sum::text
                )
                order by metric
            ) filter (where not passed)
        )[1:5] as samples
    from judged_usage
    group by month, tenant_id
    having not bool_and(passed)
),

line_figures as (
    select
        month,
        tenant_id,
        count(*) filter (where not passed) as failing_lines,
        (
            array_agg(
                jsonb_build_object(
                    'subscription_id', subscription_id, 'charge_id', charge_id, 'component', component,
                    'slice_start', slice_start, 'faults', to_jsonb(faults)
                )
                order by subscription_id, charge_id, slice_start
            ) filter (where not passed)
        )[1:5] as samples
    from judged_lines
    group by month, tenant_id
    having not bool_and(passed)
),

failing as materialized (
    select
        month,
        tenant_id,
        jsonb_build_object(
            'usage', coalesce(to_jsonb(usage_figures.samples), '[]'),
            'failing_lines', coalesce(line_figures.failing_lines, 0),
            'lines', coalesce(to_jsonb(line_figures.samples), '[]')
        ) as figures
    from usage_figures
    full outer join line_figures using (month, tenant_id)
),

windows as (
    select month from judged_usage
    union
    select month from judged_lines
    union
    select window_start at time zone 'UTC'
    from reconciliation.law_results
    where
        law = 'L4'
        and window_start >= (select bounds.first_instant from bounds)
        and window_start < (select bounds.end_instant from bounds)
),

usage_totals as (
    select
        month,
        sum(rolled_up_count) as rolled_up_count,
        sum(assigned_count) as assigned_count,
        sum(unrated_count) as unrated_count,
        count(distinct tenant_id) filter (where is_unsettled) as unsettled_tenants
    from judged_usage
    group by month
),

line_totals as (
    select
        month,
        count(*) as lines,
        count(*) filter (where is_untold) as untold_lines
    from judged_lines
    group by month
),

failing_totals as (
    select
        month,
        count(*) as failing_tenants,
        count(*) filter (where tenant_id is null) as unknown_tenants
    from failing
    group by month
),

results as (
    select
        month,
        null::text as tenant_id,
        failing_totals.month is null as passed,
        jsonb_build_object(
            'rolled_up', coalesce(usage_totals.rolled_up_count, 0),
            'rated', coalesce(usage_totals.assigned_count - usage_totals.unrated_count, 0),
            'unrated', coalesce(usage_totals.unrated_count, 0),
            'lines', coalesce(line_totals.lines, 0),
            'lines_without_their_events', coalesce(line_totals.untold_lines, 0),
            'tenants_left_out', coalesce(usage_totals.unsettled_tenants, 0),
            'failing_tenants', coalesce(failing_totals.failing_tenants, 0)
        ) as figures
    from windows
    left join usage_totals using (month)
    left join line_totals using (month)
    left join failing_totals using (month)
    union all
    select
        month,
        tenant_id,
        false as passed,
        figures
    from failing
    where tenant_id is not null
)

select
    month at time zone 'UTC' as window_start,
    (month + interval '1 month') at time zone 'UTC' as window_end,
    tenant_id,
    passed,
    figures::text as figures
from results
order by month, tenant_id nulls first
