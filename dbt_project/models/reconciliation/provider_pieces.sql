{{ config(materialized='table_function') }}

-- Each value of a provider beside our usage of the same instants, and our usage where the provider has no value.
-- Of a source the newest word counts: a period that a later fetch has asked for anew is left to that one.

with fetches as (
    select *
    from {{ source('reconciliation', 'provider_fetches') }} as fetches
    where
        fetches.source = given_source
        and not exists (
            select 1
            from {{ source('reconciliation', 'provider_fetches') }} as later
            where
                later.source = given_source
                and later.fetch_id > fetches.fetch_id
                and later.starts_at <= fetches.starts_at
                and later.ends_at >= fetches.ends_at
        )
),

-- Hours and days are added up by UTC month; a longer value is a period of its own.
told as (
    select
        usage.*,
        case
            when small.is_small then greatest({{ utc_month_start('usage.starts_at') }}, fetches.starts_at)
            else usage.starts_at
        end as period_start,
        case
            when small.is_small then least({{ utc_month_end('usage.starts_at') }}, fetches.ends_at)
            else usage.ends_at
        end as period_end
    from fetches
    inner join {{ source('reconciliation', 'provider_usage') }} as usage on fetches.fetch_id = usage.fetch_id
    cross join lateral (
        select
            usage.ends_at - usage.starts_at <= interval '1 day'
            and usage.ends_at <= {{ utc_month_end('usage.starts_at') }} as is_small
    ) as small
),

-- Several customers may be one tenant.
given as (
    select
        told.fetch_id,
        told.tenant_id,
        string_agg(distinct told.customer, ', ') as customer,
        told.metric,
        string_agg(distinct told.meter, ', ') as meter,
        metrics.aggregation,
        told.starts_at,
        told.ends_at,
        told.period_start,
        told.period_end,
        {{ quantity_of_pieces('metrics.aggregation', 'told.value', 'told.starts_at') }} as theirs
    from told
    inner join {{ source('catalog', 'metrics') }} as metrics on told.metric = metrics.metric
    where told.tenant_id is not null
    group by
        told.fetch_id, told.tenant_id, told.metric, metrics.aggregation, told.starts_at, told.ends_at,
        told.period_start, told.period_end
),

covered as (
    select
        fetch_id,
        tenant_id,
        metric,
        range_agg(tstzrange(starts_at, ends_at)) as spans
    from given
    group by fetch_id, tenant_id, metric
),

expected as (
    select
        fetches.fetch_id,
        tenants.tenant_id,
        metrics.metric
    from fetches
    inner join {{ source('catalog', 'metrics') }} as metrics on metrics.metric = any(fetches.metrics)
    cross join {{ source('catalog', 'tenants') }} as tenants
    union
    select
        fetch_id,
        tenant_id,
        metric
    from covered
),

months as (
    select
        fetches.*,
        greatest(month_start, fetches.starts_at) as period_start,
        least({{ utc_month_end('month_start') }}, fetches.ends_at) as period_end
    from fetches
    cross join lateral generate_series(
        {{ utc_month_start('fetches.starts_at') }}, fetches.ends_at - interval '1 microsecond', '1 month', 'UTC'
    ) as month_start
),

-- What lies at the edges of a span that is only that of its rows is no gap: days begin in their own zones.
gaps as (
    select
        months.fetch_id,
        expected.tenant_id,
        expected.metric,
        lower(gap) as starts_at,
        upper(gap) as ends_at,
        months.period_start,
        months.period_end
    from months
    inner join expected on months.fetch_id = expected.fetch_id
    left join covered
        on expected.fetch_id = covered.fetch_id
            and expected.tenant_id = covered.tenant_id
            and expected.metric = covered.metric
    cross join lateral unnest(
        tstzmultirange(tstzrange(months.period_start, months.period_end)) - coalesce(covered.spans, '{}')
    ) as gap
    where
        months.is_exact
        or upper(gap) - lower(gap) >= interval '1 day'
        or (lower(gap) > months.starts_at and upper(gap) < months.ends_at)
),

pieces as (
    select *
    from given
    union all
    select
        gaps.fetch_id,
        gaps.tenant_id,
        null as customer,
        gaps.metric,
        null as meter,
        metrics.aggregation,
        gaps.starts_at,
        gaps.ends_at,
        gaps.period_start,
        gaps.period_end,
        null as theirs
    from gaps
    inner join {{ source('catalog', 'metrics') }} as metrics on gaps.metric = metrics.metric
),

compared as (
    select
        pieces.*,
        ours.quantity as ours
    from pieces
    cross join lateral (
        select {{ quantity_of_hours('pieces.aggregation', 'hours') }} as quantity
        from (
            select
                {{ figure_columns() }}
            from {{ ref('usage_realtime') }}
            where
                tenant_id = pieces.tenant_id
                and metric = pieces.metric
                and hour >= pieces.starts_at
                and hour < pieces.ends_at
                and {{ hour_of('pieces.starts_at') }} = pieces.starts_at
                and {{ hour_of('pieces.ends_at') }} = pieces.ends_at
            union all
            select
                {{ figure_columns() }}
            from {{ ref('usage_between') }}(pieces.tenant_id, pieces.metric, pieces.starts_at, pieces.ends_at)
            where
                {{ hour_of('pieces.starts_at') }} <> pieces.starts_at
                or {{ hour_of('pieces.ends_at') }} <> pieces.ends_at
        ) as hours
    ) as ours
    where pieces.theirs is not null or ours.quantity <> 0
    union all
    select
        fetch_id,
        tenant_id,
        customer,
        metric,
        meter,
        null as aggregation,
        starts_at,
        ends_at,
        period_start,
        period_end,
        value as theirs,
        null as ours
    from told
    where tenant_id is null or metric is null
)

select
    compared.fetch_id,
    compared.tenant_id,
    compared.customer,
    compared.metric,
    compared.meter,
    compared.aggregation,
    compared.period_start,
    compared.period_end,
    compared.starts_at,
    compared.ends_at,
    compared.theirs,
    compared.ours,
    coalesce(compared.theirs, 0) - coalesce(compared.ours, 0) as difference,
    fetches.fetched_at
from compared
inner join fetches on compared.fetch_id = fetches.fetch_id
where
    not exists (
        select 1
        from fetches as later
        where
            later.fetch_id > fetches.fetch_id
            and later.starts_at <= compared.period_start
            and later.ends_at >= compared.period_end
    )
