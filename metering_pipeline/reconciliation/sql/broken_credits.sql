-- Entries of prepaid credits, of a range of days, that are not what was entered, or whose predecessor is gone.
with chained as (
    select
        *,
        coalesce(lag(chained_sha256) over (order by entry_id), repeat('0', 64)) as previous_sha256
    from invoices.credit_entries
)

select
    entry_id,
    credit_id,
    kind,
    tenant_id,
    (entered_at at time zone 'UTC')::date as entered_on
from chained
where
    entered_at >= %(window_start)s
    and entered_at < %(window_end)s
    and chained_sha256 <> encode(sha256(convert_to(jsonb_build_array(
        previous_sha256, entry_id, credit_id, kind, tenant_id, currency, amount::text, priority, expires_on, components,
        invoice_number, extract(epoch from entered_at), entered_by, reason
    )::text, 'UTF8')), 'hex')
order by entry_id
