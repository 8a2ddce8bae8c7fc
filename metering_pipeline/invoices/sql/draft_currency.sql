-- Whether the drafts are built from the present usage, catalog and documents; the queues that say otherwise.
select
    state.stale,
    state.catalog_version,
    (select max(versions.catalog_version) from catalog.versions) as newest_catalog_version,
    exists (select 1 from rating.touched)
    or exists (select 1 from rating.changed_ranges)
    or exists (select 1 from rating.touched_slices) as rating_owes,
    exists(select 1 from due_drafts) as has_due_drafts
from invoices.draft_state as state
