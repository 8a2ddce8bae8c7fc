-- What files have changed in a span of usage since a landing hour, or an instant of the clock.
select
    changes.*,
    reconciliation.canonical_text(changes.properties) as properties_text
from reconciliation.usage_changes(
    %(tenant_id)s, %(metric)s, %(starts_at)s, %(ends_at)s, %(landed_from)s, %(known_after)s
) as changes
where changes.dimensions @> %(dimensions)s
