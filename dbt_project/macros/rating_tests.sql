{# No two rows share the columns of the grain. The key of the table says so too; this shows it as a check. #}
{% test unique_grain(model, columns) %}
select
    {{ columns | join(', ') }},
    count(*) as copies
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{# A line whose amount is not its exact amount, rounded once in the one place. #}
{% test amount_is_rounded_once(model) %}
select lines.*
from {{ model }} as lines
inner join catalog.currencies on lines.currency = currencies.currency
where lines.amount <> {{ round_money('lines.exact_amount', 'currencies.minor_digits') }}
{% endtest %}

{# A line whose tier slices do not add up to it, or slices without a line. #}
{% test slices_add_up_to_the_line(model) %}
with slices as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        sum(amount) as exact_amount
    from rating.tier_slices
    group by subscription_id, charge_id, component, slice_start, currency
)

select
    subscription_id,
    charge_id,
    component,
    slice_start,
    currency,
    lines.exact_amount as line_amount,
    slices.exact_amount as slices_amount
from {{ model }} as lines
full join slices using (subscription_id, charge_id, component, slice_start, currency)
where lines.exact_amount is distinct from coalesce(slices.exact_amount, 0)
{% endtest %}

{# A document whose total is not the sum of its lines. #}
{% test total_is_the_sum_of_the_lines(model, lines) %}
with sums as (
    select
        draft_id,
        sum(amount) as total
    from {{ lines }}
    group by draft_id
)

select
    draft_id,
    documents.total,
    sums.total as lines_total
from {{ model }} as documents
full join sums using (draft_id)
where documents.total is distinct from sums.total
{% endtest %}

{# A period of a subscription's interval that does not begin where the one before ended. #}
{% test periods_follow_each_other(model) %}
with neighbours as (
    select
        subscription_id,
        billing_interval,
        interval_count,
        period_start,
        period_end,
        lag(period_end) over (
            partition by subscription_id, billing_interval, interval_count
            order by period_start
        ) as previous_end
    from {{ model }}
)

select *
from neighbours
where
    period_end <= period_start
    or previous_end <> period_start
{% endtest %}
