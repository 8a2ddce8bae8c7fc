-- The newest landing hour that holds files, whether a tenant is known, and whether it has ever had usage.
select
    (
        select max(hours.landed_hour)
        from landing.hours
        where hours.file_count > 0
    ) as newest_hour,
    exists(
        select 1
        from catalog.tenants
        where tenants.tenant_id = %(tenant_id)s
    ) as is_known,
    exists(
        select 1
        from rollups.usage_daily
        where usage_daily.tenant_id = %(tenant_id)s
    ) as has_usage
