{{ config(materialized='posting') }}

-- Drafts by the one formula: due = rated - billed, over the full outer join on (subscription_id, charge_id,
-- component, slice_start, currency); a missing side is 0, and what a void took back is not billed. Lines are
-- gathered into documents by the instant at which they are billed. The drafts of a subscription are replaced as a
-- whole, and only where something has changed that they are made of; a full refresh replaces all of them.
-- Depends on {{ ref('rated_lines') }}.

set local time zone 'UTC';

-- 1. Whose drafts are owed: subscriptions whose lines or slices were rated, whose documents were issued or voided
-- (invoices.touched_subscriptions), and those for which something beside these has changed. Coupons, credits and
-- taxes are no part of a draft.
{% if flags.FULL_REFRESH -%}
delete from invoices.drafted_from;

{% endif -%}
create temporary table terms on commit drop as
with published as (
    select coalesce(max(catalog_version), 0)::text as version
    from catalog.versions
),

catalog_terms as (
    select
        'tenant' as kind,
        tenant_id as name,
        jsonb_build_array(legal_entity, billable)::text as content
    from catalog.tenants
    union all
    select
        'plan',
        plan_id,
        minimum_document_amount::text
    from catalog.plans
    union all
    select
        'subscription',
        subscription_id,
        jsonb_build_array(plan_id, ended_at)::text
    from catalog.current_subscriptions
    union all
    select
        'charge',
        charge_id || '/' || version,
        jsonb_build_array(description, prorated, timing)::text
    from catalog.charges
)

-- After which date adjustments of a legal entity are billed next.
select
    'legal_entity' as kind,
    legal_entity as name,
    max(billing_date)::text as content
from invoices.issued_invoices
group by legal_entity
union all
select
    'setting',
    name,
    value
from catalog.settings
where name in ('grace_hours', 'final_days')
union all
select
    'catalog',
    '',
    version
from published
union all
select
    catalog_terms.kind,
    catalog_terms.name,
    catalog_terms.content
from catalog_terms
cross join published
where not exists (
    select 1
    from invoices.drafted_from as former
    where former.kind = 'catalog' and former.content = published.version
);

create temporary table changed_terms on commit drop as
select
    kind,
    name
from terms
full join (
    -- what the catalog says is not looked at while it is the same
    select *
    from invoices.drafted_from
    where kind in (select terms.kind from terms)
) as former using (kind, name)
where terms.content is distinct from former.content;

analyze changed_terms;

delete from invoices.drafted_from
using changed_terms
where drafted_from.kind = changed_terms.kind and drafted_from.name = changed_terms.name;

insert into invoices.drafted_from (kind, name, content)
select
    kind,
    name,
    terms.content
from terms
inner join changed_terms using (kind, name);

create temporary table owed on commit drop as
select subscription_id
from invoices.touched_subscriptions
union
{% for kind in ['tenant', 'plan'] -%}
select subscriptions.subscription_id
from changed_terms
inner join catalog.subscriptions on changed_terms.name = subscriptions.{{ kind }}_id
where changed_terms.kind = '{{ kind }}'
union
{% endfor -%}
select name
from changed_terms
where kind = 'subscription'
union
select lines.subscription_id
from changed_terms
inner join invoices.draft_invoice_lines as lines
    on changed_terms.name = lines.charge_id || '/' || lines.charge_version
where changed_terms.kind = 'charge'
union
select lines.subscription_id
from changed_terms
inner join invoices.draft_invoices as drafts on changed_terms.name = drafts.legal_entity
inner join invoices.draft_invoice_lines as lines on drafts.draft_id = lines.draft_id
where changed_terms.kind = 'legal_entity' and lines.kind = 'adjustment'
union
select known.subscription_id
from (
    select subscription_id
    from rating.rated_lines
    union
    select subscription_id
    from invoices.issued_invoices
    union
    select subscription_id
    from invoices.draft_invoices
) as known
where exists (
    select 1
    from changed_terms
    where changed_terms.kind = 'setting'
);

