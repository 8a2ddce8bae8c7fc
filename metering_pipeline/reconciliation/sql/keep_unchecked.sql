-- The subscriptions of which a line differs are compared in every run until they are well.
insert into invoices.unchecked_subscriptions (subscription_id)
select distinct lines.subscription_id
from reconciliation.lines_to_documents as lines
where lines.state <> 'identical' and not lines.is_pending
on conflict do nothing
