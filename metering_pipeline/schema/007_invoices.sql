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
create index draft_invoices_by_subscription on invoices.draft_invoices (subscription_id);

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

-- Documents, never changed. total is net, the sum of the lines. A void or a write-off is a further document:
-- it names the one that it is about, who decided it and why, and has its lines and amounts negated. Names, zone
-- and minor digits are those that the catalog had for it when it was issued.
create table invoices.issued_invoices (
    invoice_number text primary key,
    series text not null,
    series_number bigint not null,
    document_kind text not null check (document_kind in ('invoice', 'credit_note', 'void', 'write_off')),
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
    coupon_amount numeric not null,
    tax_amount numeric not null,
    credit_amount numeric not null,
    amount_due numeric not null,
    refers_to text unique references invoices.issued_invoices,
    decided_by text,
    reason text,
    tenant_name text not null,
    legal_entity_name text not null,
    plan_name text not null,
    time_zone text not null,
    minor_digits integer not null,
    unique (series, series_number),
    check (amount_due = total - coupon_amount + tax_amount - credit_amount),
    check (
        num_nonnulls(refers_to, decided_by, reason) = case when document_kind in ('void', 'write_off') then 3 else 0 end
    )
);
create index issued_invoices_by_date on invoices.issued_invoices (billing_date);

-- charge_model and package_size are of the charge, aggregation and unit of the metric, as they were then.
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
    charge_model text not null,
    package_size numeric,
    aggregation text,
    unit text,
    primary key (invoice_number, line_number)
);
create index issued_invoice_lines_by_key
on invoices.issued_invoice_lines (subscription_id, charge_id, component, slice_start, currency);

-- What was known of each issued line's usage, by UTC day; what it carried is of the day before its slice.
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

-- How each issued line's rated amount came about, as rating.tier_slices was then.
create table invoices.issued_tier_slices (
    invoice_number text not null,
    line_number integer not null,
    tier integer not null,
    quantity numeric not null,
    unit_amount numeric not null,
    flat_amount numeric not null,
    rate_percent numeric not null,
    dimension_values jsonb not null,
    amount numeric not null,
    primary key (invoice_number, line_number, tier),
    foreign key (invoice_number, line_number) references invoices.issued_invoice_lines
);

-- Taxes of each issued line, each rounded on its own. rate is in percent.
create table invoices.issued_invoice_taxes (
    invoice_number text not null,
    line_number integer not null,
    tax_code text not null,
    rate numeric not null,
    taxable_amount numeric not null,
    tax_amount numeric not null,
    primary key (invoice_number, line_number, tax_code),
    foreign key (invoice_number, line_number) references invoices.issued_invoice_lines
);

-- What coupons took off issued lines; a void gives it back, with the sign turned.
create table invoices.coupon_entries (
    invoice_number text not null,
    line_number integer not null,
    coupon_id text not null,
    amount numeric not null,
    description text not null,
    primary key (invoice_number, line_number, coupon_id),
    foreign key (invoice_number, line_number) references invoices.issued_invoice_lines
);
create index coupon_entries_by_coupon on invoices.coupon_entries (coupon_id);

-- Prepaid credits as entries: a credit's balance is their sum. The grant says on what terms: a lower priority
-- pays first; from the UTC day expires_on on it pays nothing (null: for ever); null components: it pays for all.
create table invoices.credit_entries (
    entry_id bigint generated always as identity primary key,
    credit_id text not null,
    kind text not null check (kind in ('grant', 'applied', 'expired', 'voided', 'returned')),
    tenant_id text collate "C" not null,
    currency text not null,
    amount numeric not null,
    priority integer,
    expires_on date,
    components text[],
    invoice_number text references invoices.issued_invoices,
    entered_at timestamptz not null,
    entered_by text not null,
    reason text not null,
    chained_sha256 text not null,
    check ((kind in ('grant', 'returned') and amount > 0) or (kind in ('applied', 'expired', 'voided') and amount < 0)),
    check ((kind in ('applied', 'returned')) = (invoice_number is not null)),
    check ((kind = 'grant') = (priority is not null))
);

-- Entries are chained like documents: a balance is a sum of them, so one that was changed or is gone must show.
-- Whoever enters one holds the pipeline's locks.
create function invoices.chain_credit_entry() returns trigger
language plpgsql as $$
begin
    new.chained_sha256 := encode(sha256(convert_to(jsonb_build_array(
        coalesce(
            (
                select entries.chained_sha256
                from invoices.credit_entries as entries
                order by entries.entry_id desc
                limit 1
            ), repeat('0', 64)
        ),
        new.entry_id, new.credit_id, new.kind, new.tenant_id, new.currency, new.amount::text, new.priority,
        new.expires_on, new.components, new.invoice_number, extract(epoch from new.entered_at), new.entered_by,
        new.reason
    )::text, 'UTF8')), 'hex');
    return new;
end
$$;
create trigger chained before insert on invoices.credit_entries
for each row execute function invoices.chain_credit_entry();
create sequence invoices.credit_numbers;
create unique index credit_entries_one_grant on invoices.credit_entries (credit_id) where kind = 'grant';
create index credit_entries_by_credit on invoices.credit_entries (credit_id);
create index credit_entries_by_tenant on invoices.credit_entries (tenant_id, currency);
create index credit_entries_by_invoice on invoices.credit_entries (invoice_number);

