{#
  How a metered quantity becomes money, before any rounding of money. The macros take relations and give relations,
  so that whatever has quantities is priced in the same way: lines here, and quotes.

  metered quantity -> unit conversion and its rounding -> included units -> the charge model's tiers
#}

{# Whether the terms of a percentage charge must look at each event. #}
{% macro reads_events(terms) -%}
    num_nonnulls(
        {{ terms }}.free_events, {{ terms }}.free_amount, {{ terms }}.minimum_per_event, {{ terms }}.maximum_per_event
    ) > 0
{%- endmacro %}

{# A quantity in the units that the charge prices. A quotient is carried to so many digits that what is cut
   off never reaches the amount, which is kept to 40 then. #}
{% macro converted_quantity(quantity, charges) -%}
    case {{ charges }}.conversion_operation
        when 'multiply' then {{ quantity }} * {{ charges }}.conversion_factor
        when 'divide' then trim_scale(
            {{ quantity }} * 1.000000000000000000000000000000000000000000000000000000000000
            / {{ charges }}.conversion_factor
        )
        else {{ quantity }}
    end
{%- endmacro %}

{# A converted quantity rounded as its charge says: half away from zero, or to the next digit up or down. #}
{% macro rounded_quantity(quantity, charges) -%}
    {%- set digits = charges ~ '.quantity_digits' -%}
    {%- set cut = 'trunc(' ~ quantity ~ ', ' ~ digits ~ ')' -%}
    case {{ charges }}.quantity_rounding
        when 'round' then round({{ quantity }}, {{ digits }})
        when 'ceiling' then {{ cut }} + case when {{ cut }} < {{ quantity }} then 10::numeric ^ -{{ digits }} else 0 end
        when 'floor' then {{ cut }} - case when {{ cut }} > {{ quantity }} then 10::numeric ^ -{{ digits }} else 0 end
        else {{ quantity }}
    end
{%- endmacro %}

{# The quantity that is priced. Included units come off the whole of the period; of unlimited ones (infinity)
   nothing is left. #}
{% macro billable_quantity(converted, charges) -%}
    trim_scale(greatest({{ rounded_quantity(converted, charges) }} - {{ charges }}.included_quantity, 0))
{%- endmacro %}

{# A priced quantity as it is shown: to 18 digits after the point, as every quantity is. #}
{% macro cut_quantity(quantity) -%}
    trim_scale(round({{ quantity }}, 18))
{%- endmacro %}

{#
  The tier slices of quantities. The relation has the key's columns, charge_id, charge_version, billable_quantity,
  billable_events, limited_events, limit_amount, charged_days and full_days. A row of it gives a row for each tier
  that it reaches: the key, tier, quantity, unit_amount, flat_amount, rate_percent, dimension_values, amount.

  graduated, graduated_percentage  each tier its part, and its flat amount once it is reached; the first always is
  volume                           the tier that holds the whole quantity, and its flat amount
  package                          the packages that were begun, at flat_amount
  per_unit, percentage, dynamic    the one tier; a dynamic charge needs none: its quantity is the amount
  flat                             the flat amount, by days
  Of a percentage slice 2 is what each event costs, slice 3 what the limits of an event add or take off.
  A matrix has matrix_slices.
#}
{% macro priced_slices(relation, key) -%}
{%- set kept = 'priced.' ~ (key | join(', priced.')) -%}
select
        {{ kept }},
        coalesce(tiers.tier, 1) as tier,
        parts.quantity,
        coalesce(tiers.unit_amount, 1) as unit_amount,
        coalesce(tiers.flat_amount, 0) as flat_amount,
        coalesce(tiers.rate_percent, 0) as rate_percent,
        '{}'::jsonb as dimension_values,
        case charges.charge_model
            when 'flat' then case
                when charges.prorated
                    then {{ prorated('tiers.flat_amount', 'priced.charged_days', 'priced.full_days') }}
                else tiers.flat_amount
            end
            when 'package' then tiers.flat_amount * (
                div(parts.quantity, charges.package_size)
                + case when mod(parts.quantity, charges.package_size) > 0 then 1 else 0 end
            )
            else {{ exact_amount(
                'parts.quantity * (coalesce(tiers.unit_amount, 1) + coalesce(tiers.rate_percent, 0) * 0.01)'
                ~ ' + coalesce(tiers.flat_amount, 0)', 'charges'
            ) }}
        end as amount
    from {{ relation }} as priced
    inner join catalog.charges
        on priced.charge_id = charges.charge_id and priced.charge_version = charges.version
    left join (
        select
            *,
            coalesce(lag(up_to) over (partition by charge_id, version order by tier), 0) as above
        from catalog.charge_tiers
    ) as tiers
        on priced.charge_id = tiers.charge_id
            and priced.charge_version = tiers.version
            and (tiers.tier = 1 or priced.billable_quantity > tiers.above)
            and (charges.charge_model <> 'volume' or priced.billable_quantity <= coalesce(tiers.up_to, 'infinity'))
    cross join lateral (
        select
            case
                when charges.charge_model in ('graduated', 'graduated_percentage')
                    then least(priced.billable_quantity, tiers.up_to) - tiers.above
                else priced.billable_quantity
            end as quantity
    ) as parts
    where
        charges.charge_model <> 'matrix'
        and (tiers.tier is not null or charges.charge_model = 'dynamic')
    union all
    select
        {{ kept }},
        parts.tier,
        parts.quantity,
        parts.unit_amount,
        0,
        0,
        '{}'::jsonb,
        trim_scale(parts.amount)
    from {{ relation }} as priced
    inner join catalog.percentage_terms as terms
        on priced.charge_id = terms.charge_id and priced.charge_version = terms.version
    cross join lateral (
        values
        (
            2, priced.billable_events, terms.amount_per_event, priced.billable_events * terms.amount_per_event,
            terms.amount_per_event <> 0
        ),
        (
            3, priced.limited_events, 0, priced.limit_amount,
            num_nonnulls(terms.minimum_per_event, terms.maximum_per_event) > 0
        )
    ) as parts (tier, quantity, unit_amount, amount, agreed)
    where parts.agreed
{%- endmacro %}

{#
  The slices of matrix charges, as priced_slices gives them. The relation has the key's columns, charge_id,
  charge_version, dimensions and quantity. Each dimensions' quantity goes to the row of the matrix that names most
  of them, among equals to the first; where no row fits it has no price and is not here.
#}
{% macro matrix_slices(relation, key) -%}
{%- set kept = 'usage.' ~ (key | join(', usage.')) -%}
{%- set grouped = key | join(', ') -%}
select
        {{ grouped }},
        tier,
        sum(quantity) as quantity,
        unit_amount,
        0 as flat_amount,
        0 as rate_percent,
        dimension_values,
        {{ exact_amount('sum(quantity) * unit_amount', 'fitting') }} as amount
    from (
        select distinct on ({{ kept }}, usage.dimensions)
            {{ kept }},
            {{ converted_quantity('usage.quantity', 'charges') }} as quantity,
            charges.conversion_operation,
            prices.tier,
            prices.unit_amount,
            prices.dimension_values
        from {{ relation }} as usage
        inner join catalog.charges
            on usage.charge_id = charges.charge_id and usage.charge_version = charges.version
        inner join (
            select
                charge_tiers.*,
                (
                    select count(*)
                    from jsonb_object_keys(charge_tiers.dimension_values)
                ) as named
            from catalog.charge_tiers
        ) as prices
            on usage.charge_id = prices.charge_id
                and usage.charge_version = prices.version
                and usage.dimensions @> prices.dimension_values
        order by {{ kept }}, usage.dimensions, prices.named desc, prices.tier
    ) as fitting
    group by {{ grouped }}, tier, unit_amount, dimension_values, conversion_operation
{%- endmacro %}

{#
  What percentage charges that look at each event charge for. The relation has an event a row: the key's columns,
  charge_id, charge_version, occurred_at, fingerprint and quantity. Events are taken by time, then
  by fingerprint. Free ones come first: so many, and so much in amount; whichever ends first ends both. The event
  that crosses the free amount pays for the excess. The limits hold for what each event that is not free costs.
  Gives the key, billable_quantity, billable_events, limited_events and limit_amount.
#}
{% macro paid_events(relation, key) -%}
{%- set kept = key | join(', ') -%}
select
        {{ kept }},
        coalesce(sum(payable) filter (where not is_free), 0) as billable_quantity,
        count(*) filter (where not is_free) as billable_events,
        count(*) filter (where not is_free and limited <> cost) as limited_events,
        coalesce(sum(limited - cost) filter (where not is_free), 0) as limit_amount
    from (
        select
            {{ kept }},
            judged.is_free,
            costs.payable,
            costs.cost,
            least(greatest(costs.cost, judged.minimum_per_event), judged.maximum_per_event) as limited
        from (
            select
                *,
                num_nonnulls(free_events, free_amount) > 0
                and place <= coalesce(free_events, place)
                and peak <= coalesce(free_amount, peak) as is_free,
                place <= coalesce(free_events, place)
                and coalesce(lag(peak) over (partition by {{ kept }} order by place), 0) <= free_amount
                and peak > free_amount as is_crossing
            from (
                select
                    *,
                    max(running) over (partition by {{ kept }} order by place) as peak
                from (
                    select
                        {{ 'events.' ~ (key | join(', events.')) }},
                        converted.quantity,
                        tiers.rate_percent,
                        terms.amount_per_event,
                        terms.free_events,
                        terms.free_amount,
                        terms.minimum_per_event,
                        terms.maximum_per_event,
                        row_number() over line as place,
                        sum(converted.quantity) over line as running
                    from {{ relation }} as events
                    inner join catalog.charges
                        on events.charge_id = charges.charge_id and events.charge_version = charges.version
                    cross join lateral (
                        select {{ converted_quantity('events.quantity', 'charges') }} as quantity
                    ) as converted
                    inner join catalog.percentage_terms as terms
                        on events.charge_id = terms.charge_id and events.charge_version = terms.version
                    inner join catalog.charge_tiers as tiers
                        on events.charge_id = tiers.charge_id and events.charge_version = tiers.version
                    window line as (
                        partition by {{ 'events.' ~ (key | join(', events.')) }}
                        order by events.occurred_at, events.fingerprint
                    )
                ) as numbered
            ) as running_up
        ) as judged
        cross join lateral (
            select case when judged.is_crossing then judged.running - judged.free_amount else judged.quantity end
        ) as excess (payable)
        cross join lateral (
            select
                excess.payable,
                excess.payable * judged.rate_percent * 0.01 + judged.amount_per_event as cost
        ) as costs
    ) as costed
    group by {{ kept }}
{%- endmacro %}

{# An amount as it comes out; after a division, which may never end, to 40 digits. #}
{% macro exact_amount(amount, charges) -%}
    case
        when {{ charges }}.conversion_operation = 'divide' then trim_scale(round({{ amount }}, 40))
        else trim_scale({{ amount }})
    end
{%- endmacro %}

{#
  What lowers rounded amounts, as joins to a relation with amount, discount_percent, discount_amount, maximum_amount
  and minor_digits: a percentage of it, rounded; then a fixed amount, never more than is left; then what lies above
  the maximum. Gives first_discount.percentage, second_discount.fixed (not rounded), discounted.amount, above.excess.
#}
{% macro reduced_amounts(relation) -%}
{%- set digits = relation ~ '.minor_digits' -%}
cross join lateral (
    select {{ round_money(
        'greatest(' ~ relation ~ '.amount, 0) * least(' ~ relation ~ '.discount_percent, 100) * 0.01', digits
    ) }} as percentage
) as first_discount
cross join lateral (
    select least({{ relation }}.discount_amount, greatest({{ relation }}.amount, 0) - first_discount.percentage) as fixed
) as second_discount
cross join lateral (
    select
        {{ relation }}.amount - first_discount.percentage
        - {{ round_money('second_discount.fixed', digits) }} as amount
) as discounted
cross join lateral (
    select {{ round_money(
        'greatest(discounted.amount - ' ~ relation ~ '.maximum_amount, 0)', digits
    ) }} as excess
) as above
{%- endmacro %}
