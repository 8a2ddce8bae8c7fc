{{ config(meta={'dagster': {'ref': {'name': 'usage_events'}}}) }}

-- A duplicate or conflict of the window whose owner is not in the ledger: usage was dropped as a copy of
-- nothing. Post the landing hour again; if it stays, the ledger lost a row. It does not say whether every
-- landed event arrived (law L2 does), and nothing of events that are archived.

with copies as (
    select
        tenant_id,
        occurred_at,
        fingerprint,
        file_id,
        line_number
    from ledger.duplicates
    where
        kind = 'event'
        and landed_hour >= {{ window_start() }}
        and landed_hour < {{ window_end() }}
    union all
    select
        tenant_id,
        occurred_at,
        fingerprint,
        file_id,
        line_number
    from ledger.conflicts
    where
        landed_hour >= {{ window_start() }}
        and landed_hour < {{ window_end() }}
)

select copies.*
from copies
left join {{ ref('usage_events') }} as owners
    on
        copies.tenant_id = owners.tenant_id
        and copies.occurred_at = owners.occurred_at
        and copies.fingerprint = owners.fingerprint
where
    owners.fingerprint is null
    and (copies.occurred_at at time zone 'UTC')::date not in (
        select archived.day from {{ source('ledger', 'archived_days') }} as archived
    )
