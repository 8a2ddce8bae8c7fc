-- Where what a provider said waits until it is mapped.
create temporary table told on commit drop as
select
    customer,
    meter,
    starts_at,
    ends_at,
    value,
    place
from reconciliation.provider_usage
with no data
