-- Each distinct event once. The fingerprint contains the time of occurrence, so uniqueness within
-- a day's partition is uniqueness over all of history.
create table ledger.usage_events (
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    recorded_at timestamptz not null,
    unique (occurred_at, fingerprint)
) partition by range (occurred_at);
create index usage_events_by_landed_hour on ledger.usage_events (landed_hour);

-- Further copies with the owner's payload; further copies of a void have kind 'void'.
create table ledger.duplicates (
    kind text not null check (kind in ('event', 'void')),
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    recorded_at timestamptz not null,
    primary key (file_id, line_number)
);
create index duplicates_by_fingerprint on ledger.duplicates (fingerprint);
create index duplicates_by_landed_hour on ledger.duplicates (landed_hour);

-- Further copies with another payload: kept, warned about, never counted.
create table ledger.conflicts (
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    recorded_at timestamptz not null,
    primary key (file_id, line_number)
);
create index conflicts_by_fingerprint on ledger.conflicts (fingerprint);
create index conflicts_by_landed_hour on ledger.conflicts (landed_hour);

-- Cancelled events: owned by the smallest copy of the void, payload kept but ignored.
create table ledger.voids (
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    recorded_at timestamptz not null,
    primary key (occurred_at, fingerprint)
);
create index voids_by_landed_hour on ledger.voids (landed_hour);

-- What only a superseded version of a file held: one row a file key, kind and fingerprint.
create table ledger.withdrawn (
    file_key text collate "C" not null,
    kind text not null check (kind in ('event', 'void')),
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    fingerprint uuid not null,
    payload_hash uuid not null,
    quantity numeric not null,
    properties jsonb not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    recorded_at timestamptz not null,
    primary key (file_key, kind, fingerprint)
);

-- Events that agree with an earlier one in tenant, type and correlation id but not in time: a producer
-- that stamps its retries anew. Both count, and it stays listed, until one of the two is voided (by command, not by
-- guess) or withdrawn.
create table ledger.suspects (
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    correlation_id text collate "C" not null,
    occurred_at timestamptz not null,
    fingerprint uuid not null,
    first_occurred_at timestamptz not null,
    first_fingerprint uuid not null,
    quantity numeric not null,
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    primary key (occurred_at, fingerprint)
);

-- What the rollups still owe: keys whose contribution the ledger has changed.
-- Released: to be consumed although the event is later than the lookback.
-- The key's order is that of whoever reads a tenant's usage in real time.
create table ledger.pending (
    landed_hour timestamptz not null,
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    event_hour timestamptz not null,
    released boolean not null default false,
    primary key (tenant_id, event_hour, event_type, landed_hour)
);
