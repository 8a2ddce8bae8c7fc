-- Each rated line against the documents: what has been billed for it, and what the drafts would bill. Rated = billed +
-- drafted. While the drafts are stale, a difference is a debt. Issued tables go by their names: issuing comes after
-- the drafts, which are made together with this.

with sides as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        'rated' as side,
        tenant_id,
        amount,
        quantity,
        event_digest,
        null as document
    from {{ ref('rated_lines') }}
    union all
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        'billed' as side,
        tenant_id,
        amount,
        null as quantity,
        null as event_digest,
        invoice_number as document
    from invoices.billed_lines
    union all
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        'drafted' as side,
        tenant_id,
        amount,
        quantity,
        event_digest,
        draft_id as document
    from {{ source('invoices', 'draft_invoice_lines') }}
),

compared as (
    select
        subscription_id,
        charge_id,
        component,
        slice_start,
        currency,
        max(tenant_id) as tenant_id,
        bool_or(side = 'rated') as is_rated,
        coalesce(sum(amount) filter (where side = 'rated'), 0) as rated_amount,
        coalesce(sum(amount) filter (where side = 'billed'), 0) as billed_amount,
        coalesce(sum(amount) filter (where side = 'drafted'), 0) as drafted_amount,
        max(quantity) filter (where side = 'rated') as rated_quantity,
        max(quantity) filter (where side = 'drafted') as drafted_quantity,
        max(document) filter (where side = 'billed') as invoice_number,
        max(document) filter (where side = 'drafted') as draft_id,
        bool_or(bool_or(side = 'billed')) over slices as slice_is_billed,
        bool_or(side = 'drafted')
        and coalesce(max(quantity) filter (where side = 'rated'), 0)
        = max(quantity) filter (where side = 'drafted')
        and coalesce(max(event_digest) filter (where side = 'rated'), 0)
        = max(event_digest) filter (where side = 'drafted') as same_usage
    from sides
    group by subscription_id, charge_id, component, slice_start, currency
    window slices as (partition by subscription_id, charge_id, slice_start, currency)
)

select
    compared.subscription_id,
    compared.tenant_id,
    compared.charge_id,
    compared.component,
    compared.slice_start,
    compared.currency,
    compared.rated_amount,
    compared.billed_amount,
    compared.drafted_amount,
    compared.rated_quantity,
    compared.drafted_quantity,
    compared.invoice_number,
    compared.draft_id,
    (select draft_state.stale from invoices.draft_state) as is_pending,
    case
        when compared.rated_amount <> compared.billed_amount + compared.drafted_amount then case
            when compared.draft_id is null and compared.invoice_number is null then 'missing'
            when not compared.is_rated and compared.invoice_number is null then 'extra'
            else 'modified'
        end
        -- usage that costs nothing is on the first document of its slice too
        when
            compared.draft_id is null
            and not compared.slice_is_billed
            and compared.rated_quantity <> 0
            then 'missing'
        when compared.draft_id is not null and not compared.same_usage then 'modified'
        else 'identical'
    end as state
from compared
inner join {{ source('catalog', 'tenants') }} as tenants on compared.tenant_id = tenants.tenant_id
where tenants.billable
