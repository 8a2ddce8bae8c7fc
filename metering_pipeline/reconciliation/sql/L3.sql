-- L3: digests of landing = ledger = contributions = hourly usage, per landing hour, with hashes computed anew.
-- This is the second piece of code for everything that it checks: it shares nothing with the dbt models.
with
-- (a) What was landed is what was posted: the set of events (fingerprints), what they say (payload
-- hashes), and the posted columns themselves (content), bound together event by event.
landed_bytes as (
    select
        events.landed_hour,
        events.tenant_id,
        events.event_type,
        events.correlation_id,
        events.quantity,
        events.properties,
        events.erased_payload_hash,
        reconciliation.micros_since_1970(events.occurred_at) as since_1970,
        sha256(convert_to(
            events.tenant_id || chr(31) || events.event_type || chr(31)
            || reconciliation.micros_since_1970(events.occurred_at)::text || chr(31) || events.correlation_id, 'UTF8'
        )) as fingerprint_bytes,
        -- of a payload that was erased the hash that it had stands beside the record
        coalesce(uuid_send(events.erased_payload_hash), sha256(convert_to(
            case
                when scale(events.quantity) = 0 then events.quantity::text
                else rtrim(rtrim(events.quantity::text, '0'), '.')
            end || chr(31) || events.properties, 'UTF8'
        ))) as payload_bytes
    from landing.usage_events as events
    where
        events.landed_hour >= %(window_start)s and events.landed_hour < %(window_end)s
        and events.file_id = any(array(
            select files.file_id
            from landing.files
            where
                files.landed_hour >= %(window_start)s and files.landed_hour < %(window_end)s
                and files.superseded_by is null
        ))
),

landed_terms as (
    select
        *,
        reconciliation.second_eight_bytes(fingerprint_bytes) as fingerprint_term,
        reconciliation.second_eight_bytes(payload_bytes) as payload_term
    from landed_bytes
    -- or the planner would have each event hashed wherever one of these is named
    offset 0
),

landed as (
    select
        landed_hour,
        tenant_id,
        count(*) as landed_count,
        count(erased_payload_hash) as erased_count,
        sum(quantity) as landed_quantity,
        sum(fingerprint_term) as landed_digest,
        sum(payload_term) as landed_payload_digest,
        sum(
            jsonb_hash_extended(
                properties::jsonb, hash_numeric_extended(
                    quantity, hashtextextended(
                        correlation_id, hashtextextended(event_type, hashint8extended(since_1970, fingerprint_term))
                    )
                )
            )
        ) as landed_content_digest
    from landed_terms
    group by landed_hour, tenant_id
),

posted_rows as (
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        fingerprint,
        payload_hash,
        quantity,
        properties
    from ledger.usage_events
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    union all
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        fingerprint,
        payload_hash,
        quantity,
        properties
    from ledger.duplicates
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    union all
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        fingerprint,
        payload_hash,
        quantity,
        properties
    from ledger.conflicts
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    union all
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        fingerprint,
        payload_hash,
        quantity,
        properties
    from ledger.voids
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
),

posted_terms as (
    select
        *,
        reconciliation.micros_since_1970(occurred_at) as since_1970,
        reconciliation.second_eight_bytes(uuid_send(fingerprint)) as fingerprint_term,
        reconciliation.second_eight_bytes(uuid_send(payload_hash)) as payload_term
    from posted_rows
),

posted as (
    select
        landed_hour,
        tenant_id,
        count(*) as posted_count,
        sum(quantity) as posted_quantity,
        sum(fingerprint_term) as posted_digest,
        sum(payload_term) as posted_payload_digest,
        sum(
            jsonb_hash_extended(
                properties, hash_numeric_extended(
                    quantity, hashtextextended(
                        correlation_id, hashtextextended(event_type, hashint8extended(since_1970, fingerprint_term))
                    )
                )
            )
        ) as posted_content_digest
    from posted_terms
    group by landed_hour, tenant_id
),

