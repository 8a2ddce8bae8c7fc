-- Locks the heads of the series that documents go to, in one order for everybody.
select
    series,
    legal_entity,
    last_number,
    last_sha256
from invoices.invoice_series
where legal_entity = any(%(legal_entities)s::text[])
order by series
for update
