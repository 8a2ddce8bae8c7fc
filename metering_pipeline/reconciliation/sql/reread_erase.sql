-- What was erased of the hour's records is not brought back by their files.
select landed
from landing.erase_landed(%(landed_hour)s, %(landed_hour)s)
