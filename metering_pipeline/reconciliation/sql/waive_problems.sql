-- Waives what is wrong with a source's manifests in a span of landing hours, as it is now.
insert into reconciliation.waivers (landed_hour, source, reason, detail, waived_by, waiver_reason, waived_at)
select
    landed_hour,
    source,
    reason,
    detail,
    %(by)s,
    %(why)s,
    %(now)s
from reconciliation.manifest_problems
where
    source = %(source)s
    and landed_hour between %(first)s and %(last)s
    and holds
order by landed_hour, reason, detail
returning landed_hour, reason, detail
