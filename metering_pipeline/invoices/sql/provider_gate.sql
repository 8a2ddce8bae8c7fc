-- Whether usage that differs from a billing provider's holds invoices: by the settings METERING_PROVIDER_….
select
    exists (
        select 1
        from catalog.settings
        where name = 'provider_gate' and value = 'hold'
    )
    and exists (
        select 1
        from catalog.settings
        where name = 'provider_usage' and value <> ''
    ) as holds