delete from invoices.touched_subscriptions;

insert into invoices.unchecked_subscriptions (subscription_id)
select subscription_id
from owed
on conflict do nothing;

analyze owed;

-- 2. What is due.
create temporary table due on commit drop as
with owed_lines as (
    select lines.*
    from rating.rated_lines as lines
    inner join owed on lines.subscription_id = owed.subscription_id
),

billed_lines as (
    select lines.*
    from invoices.billed_lines as lines
    inner join owed on lines.subscription_id = owed.subscription_id
),

billed as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        sum(amount) as billed_amount
    from billed_lines
    group by subscription_id, charge_id, component, slice_start, currency
),

last_issued as (
    select distinct on (
        lines.subscription_id, lines.charge_id, lines.component, lines.slice_start, lines.currency
    ) lines.*
    from billed_lines as lines
    inner join invoices.issued_invoices as documents on lines.invoice_number = documents.invoice_number
    order by
        lines.subscription_id, lines.charge_id, lines.component, lines.slice_start, lines.currency,
        documents.issued_at desc, documents.series_number desc, lines.line_number desc
),

-- What was billed, with what the last issued line says of it.
settled as (
    select
        last_issued.*,
        billed.billed_amount
    from billed
    inner join last_issued using (subscription_id, charge_id, component, slice_start, currency)
),

joined as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        coalesce(rated.tenant_id, settled.tenant_id) as tenant_id,
        coalesce(rated.charge_version, settled.charge_version) as charge_version,
        coalesce(rated.subscription_version, settled.subscription_version) as subscription_version,
        coalesce(rated.metric, settled.metric) as metric,
        coalesce(rated.slice_end, settled.slice_end) as slice_end,
        coalesce(rated.quantity, 0) as quantity,
        coalesce(rated.event_count, 0) as event_count,
        coalesce(rated.event_digest, 0) as event_digest,
        coalesce(rated.payload_digest, 0) as payload_digest,
        coalesce(rated.amount, 0) as rated_amount,
        coalesce(settled.billed_amount, 0) as billed_amount,
        -- What comes beside a billed line (a discount, a maximum) is an adjustment of it, though it is new.
        coalesce(settled.subscription_id, billed_slices.subscription_id) is not null as was_billed,
        rated.timing as rated_timing,
        rated.charged_days,
        rated.full_days
    from owed_lines as rated
    full join settled using (subscription_id, charge_id, component, slice_start, currency)
    left join (
        select distinct
            subscription_id,
            charge_id,
            slice_start,
            currency
        from billed
    ) as billed_slices using (subscription_id, charge_id, slice_start, currency)
)

select
    joined.*,
    tenants.legal_entity,
    coalesce(joined.rated_timing, charges.timing) as timing,
    joined.rated_amount - joined.billed_amount as amount,
    case when joined.was_billed then 'adjustment' else 'regular' end as kind,
    case when joined.was_billed then 'Adjustment: ' else '' end
    || charges.description
    || case joined.component
        when 'discount' then ', discount'
        when 'maximum' then ', above the maximum'
        when 'minimum' then ', up to the minimum'
        else ''
    end
    || case
        when
            joined.charged_days < joined.full_days
            and joined.component in ('flat', 'minimum', 'commitment')
            and charges.prorated
            then format(' (%s of %s days)', joined.charged_days, joined.full_days)
        else ''
    end as description
from joined
inner join catalog.tenants on joined.tenant_id = tenants.tenant_id
inner join catalog.charges
    on joined.charge_id = charges.charge_id and joined.charge_version = charges.version
where
    tenants.billable
    and (
        joined.rated_amount <> joined.billed_amount
        or (not joined.was_billed and joined.quantity <> 0)
    );

analyze due;

