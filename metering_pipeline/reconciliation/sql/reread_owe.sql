-- The hour is landed anew: the ledger owes its posting.
update landing.hours
set posted_at = null
where landed_hour = %(landed_hour)s
