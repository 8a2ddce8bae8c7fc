-- The names of a kind that are most like one that is unknown.
select name
from (
    select
        invoice_number as name,
        'document' as kind
    from invoices.issued_invoices
    union all
    select
        draft_id,
        'document'
    from invoices.draft_invoices
    union all
    select
        tenant_id,
        'tenant'
    from catalog.tenants
) as names
where kind = %(kind)s
order by
    -- US-36 means US-000036
    ltrim(regexp_replace(name, '[^0-9]', '', 'g'), '0') = ltrim(regexp_replace(%(name)s, '[^0-9]', '', 'g'), '0')
    and %(name)s ~ '[0-9]' desc,
    length(name) - length(replace(lower(name), lower(%(name)s), '')) desc,
    (
        select count(*)
        from generate_series(1, least(length(name), length(%(name)s))) as place
        where substr(lower(name), place, 1) = substr(lower(%(name)s), place, 1)
    ) desc,
    abs(length(name) - length(%(name)s)),
    name
limit 3
