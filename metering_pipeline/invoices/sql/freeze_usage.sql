-- Pins what is known of each issued line's usage, by UTC day.
insert into invoices.issued_usage (
    invoice_number, line_number, day, event_count, value_sum, event_digest, payload_digest
)
select
    numbers.invoice_number,
    lines.line_number,
    days.day,
    days.event_count,
    days.value_sum,
    days.event_digest,
    days.payload_digest
from unnest(%(draft_ids)s::text[], %(invoice_numbers)s::text[]) as numbers (draft_id, invoice_number)
inner join invoices.draft_invoice_lines as lines on numbers.draft_id = lines.draft_id
inner join rating.line_usage as days
    on lines.subscription_id = days.subscription_id
        and lines.charge_id = days.charge_id
        and lines.slice_start = days.slice_start
where lines.component = 'usage'
order by numbers.invoice_number, lines.line_number, days.day