digests as (
    select
        landed_hour,
        tenant_id,
        coalesce(landed_count, 0) as landed_count,
        coalesce(erased_count, 0) as erased_count,
        coalesce(posted_count, 0) as posted_count,
        coalesce(landed_quantity, 0) as landed_quantity,
        coalesce(posted_quantity, 0) as posted_quantity,
        coalesce(landed_digest, 0) as landed_digest,
        coalesce(posted_digest, 0) as posted_digest,
        coalesce(landed_payload_digest, 0) as landed_payload_digest,
        coalesce(posted_payload_digest, 0) as posted_payload_digest,
        coalesce(landed_content_digest, 0) = coalesce(posted_content_digest, 0) as content_equal
    from landed
    full outer join posted using (landed_hour, tenant_id)
),

judged_digests as materialized (
    select
        *,
        landed_count = posted_count
        and landed_quantity = posted_quantity
        and landed_digest = posted_digest
        and landed_payload_digest = posted_payload_digest
        and content_equal as passed
    from digests
),

-- Every further copy has its owner: a duplicate with the same payload, a conflict with another one. Looked
-- up one by one, by the owners' key: the ledger is much larger than the window.
orphans as (
    select
        duplicates.landed_hour,
        duplicates.tenant_id
    from ledger.duplicates
    left join lateral (
        select owners.payload_hash
        from ledger.usage_events as owners
        where owners.occurred_at = duplicates.occurred_at and owners.fingerprint = duplicates.fingerprint
        limit 1
    ) as owner on duplicates.kind = 'event'
    left join lateral (
        select voids.fingerprint
        from ledger.voids
        where voids.occurred_at = duplicates.occurred_at and voids.fingerprint = duplicates.fingerprint
        limit 1
    ) as void on duplicates.kind = 'void'
    where
        duplicates.landed_hour >= %(window_start)s and duplicates.landed_hour < %(window_end)s
        and case
            when duplicates.kind = 'event' then owner.payload_hash is distinct from duplicates.payload_hash
            else void.fingerprint is null
        end
    union all
    select
        conflicts.landed_hour,
        conflicts.tenant_id
    from ledger.conflicts
    left join lateral (
        select owners.payload_hash
        from ledger.usage_events as owners
        where owners.occurred_at = conflicts.occurred_at and owners.fingerprint = conflicts.fingerprint
        limit 1
    ) as owner on true
    where
        conflicts.landed_hour >= %(window_start)s and conflicts.landed_hour < %(window_end)s
        and coalesce(owner.payload_hash = conflicts.payload_hash, true)
),

failing_orphans as (
    select
        landed_hour,
        tenant_id,
        count(*) as copies_without_owner
    from orphans
    group by landed_hour, tenant_id
),

-- (b) What each landing hour contributed, recomputed from the ledger. A void takes its event back in
-- the later of their two landing hours.
signed_events as not materialized (
    select
        landed_hour as booked_hour,
        1 as sign,
        events.*
    from ledger.usage_events as events
    where events.landed_hour >= %(window_start)s and events.landed_hour < %(window_end)s
    union all
    select
        voids.landed_hour as booked_hour,
        -1 as sign,
        events.*
    from ledger.voids
    inner join ledger.usage_events as events
        on voids.occurred_at = events.occurred_at and voids.fingerprint = events.fingerprint
    where
        voids.landed_hour >= %(window_start)s and voids.landed_hour < %(window_end)s
        and events.landed_hour <= voids.landed_hour
    union all
    select
        events.landed_hour as booked_hour,
        -1 as sign,
        events.*
    from ledger.usage_events as events
    inner join ledger.voids
        on events.occurred_at = voids.occurred_at and events.fingerprint = voids.fingerprint
    where
        events.landed_hour >= %(window_start)s and events.landed_hour < %(window_end)s
        and voids.landed_hour < events.landed_hour
),

-- What is the same for all events is worked out once a metric.
metrics as not materialized (
    select
        metric,
        event_type,
        aggregation,
        value_property,
        dimensions,
        filter,
        filter = '{}' as reads_all
    from catalog.metrics
    offset 0
),

