-- The issued lines that count the usage of the same charge and slice as a line, oldest first.
select
    others.document,
    others.line_number
from reconciliation.document_lines as line
inner join reconciliation.document_lines as others
    on line.subscription_id = others.subscription_id
        and line.charge_id = others.charge_id
        and line.slice_start = others.slice_start
        and line.currency = others.currency
        and others.is_issued
        and others.counts_usage
where line.document = %(document)s and line.line_number = %(line_number)s
order by others.issued_at, others.document
