{{ config(
    materialized='posting',
    full_refresh=false,
    pre_hook={'sql': "{{ ensure_ledger_partitions() }}", 'transaction': false},
) }}

-- Posts the landing hours of the window: each distinct event once, its further copies, its voids, and
-- what the rollups owe from now on. A copy is the owner if it is the smallest by (landed hour, file key,
-- line), whatever order the hours are posted in; so a second run, or another order, gives the same rows.

-- 1. The files of the window.
create temporary table current_files on commit drop as
select
    file_id,
    file_key
from {{ source('landing', 'files') }}
where
    superseded_by is null
    and landed_hour >= {{ window_start() }}
    and landed_hour < {{ window_end() }};

create temporary table superseded on commit drop as
select
    file_id,
    file_key
from {{ source('landing', 'files') }}
where
    superseded_by is not null
    and landed_hour >= {{ window_start() }}
    and landed_hour < {{ window_end() }};

analyze current_files, superseded;

-- 2. Post their events in order. The unique key refuses every further copy; most of the work is done here.
create temporary table accepted (
    tenant_id text,
    event_type text,
    occurred_at timestamptz,
    fingerprint uuid,
    landed_hour timestamptz,
    file_id bigint,
    line_number bigint
) on commit drop;

with landed as (
    {{ landed_copies('current_files') }}
),

posted as (
    insert into {{ this }}
    select
        {{ ledger_columns('landed') }}
    from landed
    where kind = 'event'
    -- every event of a single hour has the same landed_hour: no need to compare it
    order by {{ 'landed_hour,' if not window_is_one_hour() }} occurred_at, fingerprint, file_key, line_number
    on conflict do nothing
    returning tenant_id, event_type, occurred_at, fingerprint, landed_hour, file_id, line_number
)

insert into accepted
select * from posted;

analyze accepted (file_id, line_number);

-- 3. What must be classified: copies not accepted, voids, and copies of superseded file versions.
create temporary table remaining on commit drop as
with landed as (
    {{ landed_copies('current_files') }}
)

select landed.*
from landed
where not exists (
    select 1
    from accepted
    where accepted.file_id = landed.file_id and accepted.line_number = landed.line_number
);

analyze remaining;

-- What is posted already stands as it should; on a second run that is nearly everything.
{% for table in ['usage_events', 'duplicates', 'conflicts', 'voids'] -%}
delete from remaining
using ledger.{{ table }}
where
    {{ table }}.landed_hour >= {{ window_start() }}
    and {{ table }}.landed_hour < {{ window_end() }}
    and {{ table }}.occurred_at = remaining.occurred_at
    and {{ table }}.fingerprint = remaining.fingerprint
    and {{ table }}.file_id = remaining.file_id
    and {{ table }}.line_number = remaining.line_number;

{% endfor -%}
create temporary table contested on commit drop as
{% for table in ['usage_events', 'duplicates', 'conflicts', 'voids'] -%}
select
    {{ table }}.occurred_at,
    {{ table }}.fingerprint
from ledger.{{ table }}
inner join superseded on {{ table }}.file_id = superseded.file_id
where
    {{ table }}.landed_hour >= {{ window_start() }}
    and {{ table }}.landed_hour < {{ window_end() }}
union
{% endfor -%}
select
    occurred_at,
    fingerprint
from remaining;

analyze contested;

create temporary table before on commit drop as
{{ contested_state() }};

-- 4. All their copies, but those of superseded versions, in order of ownership.
create temporary table copies on commit drop as
with known as (
    {% for table, kind in [
        ('usage_events', "'event'"), ('duplicates', 'duplicates.kind'), ('conflicts', "'event'"), ('voids', "'void'"),
    ] -%}
    select
        {{ kind }} as kind,
        {{ ledger_columns(table) }}
    from contested
    inner join ledger.{{ table }}
        on contested.occurred_at = {{ table }}.occurred_at and contested.fingerprint = {{ table }}.fingerprint
    union all
    {% endfor -%}
    select
        kind,
        {{ ledger_columns('remaining') }}
    from remaining
),

distinct_copies as (
    -- a copy that is posted already comes again: the posted row stays
    select distinct on (file_id, line_number) *
    from known
    order by file_id, line_number, recorded_at
),

