{{ config(
    materialized='posting',
    full_refresh=false,
    pre_hook={'sql': "{{ ensure_ledger_partitions() }}", 'transaction': false},
) }}

-- Posts the landing hours of the window: each distinct event once, its further copies, its voids, and
-- what the rollups owe from now on. A copy is the owner if it is the smallest by (landed hour, file key,
-- line), whatever order the hours are posted in; so a second run, or another order, gives the same rows.

{% set in_its_hour -%}
batch.occurred_at >= {{ window_start() }} and batch.occurred_at < {{ window_end() }}
{%- endset -%}
-- 1. The batch: what the current versions of the files hold. Hashing is most of the work: workers share it, and
-- others may write meanwhile, all but what has landed.
{{ hold_landed() }};

set local parallel_tuple_cost = 0.01;

-- the planner takes an hour of one file for the few rows that chance would give both, and reads it in one process
set local enable_nestloop = off;

-- a table of half a million wide rows is sampled at a tenth of the usual cost, which is enough for these plans
set local default_statistics_target = 10;

create temporary table batch on commit drop as
with landed as (
    {{ landed_copies('files.superseded_by is null') }}
)

select * from landed
-- comparing an hour that is the same everywhere would double the cost of sorting
order by {{ 'landed_hour, ' if not window_is_one_hour() }}occurred_at, fingerprint;

set local enable_nestloop = on;

-- The rollups may be merged meanwhile.
{{ wait_for(ledger_lock()) }};

-- What the ledger has already of the window's own hours: nearly nothing, unless they were posted before.
create temporary table present on commit drop as
select
    occurred_at,
    fingerprint,
    file_id,
    line_number
from {{ this }}
where
    occurred_at >= {{ window_start() }}
    and occurred_at < {{ window_end() }};

analyze batch (landed_hour, occurred_at, file_id), present;

delete from batch
using present
where
    present.occurred_at = batch.occurred_at
    and present.fingerprint = batch.fingerprint
    and present.file_id = batch.file_id
    and present.line_number = batch.line_number;

-- 2. Leave in the batch what shall be posted, and set aside what must be classified: voids, further copies, and
-- copies of events that the ledger has. So the window's own hours can be posted without asking the unique key,
-- which would double the cost of a row.
create temporary table remaining (like batch) on commit drop;

with in_order as (
    select
        ctid as place,
        kind,
        fingerprint,
        lag(fingerprint) over (
            -- of the same event all copies come first, then its voids
            order by occurred_at, fingerprint, kind, landed_hour, file_key collate "C", line_number
        ) as fingerprint_before
    from batch
),

set_aside as (
    delete from batch
    using in_order
    where batch.ctid = in_order.place and (in_order.kind = 'void' or in_order.fingerprint = in_order.fingerprint_before)
    returning batch.*
)

insert into remaining
select * from set_aside;

with set_aside as (
    delete from batch
    using present
    where present.occurred_at = batch.occurred_at and present.fingerprint = batch.fingerprint
    returning batch.*
)

insert into remaining
select * from set_aside;

-- 3. Post. What is late or early is left to the unique key; what that refuses is set aside too.
insert into {{ this }}
select
    {{ ledger_columns('batch') }}
from batch
where {{ in_its_hour }};

create temporary table accepted (
    file_id bigint,
    line_number bigint
) on commit drop;

with posted as (
    insert into {{ this }}
    select
        {{ ledger_columns('batch') }}
    from batch
    where not ({{ in_its_hour }})
    on conflict do nothing
    returning file_id, line_number
)

insert into accepted
select * from posted;

analyze accepted;

with set_aside as (
    delete from batch
    where
        not ({{ in_its_hour }})
        and not exists (
            select 1
            from accepted
            where accepted.file_id = batch.file_id and accepted.line_number = batch.line_number
        )
    returning batch.*
)

insert into remaining
select * from set_aside;

analyze remaining (occurred_at, fingerprint, file_id, line_number);

-- What stands already as it should is done; on a second run that is everything.
delete from remaining
using {{ this }} as posted
where
    not ({{ in_its_hour | replace('batch.', 'remaining.') }})
    and posted.tenant_id = remaining.tenant_id
    and posted.occurred_at = remaining.occurred_at
    and posted.fingerprint = remaining.fingerprint
    and posted.file_id = remaining.file_id
    and posted.line_number = remaining.line_number;

