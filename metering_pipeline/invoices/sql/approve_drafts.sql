-- Approves a draft as it is now, or all that are due by now and not approved as they are.
insert into invoices.approvals (
    draft_id, content_sha256, tenant_id, total, currency, approved_by, approval_reason, approved_at
)
select
    drafts.draft_id,
    digests.content_sha256,
    drafts.tenant_id,
    drafts.total,
    drafts.currency,
    %(by)s,
    %(why)s,
    %(now)s
from invoices.draft_invoices as drafts
inner join invoices.draft_digests as digests on drafts.draft_id = digests.draft_id
where
    drafts.draft_id = %(draft_id)s
    or (
        %(draft_id)s::text is null
        and drafts.bill_at < %(now)s
        and not exists (
            select 1
            from invoices.approvals
            where approvals.draft_id = drafts.draft_id and approvals.content_sha256 = digests.content_sha256
        )
    )
returning draft_id