current_copies as (
    select
        distinct_copies.*,
        row_number() over copy_order as copy_number,
        first_value(distinct_copies.payload_hash) over copy_order as owner_payload_hash
    from distinct_copies
    inner join {{ source('landing', 'files') }} as files on distinct_copies.file_id = files.file_id
    where files.superseded_by is null
    window copy_order as (
        partition by distinct_copies.kind, distinct_copies.occurred_at, distinct_copies.fingerprint
        order by distinct_copies.landed_hour, files.file_key collate "C", distinct_copies.line_number
    )
)

select
    *,
    case
        when copy_number = 1 and kind = 'event' then 'usage_events'
        when copy_number = 1 then 'voids'
        when kind = 'event' and payload_hash <> owner_payload_hash then 'conflicts'
        else 'duplicates'
    end as belongs_to
from current_copies;

-- without it a table whose size the planner does not know yet would be compared row by row
create index on copies (file_id, line_number);
analyze copies;

-- 5. Each copy to its table.
{% for table in ['usage_events', 'duplicates', 'conflicts', 'voids'] -%}
delete from ledger.{{ table }}
using contested
where
    {{ table }}.occurred_at = contested.occurred_at
    and {{ table }}.fingerprint = contested.fingerprint
    and not exists (
        select 1
        from copies
        where
            copies.belongs_to = '{{ table }}'
            and copies.file_id = {{ table }}.file_id
            and copies.line_number = {{ table }}.line_number
    );

insert into ledger.{{ table }} (
    {% if table == 'duplicates' %}kind, {% endif %}tenant_id, event_type, occurred_at, correlation_id, fingerprint,
    payload_hash, quantity, properties, landed_hour, file_id, line_number, recorded_at
)
select
    {% if table == 'duplicates' %}kind,{% endif %}
    {{ ledger_columns('copies') }}
from copies
where belongs_to = '{{ table }}'
order by landed_hour, file_id, line_number
on conflict do nothing;

{% endfor -%}
-- 6. What only a superseded version held. What stands as it should keeps its time.
create temporary table only_former on commit drop as
with former as (
    {{ landed_copies('superseded') }}
),

present as (
    {{ landed_copies('current_files', 'current_files.file_key in (select superseded.file_key from superseded)') }}
)

select distinct on (former.file_key, former.kind, former.fingerprint)
    former.file_key,
    former.kind,
    {{ ledger_columns('former') }}
from former
where not exists (
    select 1
    from present
    where
        present.file_key = former.file_key
        and present.kind = former.kind
        and present.fingerprint = former.fingerprint
)
order by former.file_key, former.kind, former.fingerprint, former.file_id desc, former.line_number;

delete from ledger.withdrawn
where
    file_key in (select superseded.file_key from superseded)
    and not exists (
        select 1
        from only_former as standing
        where
            standing.file_key = withdrawn.file_key
            and standing.kind = withdrawn.kind
            and standing.fingerprint = withdrawn.fingerprint
            and standing.file_id = withdrawn.file_id
            and standing.line_number = withdrawn.line_number
    );

insert into ledger.withdrawn
select * from only_former
on conflict do nothing;

-- 7. What the rollups owe: every key whose contribution this transaction has changed.
create temporary table after on commit drop as
{{ contested_state() }};

insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour)
with changed as (
    select before.*
    from before
    left join after using (occurred_at, fingerprint)
    where after is distinct from before
    union all
    select after.*
    from after
    left join before using (occurred_at, fingerprint)
    where before is distinct from after
),

booked as (
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at
    from accepted
    union all
    select
        greatest(accepted.landed_hour, voids.landed_hour) as landed_hour,
        accepted.tenant_id,
        accepted.event_type,
        accepted.occurred_at
    from accepted
    inner join ledger.voids
        on accepted.occurred_at = voids.occurred_at and accepted.fingerprint = voids.fingerprint
    union all
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at
    from changed
    union all
    select
        greatest(landed_hour, void_landed_hour) as landed_hour,
        tenant_id,
        event_type,
        occurred_at
    from changed
    where void_landed_hour is not null
)

select distinct
    landed_hour,
    tenant_id,
    event_type,
    {{ hour_of('occurred_at') }} as event_hour
from booked
on conflict do nothing;

-- 8. The hours are posted. Those that were before keep their time: a second run changes no row.
update landing.hours
set posted_at = '{{ run_started_at }}'::timestamptz
where
    landed_hour >= {{ window_start() }}
    and landed_hour < {{ window_end() }}
    and landed_at is not null
    and posted_at is null
