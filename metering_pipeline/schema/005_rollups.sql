-- What each landing hour contributed to each event-time bucket. A void takes its event back as a
-- negative contribution of the later of their two landing hours (counted in voided_count).
create table rollups.usage_contributions (
    landed_hour timestamptz not null,
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    event_type text collate "C" not null,
    event_count bigint not null,
    voided_count bigint not null,
    value_sum numeric not null,
    value_moment numeric,
    value_min numeric,
    value_max numeric,
    value_latest numeric,
    latest_at timestamptz,
    latest_fingerprint uuid,
    event_digest numeric not null,
    payload_digest numeric not null,
    primary key (landed_hour, tenant_id, metric, hour, dimensions)
);
create index usage_contributions_by_bucket on rollups.usage_contributions (tenant_id, hour, metric);

-- The single values of a landing hour's contributions, for metrics of which no sum is enough: unique_count and
-- percentile. What a value was last, by the event's time: added, or removed.
create table rollups.unique_value_contributions (
    landed_hour timestamptz not null,
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    value text collate "C" not null,
    event_type text collate "C" not null,
    event_count bigint not null,
    voided_count bigint not null,
    latest_at timestamptz,
    latest_fingerprint uuid,
    removed boolean,
    primary key (landed_hour, tenant_id, metric, hour, dimensions, value)
);
create index unique_value_contributions_by_bucket
on rollups.unique_value_contributions (tenant_id, hour, metric);

-- Values that a metric could not read: reported, never counted as zero.
create table rollups.unreadable_values (
    landed_hour timestamptz not null,
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    event_type text collate "C" not null,
    reason text not null,
    event_count bigint not null,
    sample_file_id bigint not null,
    sample_line_number bigint not null,
    primary key (landed_hour, tenant_id, metric, hour, reason)
);

-- Events whose type no metric reads.
create table rollups.unmetered_events (
    landed_hour timestamptz not null,
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    hour timestamptz not null,
    event_count bigint not null,
    primary key (landed_hour, tenant_id, event_type, hour)
);

-- How late what landed was: the events that a landing hour owns, by the hours from the event's hour to it,
-- which is what the lookback is compared with. Negative: early.
create table rollups.arrival_delays (
    landed_hour timestamptz not null,
    event_type text collate "C" not null,
    delay_hours integer not null,
    event_count bigint not null,
    primary key (landed_hour, event_type, delay_hours)
);

-- The delays of the last 30 days of landing hours.
create view rollups.recent_delays with (security_invoker = true) as
select
    event_type,
    delay_hours,
    sum(event_count) as event_count
from rollups.arrival_delays
where landed_hour > (select max(landed_hour) - interval '30 days' from rollups.arrival_delays)
group by event_type, delay_hours;

-- The same in figures, by event type: from these the lookback is chosen.
create view rollups.lateness with (security_invoker = true) as
with running as (
    select
        *,
        sum(event_count) over (partition by event_type order by delay_hours) as arrived_count,
        sum(event_count) over (partition by event_type) as all_count,
        delay_hours * interval '1 hour' > catalog.setting_hours('lookback_hours') as is_beyond
    from rollups.recent_delays
)

select
    event_type,
    sum(event_count) as event_count,
    min(delay_hours) filter (where arrived_count >= 0.5 * all_count) as median_hours,
    min(delay_hours) filter (where arrived_count >= 0.99 * all_count) as p99_hours,
    min(delay_hours) filter (where arrived_count >= 0.999 * all_count) as p999_hours,
    max(delay_hours) as max_hours,
    coalesce(sum(event_count) filter (where is_beyond), 0) as beyond_lookback_count,
    coalesce(sum(event_count) filter (where is_beyond), 0) / sum(event_count) as beyond_lookback_share
from running
group by event_type;

-- What the hourly rollup still owes. With a gained hour, a bucket gained what this landing hour contributed and
-- nothing else has changed: it is added. Without one its contributions are merged again.
create table rollups.touched_buckets (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    gained_hour timestamptz,
    primary key (tenant_id, hour, metric, dimensions)
);

-- Usage per tenant, metric, hour and dimensions: the contributions merged.
create table rollups.usage_hourly (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    event_count bigint not null,
    value_sum numeric not null,
    value_moment numeric,
    value_min numeric,
    value_max numeric,
    value_latest numeric,
    latest_at timestamptz,
    latest_fingerprint uuid,
    event_digest numeric not null,
    payload_digest numeric not null,
    primary key (tenant_id, hour, metric, dimensions)
    include (event_count, value_sum)
);

-- Each value that a bucket's events had, once: the contributions merged.
create table rollups.unique_values_hourly (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    value text collate "C" not null,
    event_count bigint not null,
    latest_at timestamptz not null,
    latest_fingerprint uuid not null,
    removed boolean not null,
    primary key (tenant_id, metric, hour, dimensions, value)
);

-- What the daily rollup still owes. With a gained hour, the day gained what this landing hour contributed to it and
-- nothing else has changed: it is added. Without one its hours are summed again.
create table rollups.touched_days (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    day date not null,
    gained_hour timestamptz,
    primary key (tenant_id, metric, day)
);

create table rollups.usage_daily (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    day date not null,
    dimensions jsonb not null,
    event_count bigint not null,
    value_sum numeric not null,
    value_moment numeric,
    value_min numeric,
    value_max numeric,
    value_latest numeric,
    latest_at timestamptz,
    latest_fingerprint uuid,
    event_digest numeric not null,
    payload_digest numeric not null,
    primary key (tenant_id, metric, day, dimensions)
    include (event_count, value_sum)
);

-- Pending beyond the lookback: a warning, and a run of their own by a sensor.
create view rollups.late_arrivals with (security_invoker = true) as
select
    landed_hour,
    tenant_id,
    event_type,
    event_hour,
    landed_hour - event_hour as lateness,
    released
from ledger.pending
where landed_hour - event_hour > catalog.setting_hours('lookback_hours');

-- The hours of a tenant whose usage is not yet what the ledger says: pending, or touched and not yet merged.
create view rollups.indebted_hours with (security_invoker = true) as
select
    tenant_id,
    event_hour as hour
from ledger.pending
union
select
    tenant_id,
    hour
from rollups.touched_buckets;

-- The landing hours that a batch of contributions takes, and between which instants its events lie, as set for its
-- transaction. Called immutable though they are not, so that the planner knows the values and no row has them read
-- anew: only for statements that are planned each time they are run.
create function rollups.batch_hours() returns timestamptz[]
language sql immutable parallel safe
return current_setting('metering.landed_hours')::timestamptz[];

create function rollups.batch_starts_at() returns timestamptz
language sql immutable parallel safe
return current_setting('metering.first_event')::timestamptz;

create function rollups.batch_ends_at() returns timestamptz
language sql immutable parallel safe
return current_setting('metering.end_event')::timestamptz;
