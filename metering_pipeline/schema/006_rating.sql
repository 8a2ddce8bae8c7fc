-- What rating still owes: usage that changed, by tenant, metric and UTC day.
create table rating.touched (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    day date not null,
    primary key (tenant_id, metric, day)
);

-- Spans of time whose usage must be attributed anew: a period or a charge's slice came, went or moved.
-- Written by the billing periods, consumed by the usage of the periods.
create table rating.changed_ranges (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    range_start timestamptz not null,
    range_end timestamptz not null,
    primary key (tenant_id, metric, range_start, range_end)
);

-- Slices whose line must be rated again. Written by both, consumed by the rated lines.
create table rating.touched_slices (
    subscription_id text not null,
    charge_id text not null,
    component text not null,
    slice_start timestamptz not null,
    primary key (subscription_id, charge_id, component, slice_start)
);

-- The catalog and the end of the landed hours that the billing periods were built from.
create table rating.built_from (
    only_row boolean primary key default true check (only_row),
    catalog_version bigint,
    horizon timestamptz
);
insert into rating.built_from (only_row) values (true);

-- What the catalog said about each subscription when its periods were built, as a digest.
create table rating.built_subscriptions (
    subscription_id text primary key,
    terms_sha256 bytea not null
);

-- A subscription has the periods of its plan's interval and of those that charges of the plan have of their
-- own. Until charged_from a trial runs.
create table rating.billing_periods (
    subscription_id text not null,
    tenant_id text collate "C" not null,
    plan_id text not null,
    subscription_version integer not null,
    currency text not null,
    time_zone text not null,
    billing_interval text not null,
    interval_count integer not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    charged_from timestamptz not null,
    full_period_start timestamptz not null,
    full_period_end timestamptz not null,
    primary key (subscription_id, billing_interval, interval_count, period_start)
);
create index billing_periods_by_tenant on rating.billing_periods (tenant_id, period_start);
create index billing_periods_by_end on rating.billing_periods (period_end);

-- What is charged when: each charge in each period of its interval, from the end of a trial on and cut where a
-- version takes effect at once, with the version and the price in force. Without a version there is no
-- price yet: its usage is unrated. Complete: all its hours have landed.
create table rating.charge_slices (
    subscription_id text not null,
    charge_id text not null,
    component text not null,
    slice_start timestamptz not null,
    slice_end timestamptz not null,
    tenant_id text collate "C" not null,
    subscription_version integer not null,
    currency text not null,
    minor_digits integer not null,
    metric text collate "C",
    aggregation text,
    dimension_route jsonb not null,
    charge_version integer,
    charge_model text not null,
    timing text not null,
    price_sha256 text,
    charged_days integer not null,
    full_days integer not null,
    complete boolean not null,
    primary key (subscription_id, charge_id, component, slice_start)
);
create index charge_slices_by_tenant on rating.charge_slices (tenant_id, metric, slice_start);
create index charge_slices_open on rating.charge_slices (slice_end) where not complete;

-- Usage of hours that a period edge cuts, by the part of the hour, read from the ledger.
create table rating.edge_usage (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    dimensions jsonb not null,
    piece_start timestamptz not null,
    piece_end timestamptz not null,
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
    primary key (tenant_id, metric, dimensions, piece_start)
);
create index edge_usage_by_time on rating.edge_usage (tenant_id, metric, piece_start);

-- Usage of each charge's slice, by UTC day.
create table rating.period_usage_daily (
    subscription_id text not null,
    charge_id text not null,
    slice_start timestamptz not null,
    slice_end timestamptz not null,
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    day date not null,
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
    primary key (subscription_id, charge_id, slice_start, day)
);
create index period_usage_daily_by_tenant on rating.period_usage_daily (tenant_id, metric, day);

-- What a slice of a recurring metric carries from before it: the usage from the subscription's start on, as one
-- row of the UTC day before the slice.
create table rating.carried_usage (
    subscription_id text not null,
    charge_id text not null,
    slice_start timestamptz not null,
    day date not null,
    event_count bigint not null,
    value_sum numeric not null,
    event_digest numeric not null,
    payload_digest numeric not null,
    primary key (subscription_id, charge_id, slice_start)
);

-- All that a line counts, by UTC day: the usage of its slice, and what it carries.
create view rating.line_usage with (security_invoker = true) as
select
    subscription_id,
    charge_id,
    slice_start,
    day,
    event_count,
    value_sum,
    event_digest,
    payload_digest
from rating.period_usage_daily
union all
select
    subscription_id,
    charge_id,
    slice_start,
    day,
    event_count,
    value_sum,
    event_digest,
    payload_digest
from rating.carried_usage;

-- Usage that belongs to no charge. Reasons that hold: no_price, unreadable_value.
create table rating.unrated_usage (
    tenant_id text collate "C" not null,
    metric text collate "C" not null,
    dimensions jsonb not null,
    piece_start timestamptz not null,
    piece_end timestamptz not null,
    reason text not null check (
        reason in (
            'unknown_tenant', 'outside_subscription', 'in_trial', 'not_in_plan', 'no_price', 'unreadable_value'
        )
    ),
    holds boolean not null,
    event_count bigint not null,
    value_sum numeric not null,
    event_digest numeric not null,
    payload_digest numeric not null,
    primary key (tenant_id, metric, dimensions, piece_start, reason)
);
create index unrated_usage_by_time on rating.unrated_usage (tenant_id, metric, piece_start);

-- What each slice costs. billable_quantity is what is priced of the metered quantity: converted, without the
-- included units. Discounts, maximums and minimums are lines of their own beside the line that they change.
create table rating.rated_lines (
    subscription_id text not null,
    tenant_id text collate "C" not null,
    charge_id text not null,
    charge_version integer not null,
    component text not null,
    metric text collate "C",
    slice_start timestamptz not null,
    slice_end timestamptz not null,
    quantity numeric not null,
    billable_quantity numeric not null,
    event_count bigint not null,
    event_digest numeric not null,
    payload_digest numeric not null,
    exact_amount numeric not null,
    amount numeric not null,
    currency text not null,
    timing text not null,
    subscription_version integer not null,
    charged_days integer not null,
    full_days integer not null,
    complete boolean not null,
    primary key (subscription_id, charge_id, component, slice_start, currency)
);

-- How each line's amount comes about; the slices' sum is the line before rounding.
create table rating.tier_slices (
    subscription_id text not null,
    charge_id text not null,
    component text not null,
    slice_start timestamptz not null,
    currency text not null,
    tier integer not null,
    quantity numeric not null,
    unit_amount numeric not null,
    flat_amount numeric not null,
    rate_percent numeric not null,
    dimension_values jsonb not null,
    amount numeric not null,
    primary key (subscription_id, charge_id, component, slice_start, currency, tier)
);
