-- What the catalog says that a provider calls our tenants and metrics; and whether there is anything to compare with.
select
    to_regclass('reconciliation.provider_periods') is not null as comparable,
    (
        select coalesce(jsonb_object_agg(customer, tenant_id), '{}')
        from catalog.provider_customers
    ) as tenants,
    (
        select coalesce(jsonb_object_agg(meter, metric), '{}')
        from catalog.provider_meters
    ) as metrics
