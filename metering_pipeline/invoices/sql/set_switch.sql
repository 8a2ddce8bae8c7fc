-- Switches issuing off or on, with who did it and why.
update invoices.issuing_switch
set
    stopped = %(stopped)s,
    changed_by = %(by)s,
    reason = %(why)s,
    changed_at = %(now)s
