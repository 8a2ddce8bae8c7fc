-- Deletes the holds whose draft is gone or that have gone by themselves; one by hand stays while its draft does.
delete from invoices.held_invoices
where
    not exists (
        select 1
        from invoices.draft_invoices as drafts
        where drafts.draft_id = held_invoices.draft_id
    )
    or (
        held_invoices.reason <> 'held_by_hand'
        and not exists (
            select 1
            from unnest(%(draft_ids)s::text[], %(reasons)s::text[]) as holds (draft_id, reason)
            where holds.draft_id = held_invoices.draft_id and holds.reason = held_invoices.reason
        )
    )
