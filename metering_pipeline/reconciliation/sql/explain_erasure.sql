-- By whose order the payload of a request was erased, if it was.
select
    erasures.erased_at,
    erasures.erased_by,
    erasures.why
from landing.erased_requests as requests
inner join landing.erasures on requests.erasure_id = erasures.erasure_id
where requests.tenant_id = %(tenant_id)s and requests.correlation_id = %(correlation_id)s