{% for table in ['duplicates', 'conflicts', 'voids'] -%}
delete from remaining
using ledger.{{ table }}
where
    {{ table }}.landed_hour >= {{ window_start() }}
    and {{ table }}.landed_hour < {{ window_end() }}
    and {{ table }}.tenant_id = remaining.tenant_id
    and {{ table }}.occurred_at = remaining.occurred_at
    and {{ table }}.fingerprint = remaining.fingerprint
    and {{ table }}.file_id = remaining.file_id
    and {{ table }}.line_number = remaining.line_number;

{% endfor -%}
-- An hour that is archived was posted, and cannot be read: nothing of it is looked at.
create temporary table superseded on commit drop as
select
    file_id,
    file_key
from {{ source('landing', 'files') }}
where
    superseded_by is not null
    and landed_hour >= {{ window_start() }}
    and landed_hour < {{ window_end() }}
    and landed_hour not in (select archived.landed_hour from {{ source('landing', 'archived_hours') }} as archived);

analyze superseded;

create temporary table contested on commit drop as
{% for table in ['usage_events', 'duplicates', 'conflicts', 'voids'] -%}
select
    {{ table }}.tenant_id,
    {{ table }}.occurred_at,
    {{ table }}.fingerprint
from ledger.{{ table }}
inner join superseded on {{ table }}.file_id = superseded.file_id
where
    {{ table }}.landed_hour >= {{ window_start() }}
    and {{ table }}.landed_hour < {{ window_end() }}
    -- else the whole hour would be read to find none
    and (select count(*) from superseded) > 0
union
{% endfor -%}
select
    tenant_id,
    occurred_at,
    fingerprint
from remaining;

analyze contested;

-- 4. All their copies, where they stand and where they belong: those of current file versions in order of
-- ownership, those of superseded versions nowhere.
create temporary table copies on commit drop as
with known as (
    {% for table, kind in [
        ('usage_events', "'event'"), ('duplicates', 'duplicates.kind'), ('conflicts', "'event'"), ('voids', "'void'"),
    ] -%}
    select
        {{ kind }} as kind,
        {{ ledger_columns(table) }},
        '{{ table }}' as stands_in
    from contested
    inner join ledger.{{ table }}
        on
            contested.tenant_id = {{ table }}.tenant_id
            and contested.occurred_at = {{ table }}.occurred_at
            and contested.fingerprint = {{ table }}.fingerprint
    union all
    {% endfor -%}
    select
        remaining.kind,
        {{ ledger_columns('remaining') }},
        null as stands_in
    from remaining
),

in_order as (
    select
        known.*,
        files.superseded_by is null as is_current,
        row_number() over copy_order as copy_number,
        first_value(known.payload_hash) over copy_order as owner_payload_hash
    from known
    inner join {{ source('landing', 'files') }} as files on known.file_id = files.file_id
    window copy_order as (
        partition by files.superseded_by is null, known.kind, known.occurred_at, known.fingerprint
        order by known.landed_hour, files.file_key collate "C", known.line_number
    )
)

select
    *,
    case
        when not is_current then null
        when copy_number = 1 and kind = 'event' then 'usage_events'
        when copy_number = 1 then 'voids'
        when kind = 'event' and payload_hash <> owner_payload_hash then 'conflicts'
        else 'duplicates'
    end as belongs_to
from in_order;

-- without it a table whose size the planner does not know yet would be compared row by row
create index on copies (file_id, line_number);
analyze copies (file_id, line_number, occurred_at, fingerprint, stands_in, belongs_to);

-- 5. Each copy to its table.
{% for table in ['usage_events', 'duplicates', 'conflicts', 'voids'] -%}
delete from ledger.{{ table }}
using copies
where
    copies.stands_in = '{{ table }}'
    and copies.belongs_to is distinct from '{{ table }}'
    and {{ table }}.tenant_id = copies.tenant_id
    and {{ table }}.occurred_at = copies.occurred_at
    and {{ table }}.fingerprint = copies.fingerprint
    and {{ table }}.file_id = copies.file_id
    and {{ table }}.line_number = copies.line_number;

