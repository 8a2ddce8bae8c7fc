-- The newest date that documents were issued for; null before the first.
select max(documents.billing_date) as billing_date
from invoices.issued_invoices as documents
