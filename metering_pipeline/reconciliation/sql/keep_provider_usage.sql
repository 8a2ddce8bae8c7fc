-- Keeps what a provider said, with the tenant and metric that its names stand for: by the catalog, or ours.
insert into reconciliation.provider_usage (
    fetch_id, customer, tenant_id, meter, metric, starts_at, ends_at, value, place
)
with customers as (
    select distinct customer
    from told
),

tenants as (
    select
        customers.customer,
        case
            when mapped.customer is not null then mapped.tenant_id
            when exists (
                select 1
                from catalog.tenants
                where tenants.tenant_id = customers.customer
            )
            or exists (
                select 1
                from rollups.usage_hourly
                where usage_hourly.tenant_id = customers.customer
            ) then customers.customer
        end as tenant_id
    from customers
    left join catalog.provider_customers as mapped on customers.customer = mapped.customer
)

select
    %(fetch_id)s,
    told.customer,
    tenants.tenant_id,
    told.meter,
    coalesce(mapped.metric, metrics.metric),
    told.starts_at,
    told.ends_at,
    told.value,
    told.place
from told
inner join tenants on told.customer = tenants.customer
left join catalog.provider_meters as mapped on told.meter = mapped.meter
left join catalog.metrics on told.meter = metrics.metric
