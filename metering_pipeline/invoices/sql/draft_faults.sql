-- Due drafts whose lines or pinned usage do not add up to them.
with
usage_sums as (
    select
        subscription_id,
        charge_id,
        slice_start,
        sum(event_count) as event_count,
        sum(event_digest) as event_digest,
        sum(payload_digest) as payload_digest
    from rating.line_usage
    where
        subscription_id in (
            select lines.subscription_id
            from invoices.draft_invoice_lines as lines
            inner join due_drafts on lines.draft_id = due_drafts.draft_id
        )
    group by subscription_id, charge_id, slice_start
),

lines as (
    select
        lines.draft_id,
        count(*) as line_count,
        max(lines.line_number) as last_line,
        sum(lines.amount) as amount,
        count(*) filter (where lines.tenant_id <> due_drafts.tenant_id or lines.currency <> due_drafts.currency)
            as foreign_lines,
        count(*) filter (
            where
                lines.component = 'usage'
                and (
                    lines.event_count <> coalesce(usage_sums.event_count, 0)
                    or lines.event_digest <> coalesce(usage_sums.event_digest, 0)
                    or lines.payload_digest <> coalesce(usage_sums.payload_digest, 0)
                )
        ) as lines_unlike_usage
    from invoices.draft_invoice_lines as lines
    inner join due_drafts on lines.draft_id = due_drafts.draft_id
    left join usage_sums
        on lines.subscription_id = usage_sums.subscription_id
            and lines.charge_id = usage_sums.charge_id
            and lines.slice_start = usage_sums.slice_start
    group by lines.draft_id
),

judged as (
    select
        due_drafts.draft_id,
        array_remove(array[
            case
                when due_drafts.total <> coalesce(lines.amount, 0) then 'the lines do not add up to the total'
            end,
            case
                when
                    due_drafts.line_count <> coalesce(lines.line_count, 0)
                    or due_drafts.line_count <> coalesce(lines.last_line, 0)
                    then 'a line is missing'
            end,
            case when lines.foreign_lines > 0 then 'a line has another tenant or currency' end,
            case when lines.lines_unlike_usage > 0 then 'the usage of a line is not what was rated' end
        ], null) as faults
    from due_drafts
    left join lines on due_drafts.draft_id = lines.draft_id
)

select
    draft_id,
    faults
from judged
where cardinality(faults) > 0