-- Every event with each metric that reads it; with none (null) if its event type is unmetered.
metered_events as not materialized (
    select
        events.booked_hour,
        events.sign,
        events.tenant_id,
        events.event_type,
        events.occurred_at,
        events.fingerprint,
        date_bin('1 hour', events.occurred_at, '1970-01-01 00:00:00+00'::timestamptz) as hour,
        metrics.metric,
        metrics.aggregation,
        -- as a text, which is cheaper to group by
        case cardinality(metrics.dimensions)
            when 0 then null
            when 1 then events.properties ->> metrics.dimensions[1]
            else array(
                select events.properties ->> names.dimension
                from unnest(metrics.dimensions) with ordinality as names (dimension, place)
                order by names.place
            )::text
        end as dimension_values,
        case cardinality(metrics.dimensions)
            when 0 then '{}'::jsonb
            when 1 then jsonb_build_object(metrics.dimensions[1], events.properties ->> metrics.dimensions[1])
            else jsonb_object(
                metrics.dimensions,
                array(
                    select events.properties ->> names.dimension
                    from unnest(metrics.dimensions) with ordinality as names (dimension, place)
                    order by names.place
                )
            )
        end as dimensions,
        case
            when metrics.aggregation = 'count' then 1::numeric
            when metrics.aggregation = 'unique_count' then case
                when
                    octet_length(events.properties ->> metrics.value_property) <= 255
                    and coalesce(events.properties ->> 'operation', 'add') in ('add', 'remove')
                    then 1::numeric
            end
            when metrics.value_property is null then events.quantity
            -- plain decimals only, as long as a quantity may be: no exponent, no NaN, no sign but a minus
            when (events.properties ->> metrics.value_property) ~ '^(-|)[0-9]{1,20}(|[.][0-9]{1,18})$'
                then (events.properties ->> metrics.value_property)::numeric
        end as value,
        events.properties ->> metrics.value_property as written_value,
        metrics.aggregation = 'unique_count' and events.properties @> '{"operation": "remove"}' as removed,
        reconciliation.second_eight_bytes(uuid_send(events.fingerprint)) as event_term,
        reconciliation.second_eight_bytes(uuid_send(events.payload_hash)) as payload_term
    from signed_events as events
    left join metrics
        on
            events.event_type = metrics.event_type
            and (metrics.reads_all or events.properties @> metrics.filter)
    where metrics.metric is not null or events.event_type not in (select known.event_type from catalog.metrics as known)
),

-- All of it in one pass. What cannot be read is judged once a group: by whether it has a value, and by its dimensions.
grouped_by_text as not materialized (
    select
        booked_hour as landed_hour,
        tenant_id,
        event_type,
        metric,
        hour,
        dimension_values,
        (value > '-Infinity'::numeric and value < 'Infinity'::numeric) is true as has_value,
        sum(sign) as event_count,
        sum(case when sign > 0 then value else -value end) as value_sum,
        sum(
            sign * value * (extract(epoch from hour) + extract(epoch from occurred_at - hour))
        ) filter (where aggregation = 'weighted_sum') as value_moment,
        min(value) filter (where sign > 0) as value_min,
        max(value) filter (where sign > 0) as value_max,
        coalesce(sum(event_term) filter (where sign > 0), 0)
        - coalesce(sum(event_term) filter (where sign < 0), 0) as event_digest,
        coalesce(sum(payload_term) filter (where sign > 0), 0)
        - coalesce(sum(payload_term) filter (where sign < 0), 0) as payload_digest
    from (
        select
            booked_hour,
            sign,
            tenant_id,
            event_type,
            occurred_at,
            hour,
            metric,
            aggregation,
            dimension_values,
            value,
            event_term,
            payload_term
        from metered_events
        -- or the planner would evaluate the value wherever it is named
        offset 0
    ) as events
    group by
        booked_hour, tenant_id, event_type, metric, hour, dimension_values,
        (value > '-Infinity'::numeric and value < 'Infinity'::numeric) is true
),

grouped as (
    select
        grouped_by_text.*,
        case cardinality(metrics.dimensions)
            when 0 then '{}'::jsonb
            when 1 then jsonb_build_object(metrics.dimensions[1], dimension_values)
            else jsonb_object(metrics.dimensions, dimension_values::text[])
        end as dimensions
    from grouped_by_text
    left join metrics on grouped_by_text.metric = metrics.metric
),

judged_groups as materialized (
    select
        *,
        metric is not null
        and has_value
        and (
            octet_length(dimensions::text) <= 255
            or not exists (
                select 1
                from jsonb_each_text(grouped.dimensions) as pairs (name, content)
                where octet_length(pairs.content) > 255
            )
        ) as readable
    from grouped
),

recomputed as (
    select *
    from judged_groups
    where readable
),

