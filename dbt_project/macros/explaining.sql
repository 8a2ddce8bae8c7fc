{# What lines of documents and of drafts have both. #}
{% macro document_line_columns(lines) -%}
{%- for column in [
    'tenant_id', 'subscription_id', 'charge_id', 'charge_version', 'component', 'metric', 'slice_start', 'slice_end',
    'quantity', 'event_count', 'event_digest', 'payload_digest', 'rated_amount', 'amount', 'currency', 'kind',
    'description',
] %}
        {{ lines }}.{{ column }}{{ ',' if not loop.last }}
{%- endfor %}
{%- endmacro %}

{# The one slice of a charge that a piece of usage belongs to, as rating attributes it: by its dimensions and its
   first instant. Gives charge_slices' columns; null where no charge takes it or what would take it has no price. #}
{% macro slice_of_usage(tenant_id, metric, dimensions, instant) -%}
select taken.*
    from (
        select slices.*
        from {{ source('rating', 'charge_slices') }} as slices
        where
            slices.tenant_id = {{ tenant_id }}
            and slices.metric = {{ metric }}
            and slices.slice_start <= {{ instant }}
            and slices.slice_end > {{ instant }}
            and {{ dimensions }} @> slices.dimension_route
        order by slices.charge_version is null, slices.subscription_id, slices.charge_id
        limit 1
    ) as taken
    where
        taken.charge_version is not null
        and (
            taken.charge_model <> 'matrix'
            or exists (
                select 1
                from {{ source('catalog', 'charge_tiers') }} as rows
                where
                    rows.charge_id = taken.charge_id
                    and rows.version = taken.charge_version
                    and rows.dimension_values <@ {{ dimensions }}
            )
        )
{%- endmacro %}

{# Every copy of some events (a relation of tenant_id, event_type, occurred_at, correlation_id, fingerprint) that
   ever landed: those of current file versions where the ledger has them, those of superseded versions from
   landing. `known_from` and `known_until` say by the clock from when to when the copy's version was the current
   one; `stands_as` what the ledger makes of it now, null for a superseded one. #}
{% macro all_copies(events) -%}
with current_copies as (
        {% for table, kind, stands_as in [
            ('usage_events', "'event'", 'event'), ('duplicates', 'copies.kind', 'duplicate'),
            ('conflicts', "'event'", 'conflict'), ('voids', "'void'", 'void'),
        ] -%}
        select
            {{ kind }} as kind,
            '{{ stands_as }}' as stands_as,
            copies.tenant_id,
            copies.event_type,
            copies.occurred_at,
            copies.correlation_id,
            copies.fingerprint,
            copies.payload_hash,
            copies.quantity,
            copies.properties,
            copies.landed_hour,
            copies.file_id,
            copies.line_number
        from {{ events }} as wanted
        inner join ledger.{{ table }} as copies
            on wanted.occurred_at = copies.occurred_at and wanted.fingerprint = copies.fingerprint
        {{ 'union all' if not loop.last }}
        {% endfor %}
    ),

    former_files as (
        select
            former.file_id,
            former.landed_hour
        from (
            select files.file_key
            from current_copies
            inner join {{ source('landing', 'files') }} as files on current_copies.file_id = files.file_id
            union
            select withdrawn.file_key
            from {{ events }} as wanted
            inner join {{ source('ledger', 'withdrawn') }} as withdrawn on wanted.fingerprint = withdrawn.fingerprint
        ) as keys
        inner join {{ source('landing', 'files') }} as former
            on keys.file_key = former.file_key and former.superseded_by is not null
    ),

    former_copies as (
        select
            case when raw.void then 'void' else 'event' end as kind,
            null as stands_as,
            raw.tenant_id,
            raw.event_type,
            raw.occurred_at,
            raw.correlation_id,
            wanted.fingerprint,
            {{ payload_hash('raw') }} as payload_hash,
            trim_scale(raw.quantity) as quantity,
            raw.properties::jsonb as properties,
            raw.landed_hour,
            raw.file_id,
            raw.line_number
        from former_files
        cross join lateral (
            select landed.*
            from {{ source('landing', 'usage_events') }} as landed
            where landed.landed_hour = former_files.landed_hour and landed.file_id = former_files.file_id
            offset 0
        ) as raw
        inner join {{ events }} as wanted
            on raw.tenant_id = wanted.tenant_id
                and raw.event_type = wanted.event_type
                and raw.occurred_at = wanted.occurred_at
                and raw.correlation_id = wanted.correlation_id
    )

    select
        copies.*,
        files.file_key,
        files.landed_at as known_from,
        newer.landed_at as known_until
    from (
        select * from current_copies
        union all
        select * from former_copies
    ) as copies
    left join {{ source('landing', 'files') }} as files on copies.file_id = files.file_id
    left join {{ source('landing', 'files') }} as newer on files.superseded_by = newer.file_id
{%- endmacro %}
