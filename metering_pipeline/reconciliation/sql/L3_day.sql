-- L3 of a UTC day of usage: contributions = hourly usage = daily usage, for every bucket of the day, whichever
-- landing hours it came from, or none. With contributions = ledger (L3 of all landing hours) that is everything.
with
contributed as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        min(landed_hour) as landed_from,
        max(landed_hour) as landed_to,
        sum(voided_count) as voided_count,
        nullif(sum(event_count), 0) as event_count,
        sum(value_sum) as value_sum,
        sum(value_moment) as value_moment,
        min(value_min) as value_min,
        max(value_max) as value_max,
        (array_agg(value_latest order by latest_at desc nulls last, latest_fingerprint desc))[1] as value_latest,
        max(latest_at) as latest_at,
        (array_agg(latest_fingerprint order by latest_at desc nulls last, latest_fingerprint desc))[1]
            as latest_fingerprint,
        sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
    from rollups.usage_contributions
    where hour >= %(window_start)s and hour < %(window_end)s
    group by tenant_id, metric, hour, dimensions
),

hourly as materialized (
    select *
    from rollups.usage_hourly
    where hour >= %(window_start)s and hour < %(window_end)s
),

-- Single values are kept where no sum is enough; each bucket's are as many as its events.
single_values as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        sum(event_count) as event_count
    from rollups.unique_values_hourly
    where hour >= %(window_start)s and hour < %(window_end)s
    group by tenant_id, metric, hour, dimensions
),

keeping as (
    select
        metric,
        true as keeps_values
    from catalog.metrics
    where aggregation in ('unique_count', 'percentile')
),

compared_hours as materialized (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        contributed.landed_from is null as unlanded,
        contributed.event_count as contributed_count,
        hourly.event_count as hourly_count,
        contributed.value_sum as contributed_sum,
        hourly.value_sum as hourly_sum,
        contributed.event_digest as contributed_digest,
        hourly.event_digest as hourly_digest,
        -- a bucket whose events were all taken back does not exist; where one was, what cannot be added up
        -- does not follow from the contributions
        array_remove(array[
            case when contributed.event_count is distinct from hourly.event_count then 'event_count' end,
            case when coalesce(contributed.value_sum, 0) <> coalesce(hourly.value_sum, 0) then 'value_sum' end,
            case
                when coalesce(contributed.value_moment, 0) <> coalesce(hourly.value_moment, 0) then 'value_moment'
            end,
            case
                when
                    single_values.event_count is distinct from case
                        when keeping.keeps_values then hourly.event_count
                    end
                    then 'unique_values_hourly'
            end,
            case
                when coalesce(contributed.event_digest, 0) <> coalesce(hourly.event_digest, 0) then 'event_digest'
            end,
            case
                when coalesce(contributed.payload_digest, 0) <> coalesce(hourly.payload_digest, 0)
                    then 'payload_digest'
            end,
            case
                when contributed.voided_count > 0 then null
                when contributed.value_min is distinct from hourly.value_min then 'value_min'
            end,
            case
                when contributed.voided_count > 0 then null
                when contributed.value_max is distinct from hourly.value_max then 'value_max'
            end,
            case
                when contributed.voided_count > 0 then null
                when
                    contributed.value_latest is distinct from hourly.value_latest
                    or contributed.latest_at is distinct from hourly.latest_at
                    or contributed.latest_fingerprint is distinct from hourly.latest_fingerprint
                    then 'value_latest'
            end
        ], null) as differs_in
    from contributed
    full outer join hourly using (tenant_id, metric, hour, dimensions)
    full outer join single_values using (tenant_id, metric, hour, dimensions)
    left join keeping using (metric)
    left join rollups.touched_buckets as queued using (tenant_id, metric, hour, dimensions)
    where queued.tenant_id is null
),

summed as (
    select
        tenant_id,
        metric,
        dimensions,
        sum(event_count) as event_count,
        sum(value_sum) as value_sum,
        sum(value_moment) as value_moment,
        min(value_min) as value_min,
        max(value_max) as value_max,
        (array_agg(value_latest order by latest_at desc nulls last, latest_fingerprint desc))[1] as value_latest,
        max(latest_at) as latest_at,
        (array_agg(latest_fingerprint order by latest_at desc nulls last, latest_fingerprint desc))[1]
            as latest_fingerprint,
        sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
    from hourly
    group by tenant_id, metric, dimensions
),

daily as materialized (
    select *
    from rollups.usage_daily
    where day = (%(window_start)s::timestamptz at time zone 'UTC')::date
),

