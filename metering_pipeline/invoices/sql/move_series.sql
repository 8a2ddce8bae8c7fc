-- Moves a series' head to its last document.
update invoices.invoice_series
set
    last_number = %(last_number)s,
    last_sha256 = %(last_sha256)s
where series = %(series)s