insert into ledger.{{ table }} (
    {% if table == 'duplicates' %}kind, {% endif %}tenant_id, event_type, occurred_at, correlation_id, fingerprint,
    payload_hash, quantity, properties, landed_hour, file_id, line_number, recorded_at
)
select
    {% if table == 'duplicates' %}kind,{% endif %}
    {{ ledger_columns('copies') }}
from copies
where
    belongs_to = '{{ table }}'
    and stands_in is distinct from '{{ table }}'
order by landed_hour, file_id, line_number;

{% endfor -%}
-- 6. What only a superseded version held. What stands as it should keeps its time.
create temporary table only_former on commit drop as
with former as (
    {{ landed_copies('files.superseded_by is not null') }}
),

current as (
    {{ landed_copies('files.superseded_by is null and files.file_key in (select file_key from superseded)') }}
)

select distinct on (former.file_key, former.kind, former.fingerprint)
    former.file_key,
    former.kind,
    {{ ledger_columns('former') }}
from former
where not exists (
    select 1
    from current
    where
        current.file_key = former.file_key
        and current.kind = former.kind
        and current.fingerprint = former.fingerprint
)
order by former.file_key, former.kind, former.fingerprint, former.file_id desc, former.line_number;

delete from ledger.withdrawn
where
    file_key in (select superseded.file_key from superseded)
    and not exists (
        select 1
        from only_former as standing
        where
            standing.tenant_id = withdrawn.tenant_id
            and standing.file_key = withdrawn.file_key
            and standing.kind = withdrawn.kind
            and standing.fingerprint = withdrawn.fingerprint
            and standing.file_id = withdrawn.file_id
            and standing.line_number = withdrawn.line_number
    );

insert into ledger.withdrawn
select * from only_former
on conflict do nothing;

-- 7. What the rollups owe: every key whose contribution this transaction has changed. An event is booked in the
-- landing hour of its owner and, once it is voided, taken back in the later of that and the void's.
insert into ledger.pending (landed_hour, tenant_id, event_type, event_hour)
with changed as (
    select
        min(tenant_id) as tenant_id,
        min(event_type) as event_type,
        occurred_at,
        min(landed_hour) filter (where stands_in = 'usage_events') as owner_before,
        min(landed_hour) filter (where stands_in = 'voids') as void_before,
        min(landed_hour) filter (where belongs_to = 'usage_events') as owner_after,
        min(landed_hour) filter (where belongs_to = 'voids') as void_after
    from copies
    group by occurred_at, fingerprint
    having bool_or(
        stands_in is distinct from belongs_to
        and (stands_in in ('usage_events', 'voids') or belongs_to in ('usage_events', 'voids'))
    )
),

booked as (
    select
        landed_hour,
        tenant_id,
        event_type,
        occurred_at
    from batch
    union all
    select
        greatest(batch.landed_hour, voids.landed_hour) as landed_hour,
        batch.tenant_id,
        batch.event_type,
        batch.occurred_at
    from batch
    inner join ledger.voids
        on
            batch.tenant_id = voids.tenant_id
            and batch.occurred_at = voids.occurred_at
            and batch.fingerprint = voids.fingerprint
    {% for moment in ['before', 'after'] -%}
    union all
    select
        owner_{{ moment }} as landed_hour,
        tenant_id,
        event_type,
        occurred_at
    from changed
    where owner_{{ moment }} is not null
    union all
    select
        greatest(owner_{{ moment }}, void_{{ moment }}) as landed_hour,
        tenant_id,
        event_type,
        occurred_at
    from changed
    where owner_{{ moment }} is not null and void_{{ moment }} is not null
    {% endfor %}
)

select distinct
    landed_hour,
    tenant_id,
    event_type,
    {{ hour_of('occurred_at') }} as event_hour
from booked
-- in the order in which they are taken; one that is owed already is not taken before this is committed
order by landed_hour, tenant_id, event_type, event_hour
on conflict (landed_hour, tenant_id, event_type, event_hour) do update set released = pending.released;

-- 8. The planner knows of what has come.
select catalog.make_hours_known('ledger', 'usage_events');

-- 9. The hours are posted. Those that were before keep their time: a second run changes no row.
update landing.hours
set posted_at = '{{ run_started_at }}'::timestamptz
where
    landed_hour >= {{ window_start() }}
    and landed_hour < {{ window_end() }}
    and landed_at is not null
    and posted_at is null