-- 3. When each subscription is billed regularly: at a slice's start, or after its end and the grace period.
-- A fee in advance that goes on is billed next where its last known slice ends.
create temporary table regular_dates on commit drop as
select
    slices.subscription_id,
    case
        when slices.timing = 'advance' then slices.slice_start
        else slices.slice_end + catalog.setting_hours('grace_hours')
    end as bill_at
from owed
inner join rating.charge_slices as slices on owed.subscription_id = slices.subscription_id
where slices.charge_version is not null
union
select
    slices.subscription_id,
    max(slices.slice_end)
from owed
inner join rating.charge_slices as slices on owed.subscription_id = slices.subscription_id
inner join catalog.current_subscriptions as subscriptions
    on slices.subscription_id = subscriptions.subscription_id
where slices.timing = 'advance' and slices.charge_version is not null
group by slices.subscription_id, subscriptions.ended_at
having subscriptions.ended_at is null or max(slices.slice_end) < subscriptions.ended_at;

analyze regular_dates;

-- 4. The billing instant of each line. An adjustment waits for the subscription's first regular one after the
-- last date issued in its series; after the subscription's end, for the next of every so many days.
create temporary table dated on commit drop as
with issued_through as (
    select
        legal_entity,
        (max(billing_date) + 1)::timestamptz as open_from
    from invoices.issued_invoices
    group by legal_entity
),

final_interval as (
    select value::integer * 24 * interval '1 hour' as final_interval
    from catalog.settings
    where name = 'final_days'
),

adjusted as (
    select
        due.subscription_id,
        issued_through.open_from,
        min(regular_dates.bill_at) filter (where regular_dates.bill_at >= issued_through.open_from) as next_regular,
        max(regular_dates.bill_at) as last_regular
    from (
        select distinct
            subscription_id,
            legal_entity
        from due
        where kind = 'adjustment'
    ) as due
    inner join issued_through on due.legal_entity = issued_through.legal_entity
    left join regular_dates on due.subscription_id = regular_dates.subscription_id
    group by due.subscription_id, issued_through.open_from
)

select
    due.*,
    case
        when due.kind = 'adjustment' then coalesce(
            adjusted.next_regular,
            -- The first multiple of the interval after the last regular instant that is still open.
            adjusted.last_regular + final_interval.final_interval * (1 + floor(
                extract(epoch from adjusted.open_from - adjusted.last_regular)
                / nullif(extract(epoch from final_interval.final_interval), 0)
            ))::double precision,
            adjusted.open_from
        )
        when due.timing = 'advance' then due.slice_start
        else due.slice_end + catalog.setting_hours('grace_hours')
    end as bill_at
from due
cross join final_interval
left join adjusted on due.kind = 'adjustment' and due.subscription_id = adjusted.subscription_id;

analyze dated;

-- 5. Small sums are carried forward: a document below the plan's minimum joins the subscription's next one,
-- until together they reach it. Where no next billing is known, it goes as it is.
create temporary table documents on commit drop as
with recursive totals as (
    select
        dated.subscription_id,
        dated.currency,
        dated.bill_at,
        sum(dated.amount) as total,
        coalesce(max(plans.minimum_document_amount), 0) as minimum,
        row_number() over (partition by dated.subscription_id, dated.currency order by dated.bill_at) as place
    from dated
    left join catalog.current_subscriptions as subscriptions
        on dated.subscription_id = subscriptions.subscription_id
    left join catalog.plans on subscriptions.plan_id = plans.plan_id
    group by dated.subscription_id, dated.currency, dated.bill_at
),

carried as (
    select
        totals.*,
        totals.total as gathered
    from totals
    where totals.place = 1
    union all
    select
        totals.*,
        case when abs(carried.gathered) < carried.minimum then carried.gathered else 0 end + totals.total as gathered
    from carried
    inner join totals
        on carried.subscription_id = totals.subscription_id
            and carried.currency = totals.currency
            and carried.place + 1 = totals.place
),

