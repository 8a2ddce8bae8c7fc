-- Who may do what. The roles are groups without a login, of the whole server: its databases share them, so each is
-- made where it is not there yet. Whoever applies this owns the tables; the pipeline does not run as the owner.
do $$
declare
    wanted text;
    of_role text;
begin
    foreach wanted in array array[
        'metering_landing', 'metering_transform', 'metering_issue', 'metering_pipeline', 'metering_analyst',
        'metering_archive', 'metering_erase', 'metering_tenant'
    ] loop
        begin
            if to_regrole(wanted) is null then
                execute format('create role %I nologin', wanted);
            end if;
        exception
            -- another database of the server is being set up at the same moment
            when duplicate_object or unique_violation then null;
        end;
    end loop;
    -- Who transforms, issues or erases reads everything, as an analyst does. Landing reads what it writes.
    for wanted, of_role in
        values
        ('metering_transform', 'metering_analyst'), ('metering_issue', 'metering_analyst'),
        ('metering_erase', 'metering_analyst'), ('metering_archive', 'metering_analyst'),
        ('metering_archive', 'metering_landing'), ('metering_pipeline', 'metering_landing'), ('metering_pipeline', 'metering_transform'),
        ('metering_pipeline', 'metering_issue')
    loop
        if not pg_has_role(wanted, of_role, 'usage') then
            execute format('grant %I to %I', of_role, wanted);
        end if;
    end loop;
    -- What dbt makes belongs to the role that transforms, whoever runs it; default privileges on it are set below.
    if not pg_has_role('metering_transform', 'usage') then
        execute format('grant metering_transform to %I with inherit true, set true', current_user);
    end if;
end;
$$;

do $$
begin
    execute format(
        'revoke all on database %1$I from public;'
        ' grant connect on database %1$I to metering_landing, metering_analyst, metering_tenant;'
        ' grant temporary on database %1$I to metering_landing, metering_transform, metering_issue',
        current_database()
    );
end;
$$;

grant usage on schema landing, catalog, reconciliation to metering_landing;
grant usage on schema landing, ledger, rollups, rating, invoices, reconciliation, catalog, staging
to metering_analyst;

-- Analyst: everything to read, nothing to write.
grant select on all tables in schema landing, ledger, rollups, rating, invoices, reconciliation, catalog
to metering_analyst;
alter default privileges for role metering_transform grant select on tables to metering_analyst;

-- Landing: hours, files and events as received, which are added to; and its law.
grant select, insert on all tables in schema landing to metering_landing;
grant update on landing.hours, landing.files, landing.manifests to metering_landing;
grant usage on sequence landing.manifests_manifest_id_seq to metering_landing;
grant select on reconciliation.law_results, reconciliation.current_law_results to metering_landing;
grant select on table catalog.schema_files to metering_landing;

-- Transform: whatever can be computed again, from the ledger to the drafts, and the views and functions of dbt.
grant insert, delete on all tables in schema ledger to metering_transform;
grant update on ledger.pending to metering_transform;
grant update (posted_at) on landing.hours to metering_transform;
grant insert, update, delete on all tables in schema rollups, rating to metering_transform;
grant insert, update, delete on
invoices.draft_invoices, invoices.draft_invoice_lines, invoices.draft_state, invoices.drafted_from,
invoices.touched_subscriptions, invoices.unchecked_subscriptions
to metering_transform;
grant insert on reconciliation.rebuilt_days to metering_transform;
grant insert, update, delete on all tables in schema catalog to metering_transform;
revoke insert, update, delete on table catalog.schema_files from metering_transform;
revoke update, delete on table catalog.versions from metering_transform;
grant create on schema staging, rollups, invoices, reconciliation to metering_transform;
-- A company's own tables may stand in the place of the seeds.
alter default privileges in schema staging grant select, insert, update, delete on tables to metering_transform;
alter default privileges in schema staging grant select on tables to metering_analyst;

-- Issue: documents, credits, approvals and releases are added, never changed; holds come and go.
grant insert on
invoices.issued_invoices, invoices.issued_invoice_lines, invoices.issued_usage, invoices.issued_tier_slices,
invoices.issued_invoice_taxes, invoices.coupon_entries, invoices.credit_entries, invoices.approvals,
invoices.hold_releases
to metering_issue;
grant insert, update on invoices.invoice_series to metering_issue;
grant insert, update, delete on invoices.held_invoices, invoices.external_taxes to metering_issue;
grant update on invoices.issuing_switch, invoices.draft_state to metering_issue;
grant delete on invoices.draft_invoices, invoices.draft_invoice_lines to metering_issue;
grant insert on invoices.touched_subscriptions to metering_issue;
grant usage on sequence invoices.credit_numbers to metering_issue;
grant insert on reconciliation.waivers, reconciliation.provider_fetches, reconciliation.provider_usage
to metering_issue;

-- All of them: the laws that they evaluate, and the settings that they run with.
grant insert on reconciliation.law_results to metering_landing, metering_transform, metering_issue;
grant usage on sequence reconciliation.evaluation_ids to metering_landing, metering_transform, metering_issue;
grant select, insert, update on table catalog.settings to metering_landing, metering_transform, metering_issue;

-- What takes the owner's rights is done by functions of the owner, for these roles only.
revoke execute on function catalog.ensure_day_partitions(text, text, date[]) from public;
revoke execute on function catalog.make_hours_known(text, text) from public;
revoke execute on function catalog.renew_statistics(regclass) from public;
revoke execute on function catalog.make_rebuild_schema() from public;
grant execute on function catalog.ensure_day_partitions(text, text, date[]) to metering_landing, metering_transform;
grant execute on function catalog.make_hours_known(text, text) to metering_landing, metering_transform;
grant execute on function catalog.renew_statistics(regclass) to metering_transform;
grant execute on function catalog.make_rebuild_schema() to metering_transform;
