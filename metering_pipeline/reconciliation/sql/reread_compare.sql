-- The records of one file version, accepted and rejected, as the file says them against landing, line by line.
-- A payload that was erased is what the file says if that has the hash which the payload had.
with erased as (
    select
        line_number,
        properties,
        erased_payload_hash
    from landing.usage_events
    where
        landed_hour = %(landed_hour)s
        and file_id = %(file_id)s
        and erased_payload_hash is not null
),

sides as (
    select
        true as is_file,
        reread.line_number,
        reread.tenant_id,
        reread.event_type,
        reread.occurred_at,
        reread.correlation_id,
        reread.quantity,
        coalesce(erased.properties, reread.properties) as properties,
        reread.void::text as void,
        null as reason
    from pg_temp.reread
    left join erased
        on reread.line_number = erased.line_number
            and erased.erased_payload_hash = encode(substring(sha256(convert_to(
                trim_scale(reread.quantity)::text || chr(31) || reread.properties, 'UTF8'
            )) for 16), 'hex')::uuid
    union all
    select
        true as is_file,
        line_number,
        null as tenant_id,
        null as event_type,
        null as occurred_at,
        null as correlation_id,
        null as quantity,
        null as properties,
        null as void,
        reason
    from pg_temp.reread_rejected
    union all
    select
        false as is_file,
        line_number,
        tenant_id,
        event_type,
        occurred_at,
        correlation_id,
        quantity,
        properties,
        void::text as void,
        null as reason
    from landing.usage_events
    where landed_hour = %(landed_hour)s and file_id = %(file_id)s
    union all
    select
        false as is_file,
        line_number,
        null as tenant_id,
        null as event_type,
        null as occurred_at,
        null as correlation_id,
        null as quantity,
        null as properties,
        null as void,
        reason
    from landing.rejected_events
    where file_id = %(file_id)s
),

compared as (
    select
        line_number,
        count(*) filter (where is_file) as in_file,
        count(*) filter (where not is_file) as in_landing,
        coalesce(min(tenant_id) filter (where is_file), min(tenant_id)) as tenant_id,
        coalesce(min(correlation_id) filter (where is_file), min(correlation_id)) as correlation_id,
        array_remove(array[
            case
                when min(tenant_id) filter (where is_file) is distinct from min(tenant_id) filter (where not is_file)
                    then 'tenant_id'
            end,
            case
                when min(event_type) filter (where is_file) is distinct from min(event_type) filter (where not is_file)
                    then 'event_type'
            end,
            case
                when
                    min(occurred_at) filter (where is_file) is distinct from min(occurred_at) filter (where not is_file)
                    then 'occurred_at'
            end,
            case
                when
                    min(correlation_id) filter (where is_file) is distinct from min(correlation_id) filter (
                        where not is_file
                    )
                    then 'correlation_id'
            end,
            case
                when min(quantity) filter (where is_file) is distinct from min(quantity) filter (where not is_file)
                    then 'quantity'
            end,
            case
                when min(properties) filter (where is_file) is distinct from min(properties) filter (where not is_file)
                    then 'properties'
            end,
            case
                when min(void) filter (where is_file) is distinct from min(void) filter (where not is_file)
                    then 'void'
            end,
            case
                when min(reason) filter (where is_file) is distinct from min(reason) filter (where not is_file)
                    then 'reason'
            end
        ], null) as differing_columns
    from sides
    group by line_number
)

insert into pg_temp.reread_differences
select
    line_number,
    case
        when in_file > in_landing then 'missing'
        when in_file < in_landing then 'extra'
        else 'modified'
    end as difference,
    tenant_id,
    correlation_id,
    case when in_file = in_landing then differing_columns else '{}' end as differing_columns
from compared
where in_file <> in_landing or differing_columns <> '{}'
