{{ config(materialized='table_function', meta={'requires': [whole_hour('landed_hour')]}) }}

-- From a landing hour in which L1, L2 or L3 fails, or a row of landing_to_ledger, to the records: what a file should
-- hold against the rows that stand for it, and each landed record against the one row of the ledger that posts it.

with files as (
    select *
    from {{ source('landing', 'files') }}
    where landed_hour = given_landed_hour
),

landed as (
    select
        events.*,
        row_number() over (partition by events.file_id, events.line_number) as copy_number
    from {{ source('landing', 'usage_events') }} as events
    where events.landed_hour = given_landed_hour
),

rejected as (
    select
        file_id,
        count(*) as rejected_rows
    from {{ source('landing', 'rejected_events') }}
    where landed_hour = given_landed_hour
    group by file_id
),

posted as (
    {% for relation, kind in [
        (ref('usage_events'), 'owned'),
        (source('ledger', 'duplicates'), 'duplicate'),
        (source('ledger', 'conflicts'), 'conflict'),
        (source('ledger', 'voids'), 'void'),
    ] -%}
    {% if not loop.first %}union all
    {% endif -%}
    select
        file_id,
        line_number,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        quantity,
        properties,
        fingerprint,
        payload_hash,
        '{{ kind }}' as kind
    from {{ relation }}
    where landed_hour = given_landed_hour
    {% endfor %}
),

file_sums as (
    select
        files.file_id,
        count(landed.file_id) as accepted_rows
    from files
    left join landed on files.file_id = landed.file_id
    group by files.file_id
),

of_files as (
    select
        'L1' as law,
        null as tenant_id,
        files.file_key,
        null::bigint as line_number,
        case
            when files.accepted_count + files.rejected_count
                > file_sums.accepted_rows + coalesce(rejected.rejected_rows, 0) then 'missing'
            when files.accepted_count + files.rejected_count
                < file_sums.accepted_rows + coalesce(rejected.rejected_rows, 0) then 'extra'
            else 'modified'
        end as state,
        format(
            'the file has %s accepted and %s rejected records; there are %s and %s rows',
            files.accepted_count, files.rejected_count, file_sums.accepted_rows, coalesce(rejected.rejected_rows, 0)
        ) as detail
    from files
    inner join file_sums on files.file_id = file_sums.file_id
    left join rejected on files.file_id = rejected.file_id
    where
        files.accepted_count <> file_sums.accepted_rows
        or files.rejected_count <> coalesce(rejected.rejected_rows, 0)
),

paired as (
    select
        coalesce(landed.file_id, posted.file_id) as file_id,
        coalesce(landed.line_number, posted.line_number) as line_number,
        coalesce(landed.tenant_id, posted.tenant_id) as tenant_id,
        coalesce(landed.event_type, posted.event_type) as event_type,
        coalesce(landed.occurred_at, posted.occurred_at) as occurred_at,
        coalesce(landed.correlation_id, posted.correlation_id) as correlation_id,
        posted.kind,
        landed.file_id is null as is_extra,
        posted.file_id is null as is_missing,
        landed.copy_number > 1 as is_doubled,
        array_remove(array[
            case when landed.tenant_id <> posted.tenant_id then 'tenant_id' end,
            case when landed.event_type <> posted.event_type then 'event_type' end,
            case when landed.occurred_at <> posted.occurred_at then 'occurred_at' end,
            case when landed.correlation_id <> posted.correlation_id then 'correlation_id' end,
            case when landed.quantity <> posted.quantity then 'quantity' end,
            case when landed.properties::jsonb <> posted.properties then 'properties' end,
            case when {{ fingerprint('landed') }} <> posted.fingerprint then 'fingerprint' end,
            case when {{ payload_hash('landed') }} <> posted.payload_hash then 'payload_hash' end
        ], null) as differs_in
    from (
        select landed.*
        from landed
        inner join files on landed.file_id = files.file_id and files.superseded_by is null
    ) as landed
    full join posted on landed.file_id = posted.file_id and landed.line_number = posted.line_number
),

of_records as (
    select
        'L2, L3' as law,
        paired.tenant_id,
        all_files.file_key,
        paired.line_number,
        case
            when paired.is_missing then 'missing'
            when paired.is_extra or paired.is_doubled then 'extra'
            else 'modified'
        end as state,
        concat_ws(
            ' ',
            case
                when paired.is_missing then 'landed, and nowhere in the ledger:'
                when paired.is_extra then 'in the ledger (' || paired.kind || '), and never landed:'
                when paired.is_doubled then 'landed twice under the same file and line:'
                else 'posted (' || paired.kind || ') with another ' || array_to_string(paired.differs_in, ', ') || ':'
            end,
            paired.event_type,
            to_char(paired.occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            paired.correlation_id
        ) as detail
    from paired
    left join {{ source('landing', 'files') }} as all_files on paired.file_id = all_files.file_id
    where
        paired.is_missing
        or paired.is_extra
        or paired.is_doubled
        or cardinality(paired.differs_in) > 0
)

select *
from (
    select * from of_files
    union all
    select * from of_records
) as differences
where given_landed_hour not in (select archived.landed_hour from {{ source('landing', 'archived_hours') }} as archived)
order by file_key, line_number nulls first