-- What no metric reads, and what a metric cannot read. Neither is usage, and neither may be forgotten: the one is
-- warned of, the other holds invoices.
unread_events as (
    select
        landed_hour,
        tenant_id,
        event_type,
        metric,
        hour,
        sum(event_count) as ledger_count,
        0 as noted_count
    from judged_groups
    where not readable
    group by landed_hour, tenant_id, event_type, metric, hour
),

noted_events as (
    select
        landed_hour,
        tenant_id,
        event_type,
        metric,
        hour,
        0 as ledger_count,
        event_count as noted_count
    from rollups.unreadable_values
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    union all
    select
        landed_hour,
        tenant_id,
        event_type,
        null as metric,
        hour,
        0 as ledger_count,
        event_count as noted_count
    from rollups.unmetered_events
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
),

readable_events as not materialized (
    select *
    from metered_events
    where
        value > '-Infinity'::numeric
        and value < 'Infinity'::numeric
        and (
            octet_length(dimensions::text) <= 255
            or not exists (
                select 1
                from jsonb_each_text(metered_events.dimensions) as pairs (name, content)
                where octet_length(pairs.content) > 255
            )
        )
),

latest_events as (
    select distinct on (booked_hour, tenant_id, metric, hour, dimensions)
        booked_hour as landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        value as value_latest,
        occurred_at as latest_at,
        fingerprint as latest_fingerprint
    from readable_events
    where aggregation = 'latest' and sign > 0
    order by booked_hour, tenant_id, metric, hour, dimensions, occurred_at desc, fingerprint desc
),

-- The single values, where sums are not enough, bucket by bucket.
written_values as (
    select
        booked_hour as landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        event_type,
        case
            when aggregation = 'unique_count' then written_value
            when scale(value) = 0 then value::text
            else rtrim(rtrim(value::text, '0'), '.')
        end as value,
        sign,
        occurred_at,
        fingerprint,
        removed
    from readable_events
    where aggregation in ('unique_count', 'percentile')
),

single_values as (
    select
        landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        event_type,
        value,
        sum(sign) as event_count,
        max(occurred_at) filter (where sign > 0) as latest_at,
        (
            array_agg(array[fingerprint::text, removed::text] order by occurred_at desc, fingerprint desc)
            filter (where sign > 0)
        )[1:1] as latest_event
    from written_values
    group by landed_hour, tenant_id, metric, hour, dimensions, event_type, value
),

kept_values as (
    select
        *,
        case
            when latest_at is not null then array[array[latest_fingerprint::text, removed::text]]
        end as latest_event
    from rollups.unique_value_contributions
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
),

compared_values as (
    select
        landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        min(coalesce(single_values.event_type, kept_values.event_type)) as event_type,
        bool_and(
            coalesce(single_values.event_count = kept_values.event_count, false)
            and (single_values.latest_at is not distinct from kept_values.latest_at)
            and (single_values.latest_event is not distinct from kept_values.latest_event)
        ) as passed
    from single_values
    full outer join kept_values using (landed_hour, tenant_id, metric, hour, dimensions, value)
    group by landed_hour, tenant_id, metric, hour, dimensions
),

contributions as materialized (
    select
        contributions.*,
        metrics.aggregation
    from rollups.usage_contributions as contributions
    -- one of a metric that no longer exists is a difference too
    left join catalog.metrics on contributions.metric = metrics.metric
    where contributions.landed_hour >= %(window_start)s and contributions.landed_hour < %(window_end)s
),

pending as (
    select
        landed_hour,
        tenant_id,
        event_type,
        event_hour
    from ledger.pending
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
),

compared_contributions as (
    select
        landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions,
        coalesce(recomputed.event_type, contributions.event_type, compared_values.event_type) as event_type,
        recomputed.event_count as ledger_count,
        contributions.event_count as contributed_count,
        recomputed.value_sum as ledger_sum,
        contributions.value_sum as contributed_sum,
        recomputed.event_digest as ledger_digest,
        contributions.event_digest as contributed_digest,
        coalesce(recomputed.event_count, 0) = coalesce(contributions.event_count, 0)
        and coalesce(recomputed.value_sum, 0) = coalesce(contributions.value_sum, 0)
        and (recomputed.value_moment is not distinct from contributions.value_moment)
        and coalesce(compared_values.passed, true)
        and coalesce(recomputed.event_digest, 0) = coalesce(contributions.event_digest, 0)
        and coalesce(recomputed.payload_digest, 0) = coalesce(contributions.payload_digest, 0)
        and (recomputed.value_min is not distinct from contributions.value_min)
        and (recomputed.value_max is not distinct from contributions.value_max)
        and (
            contributions.aggregation is distinct from 'latest'
            or (
                latest_events.value_latest is not distinct from contributions.value_latest
                and latest_events.latest_at is not distinct from contributions.latest_at
                and latest_events.latest_fingerprint is not distinct from contributions.latest_fingerprint
            )
        ) as passed
    from recomputed
    full outer join contributions using (landed_hour, tenant_id, metric, hour, dimensions)
    full outer join compared_values using (landed_hour, tenant_id, metric, hour, dimensions)
    left join latest_events using (landed_hour, tenant_id, metric, hour, dimensions)
),

