-- Drafts with a landing hour up to their cut-off that a declared source has sent no manifest for, or whose
-- control totals differ from what landed; unless somebody has waived it.
with problems as materialized (
    select
        landed_hour,
        source,
        case when reason in ('manifest_absent', 'manifest_awaited') then 'manifest_absent' else 'totals_differ' end
            as reason,
        detail,
        tenants
    from reconciliation.manifest_problems
    where holds
),

by_source as (
    select
        due_drafts.draft_id,
        problems.source,
        problems.reason,
        count(distinct problems.landed_hour) as hours,
        (
            array_agg(
                to_char(problems.landed_hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24": "') || problems.detail
                order by problems.landed_hour, problems.detail
            )
        )[1] as first_problem
    from due_drafts
    inner join problems
        on due_drafts.first_landing_hour <= problems.landed_hour
            and due_drafts.cut_off > problems.landed_hour
            and (problems.tenants = '{}' or due_drafts.tenant_id = any(problems.tenants))
    group by due_drafts.draft_id, problems.source, problems.reason
)

select
    draft_id,
    reason,
    string_agg(
        format('%%s in %%s landing hours, the first %%s', source, hours, first_problem), '; ' order by source
    ) as detail
from by_source
group by draft_id, reason
