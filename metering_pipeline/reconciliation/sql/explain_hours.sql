-- The pieces of usage of a line.
select *
from reconciliation.line_hours(%(document)s, %(line_number)s)
