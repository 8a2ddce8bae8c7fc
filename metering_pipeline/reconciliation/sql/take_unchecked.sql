-- Consumes the subscriptions whose drafts are to be compared; none while the drafts are stale, and what differs a debt.
delete from invoices.unchecked_subscriptions
where not (select draft_state.stale from invoices.draft_state)
returning subscription_id
