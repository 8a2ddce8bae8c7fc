-- Collects the drafts due before an instant, with the span of their usage and the first landing hour that
-- decides about it. An event may land a little before it occurs (a producer's clock): the hour allows for that.
create temporary table due_drafts on commit drop as
with tolerance as (
    select make_interval(mins => coalesce(max(future_tolerance_minutes), 0)) as ahead
    from landing.files
),

first_hour as (
    select coalesce(
        (
            select value::timestamptz
            from catalog.settings
            where name = 'first_hour'
        ),
        (select min(landed_hour) from landing.hours)
    ) as landed_hour
),

-- A document of flat lines in advance knows no usage, so usage cannot hold it. One in arrears may lack
-- a line because its usage got lost.
usage_spans as (
    select
        drafts.draft_id,
        coalesce(min(lines.slice_start), drafts.window_start) as usage_start,
        coalesce(max(lines.slice_end), drafts.window_end) as usage_end
    from invoices.draft_invoices as drafts
    left join invoices.draft_invoice_lines as lines
        on drafts.draft_id = lines.draft_id
            and (lines.component = 'usage' or lines.timing = 'arrears')
    group by drafts.draft_id
    having drafts.cut_off is not null or count(lines.line_number) > 0
)

select
    drafts.*,
    usage_spans.draft_id is not null as bears_usage,
    usage_spans.usage_start,
    usage_spans.usage_end,
    greatest(
        date_bin('1 hour', usage_spans.usage_start - tolerance.ahead, '2000-01-01 00:00:00+00'),
        first_hour.landed_hour
    ) as first_landing_hour
from invoices.draft_invoices as drafts
left join usage_spans on drafts.draft_id = usage_spans.draft_id
cross join tolerance
cross join first_hour
where drafts.bill_at < %(due_end)s
