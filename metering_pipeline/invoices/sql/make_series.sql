-- Makes the series of legal entities that have none yet.
insert into invoices.invoice_series (series, legal_entity, last_number, last_sha256)
select
    series,
    legal_entity,
    0,
    repeat('0', 64)
from catalog.legal_entities
where legal_entity = any(%(legal_entities)s::text[])
on conflict do nothing
