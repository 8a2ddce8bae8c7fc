-- What each coupon took off a document.
select
    coupon_id,
    description,
    sum(amount) as amount
from invoices.coupon_entries
where invoice_number = %(number)s
group by coupon_id, description
order by coupon_id, description
