-- Keeps which problems of manifests somebody had waived when these drafts became documents: each is a hold that
-- was let go before it stood.
insert into invoices.hold_releases (
    draft_id, reason, detail, tenant_id, total, currency, held_since, released_by, release_reason, released_at
)
select
    due_drafts.draft_id,
    case
        when problems.reason in ('manifest_absent', 'manifest_awaited') then 'manifest_absent'
        else 'totals_differ'
    end,
    format(
        '%%s %%s: %%s',
        problems.source, to_char(problems.landed_hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24'), problems.detail
    ),
    due_drafts.tenant_id,
    due_drafts.total,
    due_drafts.currency,
    problems.waived_at as held_since,
    problems.waived_by,
    problems.waiver_reason,
    problems.waived_at as released_at
from reconciliation.manifest_problems as problems
inner join due_drafts
    on problems.landed_hour >= due_drafts.first_landing_hour
        and problems.landed_hour < due_drafts.cut_off
        and (problems.tenants = '{}' or due_drafts.tenant_id = any(problems.tenants))
where problems.waived_at is not null and due_drafts.draft_id = any(%(draft_ids)s)
order by due_drafts.draft_id, problems.landed_hour, problems.source, problems.detail
