-- What files have changed in a span of usage since a landing hour, or an instant of the clock.
select
    changes.*,
    reconciliation.canonical_text(changes.properties) as properties_text,
    (
        select erasures.erased_at
        from landing.erased_requests as requests
        inner join landing.erasures on requests.erasure_id = erasures.erasure_id
        where requests.tenant_id = %(tenant_id)s and requests.correlation_id = changes.correlation_id
    ) as erased_at
from reconciliation.usage_changes(
    %(tenant_id)s, %(metric)s, %(starts_at)s, %(ends_at)s, %(landed_from)s, %(known_after)s
) as changes
where changes.dimensions @> %(dimensions)s