judged_contributions as materialized (
    select
        compared_contributions.landed_hour,
        compared_contributions.tenant_id,
        compared_contributions.metric,
        compared_contributions.hour,
        compared_contributions.dimensions,
        compared_contributions.ledger_count,
        compared_contributions.contributed_count,
        compared_contributions.ledger_sum,
        compared_contributions.contributed_sum,
        compared_contributions.ledger_digest,
        compared_contributions.contributed_digest,
        compared_contributions.passed
    from compared_contributions
    left join pending
        on compared_contributions.landed_hour = pending.landed_hour
            and compared_contributions.tenant_id = pending.tenant_id
            and compared_contributions.event_type = pending.event_type
            and compared_contributions.hour = pending.event_hour
    where pending.landed_hour is null
),

failing_contributions as (
    select
        landed_hour,
        tenant_id,
        count(*) as buckets,
        (
            array_agg(
                jsonb_build_object(
                    'metric', metric,
                    'hour', hour,
                    'dimensions', dimensions::text,
                    'ledger_count', ledger_count,
                    'contributed_count', contributed_count,
                    'ledger_sum', ledger_sum::text,
                    'contributed_sum', contributed_sum::text,
                    'ledger_digest', ledger_digest::text,
                    'contributed_digest', contributed_digest::text
                )
                order by metric, hour, dimensions
            )
        )[1:3] as samples
    from judged_contributions
    where not passed
    group by landed_hour, tenant_id
),

unnoted_events as (
    select
        landed_hour,
        tenant_id,
        event_type,
        metric,
        hour,
        sum(ledger_count) as ledger_count,
        sum(noted_count) as noted_count
    from (
        select * from unread_events
        union all
        select * from noted_events
    ) as events
    where
        not exists (
            select 1
            from pending
            where
                pending.landed_hour = events.landed_hour
                and pending.tenant_id = events.tenant_id
                and pending.event_type = events.event_type
                and pending.event_hour = events.hour
        )
    group by landed_hour, tenant_id, event_type, metric, hour
    having sum(ledger_count) <> sum(noted_count)
),

failing_unnoted as (
    select
        landed_hour,
        tenant_id,
        count(*) as keys,
        (
            array_agg(
                jsonb_build_object(
                    'event_type', event_type, 'metric', metric, 'hour', hour, 'ledger_count', ledger_count,
                    'noted_count', noted_count
                )
                order by event_type, metric, hour
            )
        )[1:3] as samples
    from unnoted_events
    group by landed_hour, tenant_id
),

-- (c) The hourly usage of the buckets that these landing hours touch = the sum of all contributions to
-- them. A bucket that nothing contributed to counts under its own hour.
bucket_hours as materialized (
    select
        landed_hour,
        tenant_id,
        metric,
        hour,
        dimensions
    from contributions
    union all
    select
        hours.hour as landed_hour,
        hours.tenant_id,
        hours.metric,
        hours.hour,
        hours.dimensions
    from rollups.usage_hourly as hours
    where
        hours.hour >= %(window_start)s and hours.hour < %(window_end)s
        and not exists (
            select 1
            from rollups.usage_contributions as contributions
            where
                contributions.tenant_id = hours.tenant_id
                and contributions.hour = hours.hour
                and contributions.metric = hours.metric
                and contributions.dimensions = hours.dimensions
        )
),

buckets as (
    select
        tenant_id,
        metric,
        hour,
        dimensions
    from bucket_hours
    except
    select
        tenant_id,
        metric,
        hour,
        dimensions
    from rollups.touched_buckets
),

