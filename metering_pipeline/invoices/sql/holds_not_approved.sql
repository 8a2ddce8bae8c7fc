-- Where approval is required: drafts that nobody has approved as they are.
select
    due_drafts.draft_id,
    format('nobody has approved it as it is (content %%s)', left(digests.content_sha256, 12)) as detail
from due_drafts
inner join invoices.draft_digests as digests on due_drafts.draft_id = digests.draft_id
where
    exists (
        select 1
        from catalog.settings
        where settings.name = 'approval' and settings.value = 'required'
    )
    and not exists (
        select 1
        from invoices.approvals
        where approvals.draft_id = due_drafts.draft_id and approvals.content_sha256 = digests.content_sha256
    )
