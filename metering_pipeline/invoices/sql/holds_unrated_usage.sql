-- Drafts whose tenant has usage in their window that cannot be rated for a reason that holds.
with reasons as (
    select
        due_drafts.draft_id,
        unrated.reason,
        unrated.metric,
        sum(unrated.event_count) as event_count
    from due_drafts
    inner join rating.unrated_usage as unrated
        on due_drafts.tenant_id = unrated.tenant_id
            and due_drafts.usage_start < unrated.piece_end
            and due_drafts.usage_end > unrated.piece_start
    where unrated.holds and due_drafts.bears_usage
    group by due_drafts.draft_id, unrated.reason, unrated.metric
)

select
    draft_id,
    string_agg(
        format('%%s events of %%s: %%s', event_count, metric, reason), '; ' order by metric, reason
    ) as detail
from reasons
group by draft_id
