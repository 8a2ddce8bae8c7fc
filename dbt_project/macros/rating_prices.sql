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
  charged_days and full_days; a row of it gives a row for each tier that it reaches:
  the key, tier, quantity, unit_amount, flat_amount, rate_percent, dimension_values, amount.

  graduated, graduated_percentage  each tier its part, and its flat amount once it is reached; the first always is
  volume                           the tier that holds the whole quantity, and its flat amount
  package                          the packages that were begun, at flat_amount
  per_unit, percentage, dynamic    the one tier; a dynamic charge needs none: its quantity is the amount
  flat                             the flat amount by days
  A matrix is matrix_slices.
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
        coalesce(tiers.dimension_values, '{}') as dimension_values,
        case charges.charge_model
            when 'flat' then case
                when charges.prorated then {{ prorated('tiers.flat_amount', 'priced.charged_days', 'priced.full_days') }}
                else tiers.flat_amount
            end
            when 'package' then tiers.flat_amount * (
                div(parts.quantity, charges.package_size)
                + case when mod(parts.quantity, charges.package_size) > 0 then 1 else 0 end
            )
            else {{ tier_amount('parts.quantity', 'tiers', 'charges') }}
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
{%- endmacro %}

{# What a tier's quantity costs; a percentage is a unit amount of a hundredth of it. #}
{% macro tier_amount(quantity, tiers, charges) -%}
    case
        when {{ charges }}.conversion_operation = 'divide' then trim_scale(round(
            {{ unrounded_tier_amount(quantity, tiers) }}, 40
        ))
        else trim_scale({{ unrounded_tier_amount(quantity, tiers) }})
    end
{%- endmacro %}

{% macro unrounded_tier_amount(quantity, tiers) -%}
    {{ quantity }} * (coalesce({{ tiers }}.unit_amount, 1) + coalesce({{ tiers }}.rate_percent, 0) * 0.01)
    + coalesce({{ tiers }}.flat_amount, 0)
{%- endmacro %}
