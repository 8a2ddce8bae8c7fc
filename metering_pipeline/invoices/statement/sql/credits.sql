-- The prepaid credits that a document used or gave back.
select
    entries.credit_id,
    entries.amount,
    grants.reason,
    grants.expires_on
from invoices.credit_entries as entries
inner join invoices.credit_entries as grants on entries.credit_id = grants.credit_id and grants.kind = 'grant'
where entries.invoice_number = %(number)s
order by entries.entry_id
