-- What is sold to whom: typed and validated. Loaded from the seeds (or a company's own tables)
-- in one transaction; every change of the content is one row in catalog.versions.
create table catalog.versions (
    catalog_version bigint generated always as identity primary key,
    content_sha256 text not null,
    published_at timestamptz not null
);

create table catalog.currencies (
    currency text primary key,
    minor_digits integer not null check (minor_digits between 0 and 6)
);

create table catalog.legal_entities (
    legal_entity text primary key,
    name text not null,
    series text not null unique
);

create table catalog.tenants (
    tenant_id text collate "C" primary key,
    name text not null,
    legal_entity text not null references catalog.legal_entities deferrable initially deferred,
    billable boolean not null
);

create table catalog.metrics (
    metric text collate "C" primary key,
    event_type text collate "C" not null,
    aggregation text not null check (
        aggregation in ('count', 'sum', 'min', 'max', 'latest', 'unique_count', 'weighted_sum', 'percentile')
    ),
    value_property text,
    percentile numeric check (percentile > 0 and percentile <= 100),
    dimensions text[] not null,
    unit text not null,
    filter jsonb not null,
    description text not null,
    check ((aggregation = 'percentile') = (percentile is not null))
);

create table catalog.plans (
    plan_id text primary key,
    name text not null,
    currency text not null references catalog.currencies deferrable initially deferred,
    billing_interval text not null check (billing_interval = 'month'),
    minimum_document_amount numeric not null
);

-- A charge in its versions. A period is priced by the version in force at its start.
create table catalog.charges (
    charge_id text not null,
    version integer not null,
    plan_id text not null references catalog.plans deferrable initially deferred,
    component text not null check (component in ('usage', 'flat')),
    metric text collate "C" references catalog.metrics deferrable initially deferred,
    dimension_route jsonb not null,
    charge_model text not null check (charge_model in ('per_unit', 'graduated', 'flat')),
    timing text not null check (timing in ('arrears', 'advance')),
    description text not null,
    effective_from date not null,
    primary key (charge_id, version)
);

-- Prices: per_unit and flat have the one tier 1. up_to is cumulative and inclusive; null is open.
create table catalog.charge_tiers (
    charge_id text not null,
    version integer not null,
    tier integer not null,
    up_to numeric,
    unit_amount numeric not null,
    flat_amount numeric not null,
    primary key (charge_id, version, tier),
    foreign key (charge_id, version) references catalog.charges deferrable initially deferred
);

-- Who has which plan from when to when, in versions: the newest recorded one counts. The anchor is a
-- wall time in the subscription's zone, midnight unless stated.
create table catalog.subscriptions (
    subscription_id text not null,
    version integer not null,
    tenant_id text collate "C" not null references catalog.tenants deferrable initially deferred,
    plan_id text not null references catalog.plans deferrable initially deferred,
    time_zone text not null,
    anchor_date date not null,
    anchor_time time not null default '00:00',
    started_at timestamptz not null,
    ended_at timestamptz,
    recorded_at timestamptz not null,
    recorded_by text not null,
    primary key (subscription_id, version)
);

create view catalog.current_subscriptions with (security_invoker = true) as
select distinct on (subscription_id) *
from catalog.subscriptions
order by subscription_id, version desc;

create table catalog.tax_rates (
    tenant_id text collate "C" not null references catalog.tenants deferrable initially deferred,
    tax_code text not null,
    rate numeric not null,
    effective_from date not null,
    primary key (tenant_id, tax_code, effective_from)
);

-- The only way to price an issued period anew: who, why, and with which version.
create table catalog.corrections (
    correction_id text primary key,
    subscription_id text not null,
    charge_id text not null,
    period_start timestamptz not null,
    version integer not null,
    recorded_by text not null,
    reason text not null,
    recorded_at timestamptz not null,
    foreign key (charge_id, version) references catalog.charges deferrable initially deferred
);
