{%- set tables = catalog_tables() %}

-- What is wrong with the catalog as it was loaded, a row a problem: it is not published while there is one.
-- What an issued line refers to is compared with the catalog now in force, which no issue has outlived.

with
{% for table in tables %}
typed_{{ table }} as (
    {{ catalog_typed(table) }}
),
{% endfor %}

-- Versions of a charge with the span of days for which each is in force.
charge_spans as (
    select
        *,
        lag(version) over versions as previous_version,
        lag(effective_from) over versions as previous_from,
        first_value(plan_id) over versions as first_plan_id,
        first_value(component) over versions as first_component,
        first_value(metric) over versions as first_metric,
        concat_ws(' ', interval_count, billing_interval) as own_interval,
        first_value(concat_ws(' ', interval_count, billing_interval)) over versions as first_interval,
        lead(effective_from, 1, 'infinity') over versions as effective_until
    from typed_charges
    window versions as (partition by charge_id order by version)
),

tier_rows as (
    select
        *,
        row_number() over tiers as place,
        count(*) over (partition by charge_id, version, dimension_values) as same_values,
        lag(up_to) over tiers as previous_up_to,
        lead(tier) over tiers as next_tier
    from typed_charge_tiers
    window tiers as (partition by charge_id, version order by tier)
),

subscription_versions as (
    select
        *,
        lag(recorded_at) over versions as previous_recorded_at,
        first_value(tenant_id) over versions as first_tenant_id,
        lead(version) over versions as next_version
    from typed_subscriptions
    window versions as (partition by subscription_id order by version)
),

issued_charges as (
    select distinct
        charge_id,
        charge_version as version
    from invoices.issued_invoice_lines
),

-- What issued lines refer to, as it stands in the catalog in force: table, key, and what may not change.
issued_references as (
    select
        'charges' as catalog_table,
        {{ catalog_key(['charge_id', 'version'], 'charges') }} as row_key,
        to_jsonb(charges) - 'description' as content
    from catalog.charges
    inner join issued_charges using (charge_id, version)
    union all
    select
        'charge_tiers',
        {{ catalog_key(['charge_id', 'version', 'tier'], 'charge_tiers') }},
        to_jsonb(charge_tiers)
    from catalog.charge_tiers
    inner join issued_charges using (charge_id, version)
    union all
    select
        'percentage_terms',
        {{ catalog_key(['charge_id', 'version'], 'percentage_terms') }},
        to_jsonb(percentage_terms)
    from catalog.percentage_terms
    inner join issued_charges using (charge_id, version)
    union all
    select
        'subscriptions',
        {{ catalog_key(['subscription_id', 'version'], 'subscriptions') }},
        to_jsonb(subscriptions) - array['recorded_at', 'recorded_by']
    from catalog.subscriptions
    where (subscription_id, version) in (
        select
            lines.subscription_id,
            lines.subscription_version
        from invoices.issued_invoice_lines as lines
    )
    union all
    select
        'metrics',
        metrics.metric,
        to_jsonb(metrics) - array['dimensions', 'unit', 'description']
    from catalog.metrics
    where metric in (
        select lines.metric
        from invoices.issued_invoice_lines as lines
    )
    union all
    select
        'plans',
        plans.plan_id,
        to_jsonb(plans) - array['name', 'minimum_document_amount']
    from catalog.plans
    where plan_id in (
        select charges.plan_id
        from catalog.charges
        inner join issued_charges using (charge_id, version)
    )
    union all
    select
        'currencies',
        currencies.currency,
        to_jsonb(currencies)
    from catalog.currencies
    where currency in (
        select issued_invoices.currency
        from invoices.issued_invoices
    )
    union all
    select
        'tenants',
        tenants.tenant_id,
        to_jsonb(tenants) - array['name', 'billable']
    from catalog.tenants
    where tenant_id in (
        select issued_invoices.tenant_id
        from invoices.issued_invoices
    )
    union all
    select
        'legal_entities',
        legal_entities.legal_entity,
        to_jsonb(legal_entities) - 'name'
    from catalog.legal_entities
    where legal_entity in (
        select issued_invoices.legal_entity
        from invoices.issued_invoices
    )
),

