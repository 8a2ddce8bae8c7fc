-- Notes that a provider was asked.
insert into reconciliation.provider_fetches (
    source, starts_at, ends_at, is_exact, metrics, fetched_at, fetched_by
)
values (%(source)s, %(starts_at)s, %(ends_at)s, %(is_exact)s, %(metrics)s, %(fetched_at)s, %(fetched_by)s)
returning fetch_id
