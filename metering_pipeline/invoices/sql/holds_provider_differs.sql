-- Drafts whose tenant's usage differs from the billing provider's beyond the threshold in their window, or was
-- not compared with it since the window's end. Metrics that it does not bill are not compared, adjustments were.
with configured as (
    select value as source
    from catalog.settings
    where name = 'provider_usage'
),

fetches as (
    select provider_fetches.*
    from reconciliation.provider_fetches
    inner join configured on provider_fetches.source = configured.source
),

usage_lines as (
    select
        due_drafts.draft_id,
        due_drafts.tenant_id,
        lines.metric,
        min(lines.slice_start) as usage_start,
        max(lines.slice_end) as usage_end
    from due_drafts
    inner join invoices.draft_invoice_lines as lines on due_drafts.draft_id = lines.draft_id
    where lines.component = 'usage' and lines.kind = 'regular' and lines.metric is not null
    group by due_drafts.draft_id, due_drafts.tenant_id, lines.metric
),

not_compared as (
    select
        usage_lines.draft_id,
        format('%%s was not compared after the period''s end', usage_lines.metric) as what
    from usage_lines
    where
        not coalesce(
            (
                select range_agg(tstzrange(fetches.starts_at, fetches.ends_at))
                from fetches
                where usage_lines.metric = any(fetches.metrics) and fetches.fetched_at >= usage_lines.usage_end
            ),
            '{}'
        ) @> tstzrange(usage_lines.usage_start, usage_lines.usage_end)
        and (
            usage_lines.metric in (select unnest(fetches.metrics) from fetches)
            or not exists (
                select 1
                from fetches
            )
        )
),

differing as (
    select
        due_drafts.draft_id,
        format(
            '%%s from %%s to %%s: theirs %%s, ours %%s',
            coalesce(periods.metric, periods.meter),
            to_char(periods.period_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI'),
            to_char(periods.period_end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI'),
            coalesce(periods.theirs::text, 'nothing'),
            coalesce(periods.ours::text, 'nothing')
        ) as what
    from due_drafts
    inner join reconciliation.provider_periods as periods
        on due_drafts.tenant_id = periods.tenant_id
            and due_drafts.usage_start < periods.period_end
            and due_drafts.usage_end > periods.period_start
    inner join configured on periods.source = configured.source
    where due_drafts.bears_usage and periods.is_beyond
)

select
    draft_id,
    string_agg(what, '; ' order by what) as detail
from (
    select *
    from not_compared
    union all
    select *
    from differing
) as reasons
group by draft_id