incoming as (
    {% for table, fields in tables.items() -%}
    select
        '{{ table }}' as catalog_table,
        {{ catalog_key(fields['key']) }} as row_key,
        to_jsonb(typed_{{ table }}) as content
    from typed_{{ table }}
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

{% for table, fields in tables.items() -%}
-- {{ table }}: each column by itself, and the key.
{{ table }}_columns as (
    select
        '{{ table }}' as catalog_table,
        {{ catalog_key(fields['key'], 'loaded') }} as row_key,
        checked.column_name,
        checked.value,
        checked.problem
    from {{ ref(table) }} as loaded
    cross join lateral (
        values
        {%- for column, kind in fields['columns'].items() %}
        (
            '{{ column }}', loaded.{{ column }},
            {% if catalog_kind(kind).optional -%}
            loaded.{{ column }} is null or {{ catalog_fits('loaded.' ~ column, catalog_kind(kind).base) }},
            '{{ catalog_expectation(catalog_kind(kind).base) }}'
            {%- else -%}
            loaded.{{ column }} is not null and {{ catalog_fits('loaded.' ~ column, kind) }},
            case when loaded.{{ column }} is null then 'is empty: ' else '' end || '{{ catalog_expectation(kind) }}'
            {%- endif %}
        ){{ ',' if not loop.last }}
        {%- endfor %}
    ) as checked (column_name, value, fits, problem)
    where not checked.fits
    union all
    select
        '{{ table }}',
        {{ catalog_key(fields['key']) }},
        '{{ fields["key"] | join(", ") }}',
        {{ catalog_key(fields['key']) }},
        'is there ' || count(*) || ' times: keep one row with this key'
    from {{ ref(table) }}
    group by {{ fields['key'] | join(', ') }}
    having count(*) > 1
),

{% endfor -%}
empty_tables as (
    {% set may_be_empty = [
        'percentage_terms', 'tax_rates', 'coupons', 'corrections', 'provider_customers', 'provider_meters', 'sources',
    ] -%}
    {% for table in tables if table not in may_be_empty -%}
    select
        '{{ table }}' as catalog_table,
        '' as row_key,
        '' as column_name,
        null as value,
        'the table is empty: load the catalog (dbt seed) before it is published' as problem
    where not exists (
        select 1
        from {{ ref(table) }}
    )
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

unknown_references as (
    {% for table, columns, parent, parent_columns in catalog_references() -%}
    select
        '{{ table }}' as catalog_table,
        {{ catalog_key(tables[table]['key'], 'child') }} as row_key,
        '{{ columns | join(", ") }}' as column_name,
        {{ catalog_key(columns, 'child') }} as value,
        'is not in {{ parent }}: add it there or write a known one' as problem
    from {{ ref(table) }} as child
    where
        {{ catalog_key(columns, 'child') }} <> ''
        and not exists (
            select 1
            from {{ ref(parent) }} as parent
            where
                {%- for column in columns %}
                {{ 'and ' if not loop.first }}parent.{{ parent_columns[loop.index0] }} = child.{{ column }}
                {%- endfor %}
        )
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

wrong_series as (
    select
        'legal_entities' as catalog_table,
        min(legal_entity) as row_key,
        'series' as column_name,
        series as value,
        'is the series of ' || count(*) || ' legal entities: give each its own' as problem
    from typed_legal_entities
    group by series
    having count(*) > 1
),

wrong_sources as (
    select
        'sources' as catalog_table,
        source as row_key,
        'tenants' as column_name,
        named.tenant_id as value,
        'is not in tenants: add it there or write a known one' as problem
    from typed_sources
    cross join lateral jsonb_array_elements_text(tenants) as named (tenant_id)
    where named.tenant_id not in (
        select tenants.tenant_id
        from {{ ref('tenants') }} as tenants
        where tenants.tenant_id is not null
    )
    union all
    select
        'sources',
        source,
        'declared_until',
        declared_until::text,
        'is not later than declared_from'
    from typed_sources
    where declared_until <= declared_from
),

wrong_metrics as (
    select
        'metrics' as catalog_table,
        typed_metrics.metric as row_key,
        checked.column_name,
        checked.value,
        checked.problem
    from typed_metrics
    cross join lateral (
        values
        (
            'percentile', typed_metrics.percentile::text,
            typed_metrics.aggregation = 'percentile' and typed_metrics.percentile is null,
            'is empty: a percentile needs to know which one, as 95'
        ),
        (
            'percentile', typed_metrics.percentile::text,
            typed_metrics.aggregation <> 'percentile' and typed_metrics.percentile is not null,
            'belongs to the aggregation percentile only: leave it empty'
        ),
        (
            'percentile', typed_metrics.percentile::text,
            typed_metrics.percentile <= 0 or typed_metrics.percentile > 100,
            'must be above 0 and at most 100'
        ),
        (
            'value_property', typed_metrics.value_property,
            typed_metrics.aggregation = 'unique_count' and typed_metrics.value_property is null,
            'is empty: a unique_count needs the property whose values it counts'
        ),
        (
            'recurring', typed_metrics.recurring::text,
            typed_metrics.recurring and typed_metrics.aggregation not in ('sum', 'unique_count', 'weighted_sum'),
            'carries a balance, which a ' || typed_metrics.aggregation
            || ' has not: only a sum, a unique_count or a weighted_sum can'
        )
    ) as checked (column_name, value, wrong, problem)
    where checked.wrong
),

wrong_charges as (
    select
        'charges' as catalog_table,
        {{ catalog_key(['charge_id', 'version'], 'charge_spans') }} as row_key,
        checked.column_name,
        checked.value,
        checked.problem
    from charge_spans
    left join typed_metrics on charge_spans.metric = typed_metrics.metric
    cross join lateral (
        values
        (
            'effective_from', charge_spans.effective_from::text,
            charge_spans.effective_from <= charge_spans.previous_from,
            'is not later than that of version ' || charge_spans.previous_version
            || ': versions must ascend with the day from which they are in force'
        ),
        (
            'plan_id', charge_spans.plan_id, charge_spans.plan_id <> charge_spans.first_plan_id,
            'is another plan than in the first version: a charge stays in its plan, make a new charge_id'
        ),
        (
            'component', charge_spans.component, charge_spans.component <> charge_spans.first_component,
            'is another component than in the first version: make a new charge_id'
        ),
        (
            'metric', charge_spans.metric, charge_spans.metric <> charge_spans.first_metric,
            'is another metric than in the first version: make a new charge_id'
        ),
        (
            'billing_interval, interval_count', charge_spans.own_interval,
            charge_spans.own_interval <> charge_spans.first_interval,
            'is another interval than in the first version: a charge keeps it, make a new charge_id'
        ),
        (
            'interval_count', charge_spans.interval_count::text,
            charge_spans.billing_interval is null and charge_spans.interval_count is not null,
            'counts no interval: write billing_interval too, or leave both empty for the plan''s'
        ),
        (
            'takes_effect', charge_spans.takes_effect,
            charge_spans.takes_effect = 'at_once' and charge_spans.previous_version is null,
            'is the first version, there is no other to take over from: write next_period'
        ),
        (
            'metric', charge_spans.metric, charge_spans.component = 'usage' and charge_spans.metric is null,
            'is empty: a usage charge needs the metric that it prices'
        ),
        (
            'metric', charge_spans.metric, charge_spans.component <> 'usage' and charge_spans.metric is not null,
            'belongs to usage charges only: leave it empty'
        ),
        (
            'charge_model', charge_spans.charge_model,
            (charge_spans.component <> 'usage') <> (charge_spans.charge_model = 'flat'),
            'does not go with the component: flat with flat and commitment, every other model with usage'
        ),
        (
            'charge_model', charge_spans.charge_model,
            charge_spans.charge_model = 'matrix' and typed_metrics.aggregation not in ('count', 'sum'),
            'prices parts of usage: its metric must be a count or a sum, not a ' || typed_metrics.aggregation
        ),
        (
            'charge_model', charge_spans.charge_model,
            charge_spans.charge_model = 'dynamic' and typed_metrics.aggregation <> 'sum',
            'takes its amount from the events: its metric must be a sum, this one is a ' || typed_metrics.aggregation
        ),
        (
            'charge_model', charge_spans.charge_model,
            charge_spans.charge_model in ('matrix', 'dynamic', 'percentage') and typed_metrics.recurring,
            'prices the usage of the period itself: its metric must not be recurring'
        ),
        (
            'timing', charge_spans.timing, charge_spans.component <> 'flat' and charge_spans.timing = 'advance',
            'what was used is known afterwards only: write arrears'
        ),
        (
            'package_size', charge_spans.package_size::text,
            charge_spans.charge_model = 'package' and charge_spans.package_size is null,
            'is empty: write how many units a package has'
        ),
        (
            'package_size', charge_spans.package_size::text,
            charge_spans.charge_model <> 'package' and charge_spans.package_size is not null,
            'belongs to the model package only: leave it empty'
        ),
        (
            'package_size', charge_spans.package_size::text, charge_spans.package_size <= 0,
            'must be above 0'
        ),
        (
            'conversion_factor', charge_spans.conversion_factor::text,
            charge_spans.conversion_operation is not null and charge_spans.conversion_factor is null,
            'is empty: write the number to ' || charge_spans.conversion_operation || ' by, or no conversion_operation'
        ),
        (
            'conversion_operation', charge_spans.conversion_operation,
            charge_spans.conversion_operation is null and charge_spans.conversion_factor is not null,
            'is empty: write multiply or divide, or no conversion_factor'
        ),
        (
            'conversion_factor', charge_spans.conversion_factor::text, charge_spans.conversion_factor <= 0,
            'must be above 0'
        ),
        (
            'quantity_digits', charge_spans.quantity_digits::text,
            charge_spans.quantity_digits <> 0 and charge_spans.quantity_rounding is null,
            'says nothing without quantity_rounding: write round, ceiling or floor there, or leave this empty'
        ),
        (
            'conversion_operation, quantity_rounding, included_quantity',
            concat_ws(
                ', ', charge_spans.conversion_operation, charge_spans.quantity_rounding,
                nullif(charge_spans.included_quantity, 0)
            ),
            charge_spans.component <> 'usage' and (
                charge_spans.conversion_operation is not null
                or charge_spans.quantity_rounding is not null
                or charge_spans.included_quantity <> 0
            ),
            'belong to usage charges only: leave them empty'
        ),
        (
            'quantity_rounding, included_quantity',
            concat_ws(', ', charge_spans.quantity_rounding, nullif(charge_spans.included_quantity, 0)),
            charge_spans.charge_model = 'matrix'
            and (charge_spans.quantity_rounding is not null or charge_spans.included_quantity <> 0),
            'do not go with a matrix, which prices each row by itself: leave them empty'
        ),
        (
            'minimum_amount, maximum_amount',
            concat_ws(', ', nullif(charge_spans.minimum_amount, 0), charge_spans.maximum_amount),
            charge_spans.component <> 'usage'
            and (charge_spans.minimum_amount <> 0 or charge_spans.maximum_amount is not null),
            'belong to usage charges only: leave them empty'
        ),
        (
            'discount_percent, discount_amount',
            concat_ws(', ', nullif(charge_spans.discount_percent, 0), nullif(charge_spans.discount_amount, 0)),
            charge_spans.component = 'commitment'
            and (charge_spans.discount_percent <> 0 or charge_spans.discount_amount <> 0),
            'do not go with a commitment: write the smaller commitment'
        ),
        (
            'minimum_amount', charge_spans.minimum_amount::text, charge_spans.minimum_amount < 0,
            'must not be below 0'
        ),
        (
            'maximum_amount', charge_spans.maximum_amount::text, charge_spans.maximum_amount < 0,
            'must not be below 0'
        ),
        (
            'minimum_amount', charge_spans.minimum_amount::text,
            charge_spans.minimum_amount > charge_spans.maximum_amount,
            'is above the maximum_amount ' || charge_spans.maximum_amount || ': write a smaller one'
        ),
        (
            'discount_percent', charge_spans.discount_percent::text, charge_spans.discount_percent < 0,
            'must not be below 0'
        ),
        (
            'discount_amount', charge_spans.discount_amount::text, charge_spans.discount_amount < 0,
            'must not be below 0'
        ),
        (
            'dimension_route', charge_spans.dimension_route::text,
            exists (
                select 1
                from jsonb_each(charge_spans.dimension_route) as route
                where
                    not coalesce(typed_metrics.dimensions ? route.key, false)
                    or jsonb_typeof(route.value) <> 'string'
            ),
            'must name dimensions of the metric, each with a text'
        ),
        (
            '', null,
            charge_spans.charge_model <> 'dynamic'
            and not exists (
                select 1
                from typed_charge_tiers
                where
                    typed_charge_tiers.charge_id = charge_spans.charge_id
                    and typed_charge_tiers.version = charge_spans.version
            ),
            'has no price: add its tiers to charge_tiers'
        )
    ) as checked (column_name, value, wrong, problem)
    where checked.wrong
),

wrong_tiers as (
    select
        'charge_tiers' as catalog_table,
        {{ catalog_key(['charge_id', 'version', 'tier'], 'tier_rows') }} as row_key,
        checked.column_name,
        checked.value,
        checked.problem
    from tier_rows
    left join typed_charges using (charge_id, version)
    left join typed_metrics on typed_charges.metric = typed_metrics.metric
    cross join lateral (
        values
        (
            'tier', tier_rows.tier::text, tier_rows.tier <> tier_rows.place,
            'leaves a gap: number the tiers 1, 2, 3 …'
        ),
        (
            'up_to', tier_rows.up_to::text,
            typed_charges.charge_model = 'matrix' and tier_rows.up_to is not null,
            'says nothing in a matrix, whose rows are told apart by dimension_values: leave it empty'
        ),
        (
            'up_to', tier_rows.up_to::text,
            typed_charges.charge_model is distinct from 'matrix'
            and tier_rows.next_tier is null
            and tier_rows.up_to is not null,
            'closes the last tier: leave it empty, so that every quantity has a price'
        ),
        (
            'up_to', tier_rows.up_to::text,
            typed_charges.charge_model in ('graduated', 'volume', 'graduated_percentage')
            and tier_rows.next_tier is not null
            and tier_rows.up_to is null,
            'is empty before the last tier: the tiers overlap'
        ),
        (
            'up_to', tier_rows.up_to::text, tier_rows.up_to <= coalesce(tier_rows.previous_up_to, 0),
            'does not ascend: it is cumulative, each tier ends above the one before'
        ),
        (
            'tier', tier_rows.tier::text,
            typed_charges.charge_model in ('per_unit', 'package', 'percentage', 'dynamic', 'flat')
            and tier_rows.tier <> 1,
            'only graduated, volume, graduated_percentage and matrix charges have more than the one tier 1'
        ),
        (
            'flat_amount', tier_rows.flat_amount::text,
            typed_charges.charge_model in ('per_unit', 'percentage', 'matrix', 'dynamic')
            and tier_rows.flat_amount <> 0,
            'is nothing that a ' || typed_charges.charge_model || ' has: write 0, or make the charge '
            || case typed_charges.charge_model
                when 'percentage' then 'graduated_percentage (percentage_terms has an amount per event)'
                else 'graduated'
            end
        ),
        (
            'unit_amount', tier_rows.unit_amount::text,
            typed_charges.charge_model in ('flat', 'package', 'percentage', 'graduated_percentage')
            and tier_rows.unit_amount <> 0,
            'is nothing that a ' || typed_charges.charge_model || ' has: write 0, and its price in '
            || case when typed_charges.charge_model in ('flat', 'package') then 'flat_amount' else 'rate_percent' end
        ),
        (
            'rate_percent', tier_rows.rate_percent::text,
            typed_charges.charge_model not in ('percentage', 'graduated_percentage') and tier_rows.rate_percent <> 0,
            'belongs to percentage and graduated_percentage only: leave it empty'
        ),
        (
            'dimension_values', tier_rows.dimension_values::text,
            typed_charges.charge_model <> 'matrix' and tier_rows.dimension_values <> '{}',
            'belongs to the model matrix only: leave it empty'
        ),
        (
            'dimension_values', tier_rows.dimension_values::text,
            typed_charges.charge_model = 'matrix' and tier_rows.same_values > 1,
            'is there ' || tier_rows.same_values || ' times: a matrix has one price for it'
        ),
        (
            'dimension_values', tier_rows.dimension_values::text,
            typed_charges.charge_model = 'matrix'
            and exists (
                select 1
                from jsonb_each(tier_rows.dimension_values) as named
                where
                    not coalesce(typed_metrics.dimensions ? named.key, false)
                    or jsonb_typeof(named.value) <> 'string'
            ),
            'must name dimensions of the metric, each with a text'
        )
    ) as checked (column_name, value, wrong, problem)
    where checked.wrong
),

wrong_terms as (
    select
        'percentage_terms' as catalog_table,
        {{ catalog_key(['charge_id', 'version'], 'terms') }} as row_key,
        checked.column_name,
        checked.value,
        checked.problem
    from typed_percentage_terms as terms
    left join typed_charges using (charge_id, version)
    left join typed_metrics on typed_charges.metric = typed_metrics.metric
    cross join lateral (
        values
        (
            'charge_id, version', terms.charge_id || ' ' || terms.version,
            typed_charges.charge_model <> 'percentage',
            'is a ' || typed_charges.charge_model || ': only a percentage has terms, take the row out'
        ),
        (
            'amount_per_event', terms.amount_per_event::text, terms.amount_per_event < 0,
            'must not be below 0'
        ),
        (
            'free_amount', terms.free_amount::text, terms.free_amount < 0,
            'must not be below 0'
        ),
        (
            'minimum_per_event', terms.minimum_per_event::text, terms.minimum_per_event < 0,
            'must not be below 0'
        ),
        (
            'maximum_per_event', terms.maximum_per_event::text,
            terms.maximum_per_event < coalesce(terms.minimum_per_event, 0),
            'must not be below the minimum_per_event, nor below 0'
        ),
        (
            'free_events, free_amount, minimum_per_event, maximum_per_event',
            concat_ws(', ', terms.free_events, terms.free_amount, terms.minimum_per_event, terms.maximum_per_event),
            {{ reads_events('terms') }} and typed_metrics.aggregation <> 'sum',
            'look at the amount of each event: the metric must be a sum, this one is a ' || typed_metrics.aggregation
        ),
        (
            'free_events, free_amount, minimum_per_event, maximum_per_event',
            concat_ws(', ', terms.free_events, terms.free_amount, terms.minimum_per_event, terms.maximum_per_event),
            {{ reads_events('terms') }}
            and (typed_charges.quantity_rounding is not null or typed_charges.included_quantity <> 0),
            'look at each event, but the charge rounds the quantity or has included units: '
            || 'leave quantity_rounding and included_quantity empty and say what is free here'
        )
    ) as checked (column_name, value, wrong, problem)
    where checked.wrong
),

-- Two charges that would both bill the same usage.
claimed_twice as (
    select
        'charges' as catalog_table,
        {{ catalog_key(['charge_id', 'version'], 'one') }} as row_key,
        'dimension_route' as column_name,
        one.dimension_route::text as value,
        'claims the same ' || one.metric || ' as ' || {{ catalog_key(['charge_id', 'version'], 'other') }}
        || ': route them by a dimension in which they differ' as problem
    from charge_spans as one
    inner join charge_spans as other
        on one.plan_id = other.plan_id
            and one.metric = other.metric
            and one.charge_id < other.charge_id
            and one.effective_from < other.effective_until
            and one.effective_until > other.effective_from
    where {{ routes_meet('one.dimension_route', 'other.dimension_route') }}
),

wrong_subscriptions as (
    select
        'subscriptions' as catalog_table,
        {{ catalog_key(['subscription_id', 'version'], 'subscription_versions') }} as row_key,
        checked.column_name,
        checked.value,
        checked.problem
    from subscription_versions
    cross join lateral (
        values
        (
            'ended_at', ended_at::text, ended_at <= started_at,
            'is not after started_at'
        ),
        (
            'trial_ends_at', trial_ends_at::text, trial_ends_at <= started_at,
            'is not after started_at: leave it empty where there is no trial'
        ),
        (
            'trial_ends_at', trial_ends_at::text, trial_ends_at > ended_at,
            'is after ended_at: write ended_at where all of the subscription is a trial'
        ),
        (
            'recorded_at', recorded_at::text, recorded_at < previous_recorded_at,
            'is earlier than that of the version before: versions must ascend with their recording'
        ),
        (
            'tenant_id', tenant_id, tenant_id <> first_tenant_id,
            'is another tenant than in the first version: make a new subscription_id'
        )
    ) as checked (column_name, value, wrong, problem)
    where checked.wrong
),

-- The pairs first: of all plans that charge a metric there would be many more.
overlapping_pairs as materialized (
    select
        one.*,
        other.subscription_id as other_id,
        other.plan_id as other_plan_id
    from subscription_versions as one
    inner join subscription_versions as other
        on one.tenant_id = other.tenant_id
            and one.subscription_id < other.subscription_id
            and one.started_at < coalesce(other.ended_at, 'infinity')
            and other.started_at < coalesce(one.ended_at, 'infinity')
    where one.next_version is null and other.next_version is null
),

overlapping_subscriptions as (
    select
        'subscriptions' as catalog_table,
        pairs.subscription_id || ' ' || pairs.version as row_key,
        'started_at, ended_at' as column_name,
        pairs.started_at::text || ' to ' || coalesce(pairs.ended_at::text, 'open') as value,
        'overlaps ' || pairs.other_id || ' of the same tenant, and both plans charge '
        || string_agg(distinct charges.metric, ', ') || ': end one where the other starts' as problem
    from overlapping_pairs as pairs
    inner join charge_spans as charges on pairs.plan_id = charges.plan_id
    inner join charge_spans as other_charges
        on pairs.other_plan_id = other_charges.plan_id and charges.metric = other_charges.metric
    where {{ routes_meet('charges.dimension_route', 'other_charges.dimension_route') }}
    group by pairs.subscription_id, pairs.version, pairs.started_at, pairs.ended_at, pairs.other_id
),

issued_changes as (
    select
        issued_references.catalog_table,
        issued_references.row_key,
        coalesce(changed.column_names, '') as column_name,
        changed.new_values as value,
        case
            when incoming.row_key is null
                then 'has vanished, but issued invoices refer to it: put it back'
            else 'has changed, but issued invoices refer to it: put '
                || changed.old_values || ' back and add a new version (or a row in corrections)'
        end as problem
    from issued_references
    left join incoming using (catalog_table, row_key)
    left join lateral (
        select
            string_agg(old.key, ', ' order by old.key) as column_names,
            string_agg(coalesce(old.value #>> '{}', '(empty)'), ', ' order by old.key) as old_values,
            string_agg(coalesce(incoming.content ->> old.key, '(empty)'), ', ' order by old.key)
                as new_values
        from jsonb_each(issued_references.content) as old
        where incoming.row_key is not null and incoming.content -> old.key is distinct from old.value
    ) as changed on true
    where
        not {{ rating_afresh() }}
        and (incoming.row_key is null or changed.column_names is not null)
    union all
    select
        'charge_tiers',
        {{ catalog_key(['charge_id', 'version', 'tier'], 'typed_charge_tiers') }},
        'tier',
        typed_charge_tiers.tier::text,
        'is new in a version that issued invoices refer to: take it out and add a new version'
    from typed_charge_tiers
    inner join issued_charges using (charge_id, version)
    where not {{ rating_afresh() }}
    and exists (
        select 1
        from catalog.charges
        where charges.charge_id = issued_charges.charge_id and charges.version = issued_charges.version
    )
    and not exists (
        select 1
        from catalog.charge_tiers as in_force
        where
            in_force.charge_id = typed_charge_tiers.charge_id
            and in_force.version = typed_charge_tiers.version
            and in_force.tier = typed_charge_tiers.tier
    )
    union all
    select
        'percentage_terms',
        {{ catalog_key(['charge_id', 'version'], 'typed_percentage_terms') }},
        'charge_id, version',
        {{ catalog_key(['charge_id', 'version'], 'typed_percentage_terms') }},
        'is new for a version that issued invoices refer to: take it out and add a new version'
    from typed_percentage_terms
    inner join issued_charges using (charge_id, version)
    where exists (
        select 1
        from catalog.charges
        where charges.charge_id = issued_charges.charge_id and charges.version = issued_charges.version
    )
    and not exists (
        select 1
        from catalog.percentage_terms as in_force
        where
            in_force.charge_id = typed_percentage_terms.charge_id
            and in_force.version = typed_percentage_terms.version
    )
)

{% for problems in ['empty_tables', 'unknown_references', 'wrong_series', 'wrong_sources', 'wrong_metrics',
    'wrong_charges', 'wrong_tiers', 'wrong_terms', 'claimed_twice', 'wrong_subscriptions', 'overlapping_subscriptions', 'issued_changes'] -%}
select
    catalog_table,
    row_key,
    column_name,
    value,
    problem
from {{ problems }}
union all
{% endfor -%}
{% for table in tables -%}
select
    catalog_table,
    row_key,
    column_name,
    value,
    problem
from {{ table }}_columns
{{ 'union all' if not loop.last }}
{% endfor %}
