-- What was known of each line's usage, by UTC day.
select
    line_number,
    day,
    event_count,
    value_sum,
    event_digest,
    payload_digest
from invoices.issued_usage
where invoice_number = %(number)s
order by line_number, day