merged as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        coalesce(sum(contributions.voided_count), 0) as voided_count,
        coalesce(sum(contributions.event_count), 0) as event_count,
        coalesce(sum(contributions.value_sum), 0) as value_sum,
        sum(contributions.value_moment) as value_moment,
        min(contributions.value_min) as value_min,
        max(contributions.value_max) as value_max,
        max(contributions.latest_at) as latest_at,
        (
            array_agg(
                contributions.latest_fingerprint
                order by contributions.latest_at desc nulls last, contributions.latest_fingerprint desc
            )
        )[1] as latest_fingerprint,
        (
            array_agg(
                contributions.value_latest
                order by contributions.latest_at desc nulls last, contributions.latest_fingerprint desc
            )
        )[1] as value_latest,
        coalesce(sum(contributions.event_digest), 0) as event_digest,
        coalesce(sum(contributions.payload_digest), 0) as payload_digest
    from buckets
    left join rollups.usage_contributions as contributions using (tenant_id, metric, hour, dimensions)
    group by tenant_id, metric, hour, dimensions
),

-- The single values of these buckets, and of those in which nothing of them should be.
merged_values as (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        value,
        sum(contributions.event_count) as event_count,
        max(contributions.latest_at) as latest_at
    from buckets
    inner join rollups.unique_value_contributions as contributions using (tenant_id, metric, hour, dimensions)
    group by tenant_id, metric, hour, dimensions, value
    having sum(contributions.event_count) <> 0
),

hourly_values as (
    select hours.*
    from buckets
    inner join rollups.unique_values_hourly as hours using (tenant_id, metric, hour, dimensions)
),

wrong_values as (
    select distinct
        tenant_id,
        metric,
        hour,
        dimensions
    from merged_values
    full outer join hourly_values using (tenant_id, metric, hour, dimensions, value)
    left join merged using (tenant_id, metric, hour, dimensions)
    where
        merged_values.event_count is distinct from hourly_values.event_count
        or (merged.voided_count = 0 and merged_values.latest_at is distinct from hourly_values.latest_at)
),

wrong_buckets as materialized (
    select
        tenant_id,
        metric,
        hour,
        dimensions,
        merged.event_count as contributed_count,
        hours.event_count as hourly_count,
        merged.value_sum as contributed_sum,
        hours.value_sum as hourly_sum,
        merged.event_digest as contributed_digest,
        hours.event_digest as hourly_digest
    from merged
    left join rollups.usage_hourly as hours using (tenant_id, metric, hour, dimensions)
    left join wrong_values using (tenant_id, metric, hour, dimensions)
    where
        wrong_values.tenant_id is not null
        or coalesce(merged.value_moment, 0) <> coalesce(hours.value_moment, 0)
        or merged.event_count <> coalesce(hours.event_count, 0)
        or merged.value_sum <> coalesce(hours.value_sum, 0)
        or merged.event_digest <> coalesce(hours.event_digest, 0)
        or merged.payload_digest <> coalesce(hours.payload_digest, 0)
        or (
            merged.voided_count = 0
            and (
                merged.value_min is distinct from hours.value_min
                or merged.value_max is distinct from hours.value_max
                or merged.value_latest is distinct from hours.value_latest
                or merged.latest_at is distinct from hours.latest_at
                or merged.latest_fingerprint is distinct from hours.latest_fingerprint
            )
        )
),

failing_buckets as (
    select
        bucket_hours.landed_hour,
        tenant_id,
        count(*) as buckets,
        (
            array_agg(
                jsonb_build_object(
                    'metric', metric,
                    'hour', hour,
                    'dimensions', dimensions::text,
                    'contributed_count', wrong_buckets.contributed_count,
                    'hourly_count', wrong_buckets.hourly_count,
                    'contributed_sum', wrong_buckets.contributed_sum::text,
                    'hourly_sum', wrong_buckets.hourly_sum::text,
                    'contributed_digest', wrong_buckets.contributed_digest::text,
                    'hourly_digest', wrong_buckets.hourly_digest::text
                )
                order by metric, hour, dimensions
            )
        )[1:3] as samples
    from wrong_buckets
    inner join bucket_hours using (tenant_id, metric, hour, dimensions)
    group by bucket_hours.landed_hour, tenant_id
),

