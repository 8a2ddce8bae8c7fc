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
    recurring boolean not null default false,
    dimensions text[] not null,
    unit text not null,
    filter jsonb not null,
    description text not null,
    check ((aggregation = 'percentile') = (percentile is not null)),
    check (not recurring or aggregation in ('sum', 'unique_count', 'weighted_sum'))
);

create table catalog.plans (
    plan_id text primary key,
    name text not null,
    currency text not null references catalog.currencies deferrable initially deferred,
    billing_interval text not null check (
        billing_interval in ('day', 'week', 'month', 'quarter', 'half_year', 'year')
    ),
    interval_count integer not null check (interval_count > 0),
    minimum_document_amount numeric not null
);

-- A charge in its versions. A period is priced by the version in force at its start, unless a version takes
-- effect at once: then the period is cut there. Without an interval of its own a charge has the plan's.
-- Of unlimited units included_quantity is infinite.
create table catalog.charges (
    charge_id text not null,
    version integer not null,
    plan_id text not null references catalog.plans deferrable initially deferred,
    component text not null check (component in ('usage', 'flat', 'commitment')),
    metric text collate "C" references catalog.metrics deferrable initially deferred,
    dimension_route jsonb not null,
    charge_model text not null check (
        charge_model in (
            'per_unit', 'graduated', 'volume', 'package', 'percentage', 'graduated_percentage', 'matrix', 'dynamic',
            'flat'
        )
    ),
    timing text not null check (timing in ('arrears', 'advance')),
    description text not null,
    effective_from date not null,
    takes_effect text not null check (takes_effect in ('next_period', 'at_once')),
    billing_interval text check (billing_interval in ('day', 'week', 'month', 'quarter', 'half_year', 'year')),
    interval_count integer check (interval_count > 0),
    conversion_operation text check (conversion_operation in ('multiply', 'divide')),
    conversion_factor numeric check (conversion_factor > 0),
    quantity_rounding text check (quantity_rounding in ('round', 'ceiling', 'floor')),
    quantity_digits integer not null,
    included_quantity numeric not null check (included_quantity >= 0),
    package_size numeric check (package_size > 0),
    discount_percent numeric not null check (discount_percent >= 0),
    discount_amount numeric not null check (discount_amount >= 0),
    maximum_amount numeric check (maximum_amount >= 0),
    minimum_amount numeric not null check (minimum_amount >= 0),
    prorated boolean not null,
    primary key (charge_id, version)
);

-- Prices. Only graduated, volume, graduated_percentage and matrix have more than the one tier 1. up_to is
-- cumulative and inclusive; null is open. The rows of a matrix name dimension values instead; {} is the default.
-- A package's price is its flat_amount; a percentage has its rate_percent.
create table catalog.charge_tiers (
    charge_id text not null,
    version integer not null,
    tier integer not null,
    up_to numeric,
    unit_amount numeric not null,
    flat_amount numeric not null,
    rate_percent numeric not null,
    dimension_values jsonb not null,
    primary key (charge_id, version, tier),
    foreign key (charge_id, version) references catalog.charges deferrable initially deferred
);

-- What a percentage charge says of each event: a fixed amount, limits, and how much is free (by number or by
-- amount, whichever ends first ends both).
create table catalog.percentage_terms (
    charge_id text not null,
    version integer not null,
    amount_per_event numeric not null,
    free_events integer,
    free_amount numeric,
    minimum_per_event numeric,
    maximum_per_event numeric,
    primary key (charge_id, version),
    foreign key (charge_id, version) references catalog.charges deferrable initially deferred
);

-- Who has which plan from when to when, in versions: the newest recorded one counts. The anchor is a
-- wall time in the subscription's zone, midnight unless stated. Until the trial ends nothing is charged.
create table catalog.subscriptions (
    subscription_id text not null,
    version integer not null,
    tenant_id text collate "C" not null references catalog.tenants deferrable initially deferred,
    plan_id text not null references catalog.plans deferrable initially deferred,
    time_zone text not null,
    anchor_date date not null,
    anchor_time time not null default '00:00',
    started_at timestamptz not null,
    trial_ends_at timestamptz,
    ended_at timestamptz,
    recorded_at timestamptz not null,
    recorded_by text not null,
    primary key (subscription_id, version)
);

create view catalog.current_subscriptions with (security_invoker = true) as
select distinct on (subscription_id) *
from catalog.subscriptions
order by subscription_id, version desc;

-- In percent, on each line; a row that names a charge goes before one that does not.
create table catalog.tax_rates (
    tenant_id text collate "C" not null references catalog.tenants deferrable initially deferred,
    tax_code text not null,
    charge_id text,
    rate numeric not null,
    effective_from date not null,
    unique nulls not distinct (tenant_id, tax_code, charge_id, effective_from)
);

-- Reductions of whole documents: a percentage, or an amount that is used up. Without a subscription it is for
-- each of the tenant's; document_limit is the number of documents that it may reduce.
create table catalog.coupons (
    coupon_id text primary key,
    tenant_id text collate "C" not null references catalog.tenants deferrable initially deferred,
    subscription_id text,
    currency text references catalog.currencies deferrable initially deferred,
    percent numeric check (percent > 0),
    amount numeric check (amount > 0),
    effective_from date not null,
    effective_until date,
    document_limit integer check (document_limit > 0),
    description text not null,
    check ((percent is null) <> (amount is null)),
    check ((amount is null) = (currency is null))
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

-- What a billing provider calls our tenants and metrics. Without a tenant, or a metric: not ours on purpose.
create table catalog.provider_customers (
    customer text collate "C" primary key,
    tenant_id text collate "C" references catalog.tenants deferrable initially deferred
);

create table catalog.provider_meters (
    meter text collate "C" primary key,
    metric text collate "C" references catalog.metrics deferrable initially deferred
);

-- Who sends files: by the names of the files, for which tenants (none named: for all), from when to when. Where a
-- manifest is expected, each landing hour needs one; due_hours after the hour's end it is late.
create table catalog.sources (
    source text collate "C" primary key,
    file_pattern text collate "C" not null,
    tenants text[] not null,
    expects_manifest boolean not null,
    due_hours integer not null,
    declared_from timestamptz not null,
    declared_until timestamptz,
    description text not null
);
