-- Every version of every subscription, as far as it decides what a slice costs.
select
    subscription_id,
    version,
    plan_id,
    time_zone,
    anchor_date,
    anchor_time,
    started_at,
    trial_ends_at,
    ended_at
from catalog.subscriptions