failing as materialized (
    select
        landed_hour,
        tenant_id,
        jsonb_strip_nulls(jsonb_build_object(
            'landing_to_ledger', case
                when digests.landed_hour is not null
                    then jsonb_build_object(
                        'landed_count', digests.landed_count,
                        'posted_count', digests.posted_count,
                        'landed_quantity', digests.landed_quantity::text,
                        'posted_quantity', digests.posted_quantity::text,
                        'landed_digest', digests.landed_digest::text,
                        'posted_digest', digests.posted_digest::text,
                        'landed_payload_digest', digests.landed_payload_digest::text,
                        'posted_payload_digest', digests.posted_payload_digest::text,
                        'content_equal', digests.content_equal
                    )
            end,
            'copies_without_owner', failing_orphans.copies_without_owner,
            'ledger_to_contributions', case
                when failing_contributions.buckets > 0
                    then jsonb_build_object(
                        'buckets', failing_contributions.buckets, 'samples', failing_contributions.samples
                    )
            end,
            'contributions_to_hourly', case
                when failing_buckets.buckets > 0
                    then jsonb_build_object('buckets', failing_buckets.buckets, 'samples', failing_buckets.samples)
            end,
            'unread_events', case
                when failing_unnoted.keys > 0
                    then jsonb_build_object('keys', failing_unnoted.keys, 'samples', failing_unnoted.samples)
            end
        )) as figures
    from (
        select *
        from judged_digests
        where not passed
    ) as digests
    full outer join failing_orphans using (landed_hour, tenant_id)
    full outer join failing_contributions using (landed_hour, tenant_id)
    full outer join failing_buckets using (landed_hour, tenant_id)
    full outer join failing_unnoted using (landed_hour, tenant_id)
),

windows as (
    select landed_hour from judged_digests
    union
    select landed_hour from failing
    union
    select landed_hour
    from landing.files
    where landed_hour >= %(window_start)s and landed_hour < %(window_end)s
    union
    select window_start
    from reconciliation.law_results
    where
        law = 'L3'
        and window_start >= %(window_start)s and window_start < %(window_end)s
        and window_end = window_start + interval '1 hour'
),

digest_sums as (
    select
        landed_hour,
        sum(landed_count) as landed_count,
        sum(erased_count) as erased_count,
        sum(posted_count) as posted_count,
        sum(landed_quantity) as landed_quantity,
        sum(posted_quantity) as posted_quantity,
        sum(landed_digest) as landed_digest,
        sum(posted_digest) as posted_digest
    from judged_digests
    group by landed_hour
),

contribution_sums as (
    select
        landed_hour,
        count(*) as contributions,
        sum(contributed_count) as contributed_count
    from judged_contributions
    group by landed_hour
),

pending_sums as (
    select
        landed_hour,
        count(*) as pending_keys
    from pending
    group by landed_hour
),

failing_sums as (
    select
        landed_hour,
        count(*) as failing_tenants
    from failing
    group by landed_hour
),

results as (
    select
        landed_hour,
        null::text as tenant_id,
        failing_sums.landed_hour is null as passed,
        jsonb_build_object(
            'landed_count', coalesce(digest_sums.landed_count, 0),
            'erased_payloads', coalesce(digest_sums.erased_count, 0),
            'posted_count', coalesce(digest_sums.posted_count, 0),
            'landed_quantity', coalesce(digest_sums.landed_quantity, 0)::text,
            'posted_quantity', coalesce(digest_sums.posted_quantity, 0)::text,
            'landed_digest', coalesce(digest_sums.landed_digest, 0)::text,
            'posted_digest', coalesce(digest_sums.posted_digest, 0)::text,
            'contributions', coalesce(contribution_sums.contributions, 0),
            'contributed_count', coalesce(contribution_sums.contributed_count, 0),
            'pending_keys', coalesce(pending_sums.pending_keys, 0),
            'failing_tenants', coalesce(failing_sums.failing_tenants, 0)
        ) as figures
    from windows
    left join digest_sums using (landed_hour)
    left join contribution_sums using (landed_hour)
    left join pending_sums using (landed_hour)
    left join failing_sums using (landed_hour)
    union all
    select
        landed_hour,
        tenant_id,
        false as passed,
        figures
    from failing
)

select
    landed_hour as window_start,
    landed_hour + interval '1 hour' as window_end,
    tenant_id,
    passed,
    figures::text as figures
from results
order by landed_hour, tenant_id nulls first
