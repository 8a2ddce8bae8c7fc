-- The UTC days of a line: what it knows of each, and what the rollups have now.
select *
from reconciliation.line_days(%(document)s, %(line_number)s)