-- What was left of each credit at an instant. What expired is gone with its day, entered or not yet.
create function invoices.credit_balances_at(at_instant timestamptz) returns table (
    credit_id text, tenant_id text, currency text, priority integer, expires_on date, components text[],
    granted_at timestamptz, granted numeric, applied numeric, voided numeric, expired numeric, balance numeric
)
language sql stable as $$
    with sums as (
        select
            entries.credit_id,
            sum(entries.amount) as left_over,
            sum(-entries.amount) filter (where entries.kind in ('applied', 'returned')) as applied,
            sum(-entries.amount) filter (where entries.kind = 'voided') as voided,
            sum(-entries.amount) filter (where entries.kind = 'expired') as expired
        from invoices.credit_entries as entries
        where entries.entered_at <= at_instant
        group by entries.credit_id
    )
    select
        grants.credit_id,
        grants.tenant_id,
        grants.currency,
        grants.priority,
        grants.expires_on,
        grants.components,
        grants.entered_at,
        grants.amount,
        coalesce(sums.applied, 0),
        coalesce(sums.voided, 0),
        coalesce(sums.expired, 0) + case when lapsed.is_lapsed then sums.left_over else 0 end,
        case when lapsed.is_lapsed then 0 else sums.left_over end
    from invoices.credit_entries as grants
    inner join sums on grants.credit_id = sums.credit_id
    cross join lateral (
        select coalesce(grants.expires_on <= (at_instant at time zone 'UTC')::date, false) as is_lapsed
    ) as lapsed
    where grants.kind = 'grant' and grants.entered_at <= at_instant
$$;

create view invoices.credit_balances with (security_invoker = true) as
select *
from invoices.credit_balances_at(now());

-- The lines that count as billed. A void takes back what the document that it is about billed; a write-off
-- leaves it as it is.
create view invoices.billed_lines with (security_invoker = true) as
select lines.*
from invoices.issued_invoice_lines as lines
inner join invoices.issued_invoices as documents on lines.invoice_number = documents.invoice_number
where
    documents.document_kind in ('invoice', 'credit_note')
    and not exists (
        select 1
        from invoices.issued_invoices as voids
        where voids.refers_to = documents.invoice_number and voids.document_kind = 'void'
    );

-- What an outside tax engine says of a draft's lines: where it says something of a line, the catalog does not.
create table invoices.external_taxes (
    draft_id text not null,
    charge_id text not null,
    component text not null,
    slice_start timestamptz not null,
    tax_code text not null,
    rate numeric not null,
    primary key (draft_id, charge_id, component, slice_start, tax_code)
);

-- What an approval of a draft is good for: its lines, with what they were rated from.
create view invoices.draft_digests with (security_invoker = true) as
select
    draft_id,
    encode(sha256(convert_to(
        string_agg(
            jsonb_build_array(
                charge_id, charge_version, component, subscription_version, extract(epoch from slice_start),
                extract(epoch from slice_end), quantity, event_count, event_digest, payload_digest, amount, currency
            )::text,
            chr(10)
            order by line_number
        ), 'UTF8'
    )), 'hex') as content_sha256
from invoices.draft_invoice_lines
group by draft_id;

-- Who approved which draft, and why; good for this content only.
create table invoices.approvals (
    approval_id bigint generated always as identity primary key,
    draft_id text not null,
    content_sha256 text not null,
    tenant_id text collate "C" not null,
    total numeric not null,
    currency text not null,
    approved_by text not null,
    approval_reason text not null,
    approved_at timestamptz not null
);
create index approvals_by_draft on invoices.approvals (draft_id, content_sha256);

-- Invoices that are due and do not go, with the reason; released by itself or by name. A release holds
-- good for what the detail and the total say at that moment: with others the invoice is held again.
create table invoices.held_invoices (
    draft_id text not null,
    reason text not null check (
        reason in (
            'law_failed', 'never_evaluated', 'hour_not_sealed', 'manifest_absent', 'totals_differ', 'pending_usage',
            'unrated_usage', 'not_approved', 'provider_differs', 'held_by_hand'
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

do $$
declare
    table_name text;
begin
    foreach table_name in array array[
        'issued_invoices', 'issued_invoice_lines', 'issued_usage', 'issued_tier_slices', 'issued_invoice_taxes',
        'coupon_entries', 'credit_entries', 'approvals', 'hold_releases'
    ] loop
        execute format(
            'create trigger append_only before update or delete on invoices.%I'
            ' for each row execute function invoices.refuse_change()', table_name
        );
        execute format(
            'create trigger never_truncated before truncate on invoices.%I'
            ' for each statement execute function invoices.refuse_change()', table_name
        );
    end loop;
end
$$;

-- Subscriptions whose drafts are owed anew: their lines were rated, or what was billed of them has changed. Written
-- by the rated lines and by every document, consumed by the drafts.
create table invoices.touched_subscriptions (
    subscription_id text primary key
);

-- Subscriptions whose drafts are to be compared with their rated lines: drawn up anew, or found to differ. Written by
-- the drafts and the check, and consumed by the check when they are well.
create table invoices.unchecked_subscriptions (
    subscription_id text primary key
);

create function invoices.touch_subscriptions() returns trigger
language plpgsql as $$
begin
    insert into invoices.touched_subscriptions (subscription_id)
    select distinct subscription_id
    from new_documents
    on conflict do nothing;
    return null;
end
$$;
create trigger touch_subscriptions after insert on invoices.issued_invoices
referencing new table as new_documents
for each statement execute function invoices.touch_subscriptions();

-- What the drafts were made of beside lines and documents, as it was then. Whose drafts a change concerns, the
-- drafts' model says by the kind.
create table invoices.drafted_from (
    kind text not null check (
        kind in ('setting', 'legal_entity', 'catalog', 'tenant', 'plan', 'subscription', 'charge')
    ),
    name text not null,
    content text not null,
    primary key (kind, name)
);
