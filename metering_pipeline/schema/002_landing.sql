-- One row an hour from the first hour on, written by listings, empty hours too.
-- Sealed: listed after the hour's end plus the settle time, and every file seen there is landed and
-- readable. Posted: the ledger holds what was landed last; null while it owes that.
create table landing.hours (
    landed_hour timestamptz primary key,
    file_count integer not null,
    listed_at timestamptz not null,
    landed_at timestamptz,
    posted_at timestamptz,
    sealed boolean not null
);

-- One row a file version. The current version of a key is the one not superseded. modified_at is the file's
-- own time when it was landed or last found to have the same content: another one means to look again.
-- missing_since: a listing did not find the file of this current version in the landing root; it counts on.
create table landing.files (
    file_id bigint generated always as identity primary key,
    file_key text collate "C" not null,
    landed_hour timestamptz not null,
    content_sha256 text not null,
    size_bytes bigint not null,
    accepted_count bigint not null,
    rejected_count bigint not null,
    earliest_event_date date not null,
    future_tolerance_minutes integer not null,
    superseded_by bigint references landing.files,
    landed_at timestamptz not null,
    modified_at timestamptz not null,
    missing_since timestamptz
);
create unique index files_current_version on landing.files (file_key) where superseded_by is null;
create index files_by_hour on landing.files (landed_hour);
create index files_missing on landing.files (landed_hour) where missing_since is not null;

-- Every valid event as received. Append-only; the quantity is exact, the properties are canonical JSON text.
create table landing.usage_events (
    landed_hour timestamptz not null,
    file_id bigint not null,
    line_number bigint not null,
    tenant_id text collate "C" not null,
    event_type text collate "C" not null,
    occurred_at timestamptz not null,
    correlation_id text collate "C" not null,
    quantity numeric not null,
    properties text not null,
    void boolean not null,
    -- stands in for a payload that was erased: without it the hash is computed from the row
    erased_payload_hash uuid
) partition by range (landed_hour);
-- Not one of block ranges: PostgreSQL 18 can lose rows of an insert beside which another transaction summarizes it.
create index usage_events_by_hour on landing.usage_events (landed_hour, file_id);

-- Every record that is not a valid event, with the reason and the bytes as they came.
create table landing.rejected_events (
    landed_hour timestamptz not null,
    file_id bigint not null references landing.files,
    line_number bigint not null,
    reason text not null,
    detail text not null,
    raw_line bytea not null,
    primary key (file_id, line_number)
);
create index rejected_events_by_hour on landing.rejected_events (landed_hour);

-- What producers say that they sent: one row a version of a manifest, as with files. The source is null where it
-- cannot be told. With problems (field: what is wrong) nothing else of it is kept.
create table landing.manifests (
    manifest_id bigint generated always as identity primary key,
    file_key text collate "C" not null,
    landed_hour timestamptz not null,
    source text collate "C",
    problems text[] not null,
    content_sha256 text not null,
    size_bytes bigint not null,
    superseded_by bigint references landing.manifests deferrable initially deferred,
    landed_at timestamptz not null,
    modified_at timestamptz not null,
    missing_since timestamptz
);
create unique index manifests_current_version on landing.manifests (file_key) where superseded_by is null;
create index manifests_by_hour on landing.manifests (landed_hour);

-- The files that a manifest speaks for, by the keys that they have in landing.files.
create table landing.manifest_files (
    manifest_id bigint not null references landing.manifests,
    file_key text collate "C" not null,
    size_bytes bigint,
    content_sha256 text,
    primary key (manifest_id, file_key)
);

-- What a manifest says that its files hold, copies and voids included. event_digest: the sum of the fingerprints'
-- low 64 bits, signed; null where it does not say.
create table landing.manifest_totals (
    manifest_id bigint not null references landing.manifests,
    event_type text collate "C" not null,
    event_count bigint not null,
    quantity numeric not null,
    event_digest numeric,
    primary key (manifest_id, event_type)
);

-- The same of what landed: the accepted records of each file version that a manifest names, added up once.
create table landing.file_totals (
    file_id bigint not null references landing.files,
    event_type text collate "C" not null,
    event_count bigint not null,
    quantity numeric not null,
    event_digest numeric not null,
    primary key (file_id, event_type)
);
