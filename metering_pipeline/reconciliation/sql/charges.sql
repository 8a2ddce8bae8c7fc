-- Every version of every charge with its tiers in order, and how its metric aggregates.
select
    charges.charge_id,
    charges.version,
    charges.plan_id,
    charges.charge_model,
    metrics.aggregation,
    array_agg(tiers.up_to order by tiers.tier) as up_to,
    array_agg(tiers.unit_amount order by tiers.tier) as unit_amounts,
    array_agg(tiers.flat_amount order by tiers.tier) as flat_amounts
from catalog.charges
inner join catalog.charge_tiers as tiers using (charge_id, version)
left join catalog.metrics using (metric)
group by charges.charge_id, charges.version, charges.plan_id, charges.charge_model, metrics.aggregation
