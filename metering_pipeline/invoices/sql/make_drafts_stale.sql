-- What was billed has changed, and the drafts are reckoned from it.
update invoices.draft_state
set stale = true
