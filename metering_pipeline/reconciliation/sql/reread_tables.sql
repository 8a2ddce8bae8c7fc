-- What a file says when it is read again: temporary, gone with the transaction.
create temporary table reread on commit drop as
select *
from landing.usage_events
with no data;

create temporary table reread_rejected on commit drop as
select *
from landing.rejected_events
with no data;

create temporary table reread_differences (
    line_number bigint not null,
    difference text not null,
    tenant_id text,
    correlation_id text,
    differing_columns text[] not null
) on commit drop
