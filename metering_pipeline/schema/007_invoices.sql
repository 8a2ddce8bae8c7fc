-- Drafts: recomputed at will.
create table invoices.draft_invoices (
    draft_id text primary key,
    subscription_id text not null,
    tenant_id text collate "C" not null,
    legal_entity text not null,
    currency text not null,
    bill_at timestamptz not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    cut_off timestamptz,
    line_count integer not null,
    total numeric not null
);

create table invoices.draft_invoice_lines (
    draft_id text not null,
    line_number integer not null,
    subscription_id text not null,
    tenant_id text collate "C" not null,
    charge_id text not null,
    charge_version integer not null,
    component text not null,
    metric text collate "C",
    slice_start timestamptz not null,
    slice_end timestamptz not null,
    quantity numeric not null,
    event_count bigint not null,
    event_digest numeric not null,
    payload_digest numeric not null,
    rated_amount numeric not null,
    billed_amount numeric not null,
    amount numeric not null,
    currency text not null,
    kind text not null check (kind in ('regular', 'adjustment')),
    timing text not null,
    subscription_version integer not null,
    bill_at timestamptz not null,
    description text not null,
    primary key (draft_id, line_number)
);

-- What the drafts were built from. Stale: what they were built from has changed since.
create table invoices.draft_state (
    only_row boolean primary key default true check (only_row),
    stale boolean not null,
    catalog_version bigint,
    built_at timestamptz
);
insert into invoices.draft_state (stale) values (true);

-- One series of gapless numbers and one hash chain per legal entity; its row is the series head.
create table invoices.invoice_series (
    series text primary key,
    legal_entity text not null unique,
    last_number bigint not null,
    last_sha256 text not null
);

create table invoices.issued_invoices (
    invoice_number text primary key,
    series text not null,
    series_number bigint not null,
    document_kind text not null check (document_kind in ('invoice', 'credit_note')),
    tenant_id text collate "C" not null,
    subscription_id text not null,
    legal_entity text not null,
    currency text not null,
    total numeric not null,
    billing_date date not null,
    bill_at timestamptz not null,
    catalog_version bigint not null,
    issued_at timestamptz not null,
    content text not null,
    content_sha256 text not null,
    previous_sha256 text not null,
    draft_id text,
    unique (series, series_number)
);
create index issued_invoices_by_date on invoices.issued_invoices (billing_date);

create table invoices.issued_invoice_lines (
    invoice_number text not null references invoices.issued_invoices,
    line_number integer not null,
    subscription_id text not null,
    tenant_id text collate "C" not null,
    charge_id text not null,
    charge_version integer not null,
    subscription_version integer not null,
    component text not null,
    metric text collate "C",
    slice_start timestamptz not null,
    slice_end timestamptz not null,
    quantity numeric not null,
    event_count bigint not null,
    event_digest numeric not null,
    payload_digest numeric not null,
    rated_amount numeric not null,
    amount numeric not null,
    currency text not null,
    kind text not null,
    description text not null,
    primary key (invoice_number, line_number)
);
create index issued_invoice_lines_by_key
on invoices.issued_invoice_lines (subscription_id, charge_id, component, slice_start, currency);

-- What was known of each issued line's usage, by UTC day.
create table invoices.issued_usage (
    invoice_number text not null,
    line_number integer not null,
    day date not null,
    event_count bigint not null,
    value_sum numeric not null,
    event_digest numeric not null,
    payload_digest numeric not null,
    primary key (invoice_number, line_number, day),
    foreign key (invoice_number, line_number) references invoices.issued_invoice_lines
);

-- Invoices that are due and do not go, with the reason; released by itself or by name. A release holds
-- good for what the detail and the total say at that moment: with others the invoice is held again.
create table invoices.held_invoices (
    draft_id text not null,
    reason text not null check (
        reason in (
            'law_failed', 'never_evaluated', 'hour_not_sealed', 'pending_usage', 'unrated_usage', 'held_by_hand'
        )
    ),
    detail text not null,
    tenant_id text collate "C" not null,
    subscription_id text not null,
    bill_at timestamptz not null,
    total numeric not null,
    currency text not null,
    held_since timestamptz not null,
    released_by text,
    release_reason text,
    released_at timestamptz,
    primary key (draft_id, reason)
);

-- Every release by name, for good: who let what go, and why.
create table invoices.hold_releases (
    release_id bigint generated always as identity primary key,
    draft_id text not null,
    reason text not null,
    detail text not null,
    tenant_id text collate "C" not null,
    total numeric not null,
    currency text not null,
    held_since timestamptz not null,
    released_by text not null,
    release_reason text not null,
    released_at timestamptz not null
);

-- A switch that stops all issuing.
create table invoices.issuing_switch (
    only_row boolean primary key default true check (only_row),
    stopped boolean not null,
    changed_by text not null,
    reason text not null,
    changed_at timestamptz not null
);
insert into invoices.issuing_switch (stopped, changed_by, reason, changed_at)
values (false, 'schema', 'initial state', now());

create function invoices.refuse_change() returns trigger
language plpgsql as $$
begin
    raise exception '%.% is append-only: % refused. An issued document is corrected by a further document.',
        tg_table_schema, tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end
$$;

create trigger append_only before update or delete on invoices.issued_invoices
for each row execute function invoices.refuse_change();
create trigger append_only before update or delete on invoices.issued_invoice_lines
for each row execute function invoices.refuse_change();
create trigger append_only before update or delete on invoices.issued_usage
for each row execute function invoices.refuse_change();
create trigger append_only before update or delete on invoices.hold_releases
for each row execute function invoices.refuse_change();
create trigger never_truncated before truncate on invoices.issued_invoices
for each statement execute function invoices.refuse_change();
create trigger never_truncated before truncate on invoices.issued_invoice_lines
for each statement execute function invoices.refuse_change();
create trigger never_truncated before truncate on invoices.issued_usage
for each statement execute function invoices.refuse_change();
create trigger never_truncated before truncate on invoices.hold_releases
for each statement execute function invoices.refuse_change();
