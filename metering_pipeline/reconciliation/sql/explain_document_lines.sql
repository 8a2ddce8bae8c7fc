-- The lines of a document or draft.
select *
from reconciliation.document_lines
where document = %(document)s
order by line_number
