-- Drafts with a landing hour up to their cut-off that is not sealed: files may still be missing.
with windows as (
    select distinct
        first_landing_hour,
        cut_off
    from due_drafts
    where cut_off is not null
),

open_hours as (
    select
        windows.first_landing_hour,
        windows.cut_off,
        count(*) as open_count,
        min(expected.landed_hour) as first_open
    from windows
    cross join lateral generate_series(
        windows.first_landing_hour, windows.cut_off - interval '1 microsecond', interval '1 hour'
    ) as expected (landed_hour)
    left join landing.hours on expected.landed_hour = hours.landed_hour and hours.sealed
    where hours.landed_hour is null
    group by windows.first_landing_hour, windows.cut_off
)

select
    due_drafts.draft_id,
    format(
        '%%s landing hours up to the cut-off are not sealed, the first %%s',
        open_hours.open_count, to_char(open_hours.first_open at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
    ) as detail
from due_drafts
inner join open_hours
    on due_drafts.first_landing_hour = open_hours.first_landing_hour
        and due_drafts.cut_off = open_hours.cut_off
