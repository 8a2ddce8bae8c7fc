-- Deletes the holds whose draft is gone or that have gone by themselves. One by hand stays until it is
-- released, whatever becomes of the draft.
delete from invoices.held_invoices
where
    case
        when held_invoices.reason = 'held_by_hand' then held_invoices.released_at is not null
        else not exists (
            select 1
            from invoices.draft_invoices as drafts
            where drafts.draft_id = held_invoices.draft_id
        )
        or not exists (
            select 1
            from unnest(%(draft_ids)s::text[], %(reasons)s::text[]) as holds (draft_id, reason)
            where holds.draft_id = held_invoices.draft_id and holds.reason = held_invoices.reason
        )
    end
