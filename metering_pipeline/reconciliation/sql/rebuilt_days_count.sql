-- How many days were ever rebuilt.
select count(distinct day) as days
from reconciliation.rebuilt_days
