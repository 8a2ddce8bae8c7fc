{#
  The catalog's tables as they are loaded: the key and each column's kind, in the order of the tables
  of schema catalog. A kind that ends in ? may be empty; one that ends in = and a
  value may be empty and then means that value. Everything arrives as text; this is the one
  place that says what a column must look like, how it is cast, and what to tell whoever wrote it.
#}
{% macro catalog_tables() -%}
    {{ return({
        'currencies': {
            'key': ['currency'],
            'columns': {'currency': 'text', 'minor_digits': 'minor_digits'},
        },
        'legal_entities': {
            'key': ['legal_entity'],
            'columns': {'legal_entity': 'text', 'name': 'text', 'series': 'text'},
        },
        'tenants': {
            'key': ['tenant_id'],
            'columns': {'tenant_id': 'text', 'name': 'text', 'legal_entity': 'text', 'billable': 'boolean'},
        },
        'metrics': {
            'key': ['metric'],
            'columns': {
                'metric': 'text', 'event_type': 'text',
                'aggregation': 'count|sum|min|max|latest|unique_count|weighted_sum|percentile',
                'value_property': 'text?', 'percentile': 'number?', 'recurring': 'boolean=false', 'dimensions': 'names',
                'unit': 'text', 'filter': 'object', 'description': 'text',
            },
        },
        'plans': {
            'key': ['plan_id'],
            'columns': {
                'plan_id': 'text', 'name': 'text', 'currency': 'text', 'billing_interval': 'day|week|month|quarter|half_year|year',
                'interval_count': 'count=1', 'minimum_document_amount': 'number',
            },
        },
        'charges': {
            'key': ['charge_id', 'version'],
            'columns': {
                'charge_id': 'text', 'version': 'whole', 'plan_id': 'text', 'component': 'usage|flat|commitment',
                'metric': 'text?', 'dimension_route': 'object',
                'charge_model': 'per_unit|graduated|volume|package|percentage|graduated_percentage|matrix|dynamic|flat',
                'timing': 'arrears|advance', 'description': 'text', 'effective_from': 'date',
                'takes_effect': 'next_period|at_once=next_period',
                'billing_interval': 'day|week|month|quarter|half_year|year?', 'interval_count': 'count?',
                'conversion_operation': 'multiply|divide?', 'conversion_factor': 'number?',
                'quantity_rounding': 'round|ceiling|floor?', 'quantity_digits': 'digits=0',
                'included_quantity': 'allowance=0', 'package_size': 'number?', 'discount_percent': 'number=0',
                'discount_amount': 'number=0', 'maximum_amount': 'number?', 'minimum_amount': 'number=0',
                'prorated': 'boolean=true',
            },
        },
        'charge_tiers': {
            'key': ['charge_id', 'version', 'tier'],
            'columns': {
                'charge_id': 'text', 'version': 'whole', 'tier': 'whole', 'up_to': 'number?',
                'unit_amount': 'number', 'flat_amount': 'number', 'rate_percent': 'number=0',
                'dimension_values': 'object={}',
            },
        },
        'percentage_terms': {
            'key': ['charge_id', 'version'],
            'columns': {
                'charge_id': 'text', 'version': 'whole', 'amount_per_event': 'number=0', 'free_events': 'whole?',
                'free_amount': 'number?', 'minimum_per_event': 'number?', 'maximum_per_event': 'number?',
            },
        },
        'subscriptions': {
            'key': ['subscription_id', 'version'],
            'columns': {
                'subscription_id': 'text', 'version': 'whole', 'tenant_id': 'text', 'plan_id': 'text',
                'time_zone': 'zone', 'anchor_date': 'date', 'anchor_time': 'time', 'started_at': 'instant',
                'trial_ends_at': 'instant?', 'ended_at': 'instant?', 'recorded_at': 'instant', 'recorded_by': 'text',
            },
        },
        'tax_rates': {
            'key': ['tenant_id', 'tax_code', 'charge_id', 'effective_from'],
            'columns': {
                'tenant_id': 'text', 'tax_code': 'text', 'charge_id': 'text?', 'rate': 'number',
                'effective_from': 'date',
            },
        },
        'coupons': {
            'key': ['coupon_id'],
            'columns': {
                'coupon_id': 'text', 'tenant_id': 'text', 'subscription_id': 'text?', 'currency': 'text?',
                'percent': 'number?', 'amount': 'number?', 'effective_from': 'date', 'effective_until': 'date?',
                'document_limit': 'count?', 'description': 'text',
            },
        },
        'corrections': {
            'key': ['correction_id'],
            'columns': {
                'correction_id': 'text', 'subscription_id': 'text', 'charge_id': 'text',
                'period_start': 'instant', 'version': 'whole', 'recorded_by': 'text', 'reason': 'text',
                'recorded_at': 'instant',
            },
        },
        'provider_customers': {
            'key': ['customer'],
            'columns': {'customer': 'text', 'tenant_id': 'text?'},
        },
        'provider_meters': {
            'key': ['meter'],
            'columns': {'meter': 'text', 'metric': 'text?'},
        },
        'sources': {
            'key': ['source'],
            'columns': {
                'source': 'text', 'file_pattern': 'text', 'tenants': 'names=[]', 'expects_manifest': 'boolean',
                'due_hours': 'whole=1', 'declared_from': 'instant', 'declared_until': 'instant?', 'description': 'text',
            },
        },
    }) }}
{%- endmacro %}

{# Columns that must be found in another table: (table, columns, the other table, its columns). #}
{% macro catalog_references() -%}
    {{ return([
        ('tenants', ['legal_entity'], 'legal_entities', ['legal_entity']),
        ('plans', ['currency'], 'currencies', ['currency']),
        ('charges', ['plan_id'], 'plans', ['plan_id']),
        ('charges', ['metric'], 'metrics', ['metric']),
        ('charge_tiers', ['charge_id', 'version'], 'charges', ['charge_id', 'version']),
        ('percentage_terms', ['charge_id', 'version'], 'charges', ['charge_id', 'version']),
        ('subscriptions', ['tenant_id'], 'tenants', ['tenant_id']),
        ('subscriptions', ['plan_id'], 'plans', ['plan_id']),
        ('tax_rates', ['tenant_id'], 'tenants', ['tenant_id']),
        ('coupons', ['tenant_id'], 'tenants', ['tenant_id']),
        ('coupons', ['subscription_id'], 'subscriptions', ['subscription_id']),
        ('coupons', ['currency'], 'currencies', ['currency']),
        ('corrections', ['charge_id', 'version'], 'charges', ['charge_id', 'version']),
        ('corrections', ['subscription_id'], 'subscriptions', ['subscription_id']),
        ('provider_customers', ['tenant_id'], 'tenants', ['tenant_id']),
        ('provider_meters', ['metric'], 'metrics', ['metric']),
    ]) }}
{%- endmacro %}

{# Whether a text can be cast to its kind; guarded by case, so that nothing is cast before it is known to fit. #}
{% macro catalog_fits(column, kind) -%}
    {%- if kind == 'text' -%}
        octet_length({{ column }}) between 1 and 255 and {{ column }} = btrim({{ column }})
    {%- elif kind == 'number' -%}
        {{ column }} ~ '^-?[0-9]{1,20}([.][0-9]{1,18})?$'
    {%- elif kind == 'whole' -%}
        {{ column }} ~ '^(0|[1-9][0-9]{0,8})$'
    {%- elif kind == 'count' -%}
        {{ column }} ~ '^[1-9][0-9]{0,2}$'
    {%- elif kind == 'minor_digits' -%}
        {{ column }} ~ '^[0-6]$'
    {%- elif kind == 'digits' -%}
        {{ column }} ~ '^(0|-?[1-9]|1[0-8])$'
    {%- elif kind == 'allowance' -%}
        {{ column }} ~ '^([0-9]{1,20}([.][0-9]{1,18})?|unlimited)$'
    {%- elif kind == 'boolean' -%}
        {{ column }} in ('true', 'false')
    {%- elif kind == 'date' -%}
        case
            when {{ column }} ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then pg_input_is_valid({{ column }}, 'date')
            else false
        end
    {%- elif kind == 'time' -%}
        case
            when {{ column }} ~ '^[0-9]{2}:[0-9]{2}(:[0-9]{2})?$' then {{ column }} < '24'
                and pg_input_is_valid({{ column }}, 'time')
            else false
        end
    {%- elif kind == 'instant' -%}
        case
            when {{ column }} ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})$'
                then pg_input_is_valid({{ column }}, 'timestamptz')
            else false
        end
    {%- elif kind == 'zone' -%}
        case
            when {{ column }} ~ '^(UTC|[A-Z][A-Za-z_-]+(/[A-Z][A-Za-z_-]+)+|Etc/GMT[+-][0-9]{1,2})$'
                then pg_input_is_valid('2000-01-01 00:00 ' || {{ column }}, 'timestamptz')
            else false
        end
    {%- elif kind == 'object' -%}
        case
            when pg_input_is_valid({{ column }}, 'jsonb') then jsonb_typeof({{ column }}::jsonb) = 'object'
            else false
        end
    {%- elif kind == 'names' -%}
        case
            when pg_input_is_valid({{ column }}, 'jsonb') then case
                when jsonb_typeof({{ column }}::jsonb) = 'array'
                    then not jsonb_path_exists({{ column }}::jsonb, '$[*] ? (@.type() != "string")')
                else false
            end
            else false
        end
    {%- else -%}
        {{ column }} in ('{{ kind.split("|") | join("', '") }}')
    {%- endif -%}
{%- endmacro %}

{# What to tell whoever wrote a value that does not fit. #}
{% macro catalog_expectation(kind) -%}
    {%- set words = {
        'text': 'write a text of 1 to 255 bytes without spaces around it',
        'number': 'write a decimal number with a point, as 12.5 (at most 20 digits before and 18 after it)',
        'whole': 'write a whole number, as 1',
        'count': 'write a whole number from 1 to 999',
        'digits': 'write a number of digits after the point, -9 to 18 (negative: tens, hundreds)',
        'allowance': 'write a decimal number as 1000, or unlimited',
        'minor_digits': 'write the number of digits after the point, 0 to 6',
        'boolean': 'write true or false',
        'date': 'write a date, as 2026-01-31',
        'time': 'write a time of day, as 00:00',
        'instant': 'write an instant with its offset, as 2026-01-31T00:00:00+01:00',
        'zone': 'write a time zone of the tz database, as Europe/Berlin or UTC',
        'object': 'write a JSON object, as {"model": "small"} or {}',
        'names': 'write a JSON array of property names, as ["model"] or []',
    } -%}
    {{ words.get(kind) or 'write one of: ' ~ kind.replace('|', ', ') }}
{%- endmacro %}

{# What a kind says: base (how it looks), optional, and what an empty one means. #}
{% macro catalog_kind(kind) -%}
    {%- set parts = kind.rstrip('?').split('=') -%}
    {{ return({
        'base': parts[0], 'optional': kind.endswith('?') or parts | length > 1,
        'default': parts[1] if parts | length > 1 else none,
    }) }}
{%- endmacro %}

{# A text as it counts: an empty one is the kind's default, or null. #}
{% macro catalog_text(column, kind) -%}
    {%- set default = catalog_kind(kind).default -%}
    {{ "coalesce(" ~ column ~ ", '" ~ default ~ "')" if default is not none else column }}
{%- endmacro %}

{# A text cast to its kind; an empty one is null. #}
{% macro catalog_cast(column, kind) -%}
    {%- if kind == 'number' -%}
        trim_scale({{ column }}::numeric)
    {%- elif kind == 'allowance' -%}
        case {{ column }} when 'unlimited' then 'Infinity' else trim_scale({{ column }}::numeric) end
    {%- elif kind in ('whole', 'count', 'digits', 'minor_digits') -%}
        {{ column }}::integer
    {%- elif kind in ('boolean', 'date', 'time') -%}
        {{ column }}::{{ kind }}
    {%- elif kind == 'instant' -%}
        {{ column }}::timestamptz
    {%- elif kind == 'object' -%}
        {{ column }}::jsonb
    {%- elif kind == 'names' -%}
        array(select jsonb_array_elements_text({{ column }}::jsonb))
    {%- else -%}
        {{ column }}
    {%- endif -%}
{%- endmacro %}

{# A table's rows, each column cast where it fits and null where it does not. #}
{% macro catalog_typed(table) -%}
    {%- set columns = catalog_tables()[table]['columns'] -%}
    select
        {%- for column, kind in columns.items() %}
        {%- set base = catalog_kind(kind).base -%}
        {%- set text = catalog_text(column, kind) %}
        {% if base == 'names' -%}
        case when {{ catalog_fits(text, base) }} then {{ text }}::jsonb end as {{ column }}
        {%- else -%}
        case when {{ catalog_fits(text, base) }} then {{ catalog_cast(text, base) }} end as {{ column }}
        {%- endif -%}
        {{ ',' if not loop.last }}
        {%- endfor %}
    from {{ ref(table) }}
{%- endmacro %}

{# A row's key as people read it. #}
{% macro catalog_key(columns, relation=none) -%}
    concat_ws(' ',
        {%- for column in columns %} {{ relation ~ '.' if relation else '' }}{{ column }}::text{{ ',' if not loop.last }}{% endfor -%}
    )
{%- endmacro %}

{# Whether two dimension routes can hold the same usage: they have no dimension in which they differ. #}
{% macro routes_meet(first, second) -%}
    not exists (
        select 1
        from jsonb_each({{ first }}) as one
        inner join jsonb_each({{ second }}) as other on one.key = other.key
        where one.value <> other.value
    )
{%- endmacro %}
