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

-- What the hourly rollup still owes.
create table rollups.touched_buckets (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    primary key (tenant_id, metric, hour, dimensions)
);

-- Usage per tenant, metric, hour and dimensions: the contributions merged.
create table rollups.usage_hourly (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    hour timestamptz not null,
    dimensions jsonb not null,
    event_count bigint not null,
    value_sum numeric not null,
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

-- What the daily rollup still owes.
create table rollups.touched_days (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    day date not null,
    primary key (tenant_id, metric, day)
);

create table rollups.usage_daily (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    day date not null,
    dimensions jsonb not null,
    event_count bigint not null,
    value_sum numeric not null,
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
