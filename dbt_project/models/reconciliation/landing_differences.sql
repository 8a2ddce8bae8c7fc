{{ config(materialized='table_function', meta={'requires': [whole_hour('landed_hour')]}) }}

-- From a landing hour in which L1, L2 or L3 fails, or a row of landing_to_ledger, to the records: what a file should
-- hold against the rows that stand for it, and each landed record against the one row of the ledger that posts it.

select
    'L1' as law,
    null as tenant_id,
    file_key,
    null as line_number,
    state,
    format(
        'the file has %s accepted and %s rejected records; there are %s and %s rows',
        accepted_count, rejected_count, accepted_found, rejected_found
    ) as detail
from {{ ref('files_to_landing') }}
where landed_hour = given_landed_hour and state <> 'identical'
union all
select
    'L2, L3' as law,
    tenant_id,
    file_key,
    line_number,
    state,
    concat_ws(
        ' ',
        case
            when posted_as is null then 'landed, and nowhere in the ledger:'
            when state = 'missing' then 'landed twice under the same file and line:'
            when state = 'extra' then 'in the ledger (' || posted_as || '), and not so often landed:'
            else 'posted (' || posted_as || ') with another ' || array_to_string(differs_in, ', ') || ':'
        end,
        event_type,
        to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        correlation_id
    ) as detail
from {{ ref('copies_to_ledger') }}
where landed_hour = given_landed_hour and state <> 'identical'
order by file_key, line_number nulls first
