-- A tenant's own reading. Who may read which tenant's rows is said by login, here, and not by a setting of the
-- session: whoever can run SQL can set settings. Only a service that is trusted to name the tenant has a row
-- without one: it reads the rows of the tenant that metering.tenant_id names, and without that setting none.
create table catalog.tenant_logins (
    login name not null,
    tenant_id text collate "C",
    unique nulls not distinct (login, tenant_id)
);

-- The tenants whose rows this session may read: by the login, which no role that is set changes.
create function catalog.readable_tenants() returns text[]
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select array(
        select coalesce(tenant_id, current_setting('metering.tenant_id', true))
        from catalog.tenant_logins
        where login = session_user
    )
$$;
revoke execute on function catalog.readable_tenants() from public;
grant execute on function catalog.readable_tenants() to metering_tenant;

grant usage on schema ledger, rollups, rating, invoices, catalog, landing to metering_tenant;
grant select on table catalog.metrics, landing.hours to metering_tenant;

-- Row-level security keeps out every role that no policy names. So each table has two policies: analysts, and the
-- roles that write and are analysts too, have the whole table (a constant, which costs no query anything); a
-- tenant has the rows of the tenants that its login may read, found once a query, so that indexes serve.
do $$
declare
    of_tenant constant text := 'tenant_id = any((select catalog.readable_tenants())::text[])';
    of_document constant text :=
        'exists (select from invoices.issued_invoices as documents where documents.invoice_number = %s.invoice_number)';
    read record;
begin
    for read in
        select
            name::regclass as relation,
            case
                when has_tenant then of_tenant
                else format(of_document, split_part(name, '.', 2))
            end as condition
        from (
            values
            ('catalog.tenants', true),
            ('ledger.usage_events', true),
            ('ledger.duplicates', true),
            ('ledger.conflicts', true),
            ('ledger.voids', true),
            ('ledger.pending', true),
            ('rollups.usage_contributions', true),
            ('rollups.touched_buckets', true),
            ('rollups.usage_hourly', true),
            ('rollups.unique_values_hourly', true),
            ('rollups.usage_daily', true),
            ('rating.rated_lines', true),
            ('invoices.issued_invoices', true),
            ('invoices.issued_invoice_lines', true),
            ('invoices.issued_usage', false),
            ('invoices.issued_tier_slices', false),
            ('invoices.issued_invoice_taxes', false),
            ('invoices.coupon_entries', false),
            ('invoices.credit_entries', true)
        ) as readable (name, has_tenant)
    loop
        execute format('alter table %s enable row level security', read.relation);
        execute format('create policy whole_table on %s to metering_analyst using (true)', read.relation);
        execute format(
            'create policy own_rows on %s for select to metering_tenant using (%s)', read.relation, read.condition
        );
        execute format('grant select on %s to metering_tenant', read.relation);
    end loop;
end;
$$;

-- Views ask for the reader's own rights: what a tenant may not read stays closed behind them.
grant select on rollups.indebted_hours, invoices.credit_balances, invoices.billed_lines to metering_tenant;
alter default privileges for role metering_transform in schema rollups grant select on tables to metering_tenant;
