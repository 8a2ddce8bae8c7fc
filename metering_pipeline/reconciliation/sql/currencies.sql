-- The minor digits that amounts of each currency are rounded to.
select
    currency,
    minor_digits
from catalog.currencies