compared_days as materialized (
    select
        tenant_id,
        metric,
        dimensions,
        summed.event_count as hourly_count,
        daily.event_count as daily_count,
        summed.value_sum as hourly_sum,
        daily.value_sum as daily_sum,
        summed.event_digest as hourly_digest,
        daily.event_digest as daily_digest,
        array_remove(array[
            case when summed.event_count is distinct from daily.event_count then 'event_count' end,
            case when summed.value_sum is distinct from daily.value_sum then 'value_sum' end,
            case when summed.value_moment is distinct from daily.value_moment then 'value_moment' end,
            case when summed.event_digest is distinct from daily.event_digest then 'event_digest' end,
            case when summed.payload_digest is distinct from daily.payload_digest then 'payload_digest' end,
            case when summed.value_min is distinct from daily.value_min then 'value_min' end,
            case when summed.value_max is distinct from daily.value_max then 'value_max' end,
            case
                when
                    summed.value_latest is distinct from daily.value_latest
                    or summed.latest_at is distinct from daily.latest_at
                    or summed.latest_fingerprint is distinct from daily.latest_fingerprint
                    then 'value_latest'
            end
        ], null) as differs_in
    from summed
    full outer join daily using (tenant_id, metric, dimensions)
    where not exists (
        select 1
        from rollups.touched_days as queued
        where
            queued.tenant_id = coalesce(summed.tenant_id, daily.tenant_id)
            and queued.metric = coalesce(summed.metric, daily.metric)
            and queued.day = (%(window_start)s::timestamptz at time zone 'UTC')::date
    )
),

failing_hours as (
    select
        tenant_id,
        count(*) as buckets,
        count(*) filter (where unlanded) as unlanded,
        (
            array_agg(
                jsonb_build_object(
                    'metric', metric,
                    'hour', hour,
                    'dimensions', dimensions::text,
                    'contributed_count', contributed_count,
                    'hourly_count', hourly_count,
                    'contributed_sum', contributed_sum::text,
                    'hourly_sum', hourly_sum::text,
                    'contributed_digest', contributed_digest::text,
                    'hourly_digest', hourly_digest::text,
                    'differs_in', differs_in
                )
                order by metric, hour, dimensions
            )
        )[1:3] as samples
    from compared_hours
    where differs_in <> '{}'
    group by tenant_id
),

failing_days as (
    select
        tenant_id,
        count(*) as buckets,
        count(*) filter (where hourly_count is null) as unlanded,
        (
            array_agg(
                jsonb_build_object(
                    'metric', metric,
                    'day', (%(window_start)s::timestamptz at time zone 'UTC')::date,
                    'dimensions', dimensions::text,
                    'hourly_count', hourly_count,
                    'daily_count', daily_count,
                    'hourly_sum', hourly_sum::text,
                    'daily_sum', daily_sum::text,
                    'hourly_digest', hourly_digest::text,
                    'daily_digest', daily_digest::text,
                    'differs_in', differs_in
                )
                order by metric, dimensions
            )
        )[1:3] as samples
    from compared_days
    where differs_in <> '{}'
    group by tenant_id
),

-- Which landing hours a rebuild has to read for them. None is to blame for a bucket that nothing contributed to.
failing_metrics as (
    select
        tenant_id,
        metric
    from compared_hours
    where differs_in <> '{}'
    union
    select
        tenant_id,
        metric
    from compared_days
    where differs_in <> '{}'
),

landed as (
    select
        tenant_id,
        min(landed_from) as landed_from,
        max(landed_to) as landed_to
    from contributed
    inner join failing_metrics using (tenant_id, metric)
    group by tenant_id
),

failing as materialized (
    select
        tenant_id,
        jsonb_strip_nulls(jsonb_build_object(
            'landed_from', landed.landed_from,
            'landed_to', landed.landed_to,
            'unlanded_buckets', coalesce(hours.unlanded, 0) + coalesce(days.unlanded, 0),
            'contributions_to_hourly', case
                when hours.tenant_id is not null
                    then jsonb_build_object('buckets', hours.buckets, 'samples', hours.samples)
            end,
            'hourly_to_daily', case
                when days.tenant_id is not null
                    then jsonb_build_object('buckets', days.buckets, 'samples', days.samples)
            end
        )) as figures
    from failing_hours as hours
    full outer join failing_days as days using (tenant_id)
    left join landed using (tenant_id)
),

results as (
    select
        null::text as tenant_id,
        not exists (select 1 from failing) as passed,
        jsonb_build_object(
            'contributed_count', (select coalesce(sum(event_count), 0) from contributed),
            'hourly_count', (select coalesce(sum(event_count), 0) from hourly),
            'daily_count', (select coalesce(sum(event_count), 0) from daily),
            'contributed_digest', (select coalesce(sum(event_digest), 0)::text from contributed),
            'hourly_digest', (select coalesce(sum(event_digest), 0)::text from hourly),
            'daily_digest', (select coalesce(sum(event_digest), 0)::text from daily),
            'hourly_buckets', (select count(*) from compared_hours),
            'daily_buckets', (select count(*) from compared_days),
            'failing_tenants', (select count(*) from failing)
        ) as figures
    union all
    select
        tenant_id,
        false as passed,
        figures
    from failing
)

select
    %(window_start)s::timestamptz as window_start,
    %(window_end)s::timestamptz as window_end,
    tenant_id,
    passed,
    figures::text as figures
from results
order by tenant_id nulls first
