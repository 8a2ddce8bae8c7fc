-- Every version of every charge with its tiers in order, its terms, how its metric aggregates, the interval by which
-- it is billed, and the days on which one of its versions cuts a running period.
select
    charges.charge_id,
    charges.version,
    plans.plan_id,
    charges.charge_model,
    metrics.aggregation,
    coalesce(charges.billing_interval, plans.billing_interval) as billing_interval,
    case
        when charges.billing_interval is null then plans.interval_count
        else coalesce(charges.interval_count, 1)
    end as interval_count,
    array(
        select versions.effective_from
        from catalog.charges as versions
        where versions.charge_id = charges.charge_id and versions.takes_effect = 'at_once'
    ) as cut_days,
    coalesce(tiers.up_to, '{}') as up_to,
    coalesce(tiers.unit_amounts, '{}') as unit_amounts,
    coalesce(tiers.flat_amounts, '{}') as flat_amounts,
    coalesce(tiers.rate_percents, '{}') as rate_percents,
    coalesce(tiers.dimension_values, '{}') as dimension_values,
    charges.dimension_route,
    charges.conversion_operation,
    coalesce(charges.conversion_factor, 1) as conversion_factor,
    charges.quantity_rounding,
    charges.quantity_digits,
    charges.included_quantity,
    coalesce(charges.package_size, 1) as package_size,
    charges.discount_percent,
    charges.discount_amount,
    charges.maximum_amount,
    charges.minimum_amount,
    charges.prorated,
    coalesce(terms.amount_per_event, 0) as amount_per_event,
    terms.free_events,
    terms.free_amount,
    terms.minimum_per_event,
    terms.maximum_per_event
from catalog.charges
inner join catalog.plans on charges.plan_id = plans.plan_id
left join (
    select
        charge_id,
        version,
        array_agg(up_to order by tier) as up_to,
        array_agg(unit_amount order by tier) as unit_amounts,
        array_agg(flat_amount order by tier) as flat_amounts,
        array_agg(rate_percent order by tier) as rate_percents,
        array_agg(dimension_values order by tier) as dimension_values
    from catalog.charge_tiers
    group by charge_id, version
) as tiers on charges.charge_id = tiers.charge_id and charges.version = tiers.version
left join catalog.percentage_terms as terms on charges.charge_id = terms.charge_id and charges.version = terms.version
left join catalog.metrics on charges.metric = metrics.metric
