-- Whether issuing is switched off, by whom, when and why.
select
    stopped,
    changed_by,
    reason,
    changed_at
from invoices.issuing_switch