joined as (
    select
        subscription_id,
        currency,
        bill_at as gathered_at,
        min(bill_at) filter (where abs(gathered) >= minimum) over from_here_on as reached_at,
        max(bill_at) over from_here_on as last_at
    from carried
    window from_here_on as (
        partition by subscription_id, currency
        order by bill_at
        rows between current row and unbounded following
    )
),

waiting as (
    select
        joined.subscription_id,
        joined.currency,
        joined.gathered_at,
        min(regular_dates.bill_at) as bill_at
    from joined
    inner join regular_dates
        on joined.subscription_id = regular_dates.subscription_id and joined.last_at < regular_dates.bill_at
    where joined.reached_at is null
    group by joined.subscription_id, joined.currency, joined.gathered_at
)

select
    joined.subscription_id,
    joined.currency,
    joined.gathered_at,
    coalesce(joined.reached_at, waiting.bill_at, joined.last_at) as bill_at
from joined
left join waiting
    on joined.subscription_id = waiting.subscription_id
        and joined.currency = waiting.currency
        and joined.gathered_at = waiting.gathered_at;

analyze documents;

-- 6. Replace what is owed. What lowers or raises a line stands below it.
create temporary table drafted on commit drop as
select
    format(
        '%s/%s/%s',
        documents.subscription_id,
        documents.currency,
        to_char(
            documents.bill_at,
            case
                when documents.bill_at = date_trunc('minute', documents.bill_at) then 'YYYY-MM-DD"T"HH24:MI"Z"'
                else 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
            end
        )
    ) as draft_id,
    dated.*,
    documents.bill_at as document_bill_at
from dated
inner join documents
    on dated.subscription_id = documents.subscription_id
        and dated.currency = documents.currency
        and dated.bill_at = documents.gathered_at;

with gone as (
    delete from {{ this }}
    using owed
    where draft_invoices.subscription_id = owed.subscription_id
    returning draft_invoices.draft_id
)

delete from invoices.draft_invoice_lines
using gone
where draft_invoice_lines.draft_id = gone.draft_id;

insert into {{ this }} (
    draft_id, subscription_id, tenant_id, legal_entity, currency, bill_at, window_start, window_end, cut_off,
    line_count, total
)
select
    draft_id,
    subscription_id,
    tenant_id,
    legal_entity,
    currency,
    document_bill_at,
    min(slice_start) as window_start,
    max(slice_end) as window_end,
    max(slice_end) filter (where timing = 'arrears') + catalog.setting_hours('grace_hours') as cut_off,
    count(*) as line_count,
    sum(amount) as total
from drafted
group by draft_id, subscription_id, tenant_id, legal_entity, currency, document_bill_at;

insert into invoices.draft_invoice_lines (
    draft_id, line_number, subscription_id, tenant_id, charge_id, charge_version, component, metric, slice_start,
    slice_end, quantity, event_count, event_digest, payload_digest, rated_amount, billed_amount, amount, currency,
    kind, timing, subscription_version, bill_at, description
)
select
    draft_id,
    row_number() over (
        partition by draft_id
        order by
            kind desc,
            slice_start asc,
            charge_id asc,
            array_position(array['usage', 'flat', 'commitment', 'discount', 'maximum', 'minimum'], component) asc
    ) as line_number,
    subscription_id,
    tenant_id,
    charge_id,
    charge_version,
    component,
    metric,
    slice_start,
    slice_end,
    quantity,
    event_count,
    event_digest,
    payload_digest,
    rated_amount,
    billed_amount,
    amount,
    currency,
    kind,
    timing,
    subscription_version,
    document_bill_at,
    description
from drafted;

-- 7. The drafts are of the present unless rating still owes something, or the catalog has moved on.
update invoices.draft_state
set
    stale = exists (select 1 from rating.touched)
    or exists (select 1 from rating.changed_ranges)
    or exists (select 1 from rating.touched_slices)
    or built_from.catalog_version is distinct from (
        select max(versions.catalog_version)
        from catalog.versions
    ),
    catalog_version = built_from.catalog_version,
    built_at = now()
from rating.built_from
