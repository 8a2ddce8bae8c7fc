-- What coupons took off the lines of a document.
select
    line_number,
    coupon_id,
    amount,
    description
from invoices.coupon_entries
where invoice_number = %(invoice_number)s
order by line_number, coupon_id
