"""From the catalog to the drafts through dbt itself, with the tests that guard the tables."""

from tests.dbt.company import Company
from tests.dbt.conftest import MODELS, Dbt

TABLES = (
    *("rating.billing_periods", "rating.charge_slices", "rating.edge_usage"),
    *("rating.period_usage_daily", "rating.rated_lines", "rating.tier_slices"),
    *("rating.unrated_usage", "catalog.versions"),
    *("invoices.draft_invoices", "invoices.draft_invoice_lines"),
)
QUEUES = ("rating.touched", "rating.changed_ranges", "rating.touched_slices")


def test_a_second_run_changes_nothing(dbt: Dbt, company: Company) -> None:
    """Run, test, and run again: every row is the same and no debt is left."""
    company.add_plan("plan")
    company.add_charge("requests", "plan", [(10, 1, 0), (None, "0.5", 3)])
    company.add_fee("fee", "plan", "49.00")
    company.land_until("2026-02-02T00:00:00Z")
    company.subscribe("himal", "plan", zone="Asia/Kathmandu", start="2026-01-01T00:00:00+05:45")
    company.record_event("himal", "2026-01-31T18:14:59Z")
    company.record_event("himal", "2026-01-31T18:15:00Z")
    company.use("himal", "2026-01-15T00:00:00Z", count=30)
    company.use("stranger", "2026-01-15T00:00:00Z")
    company.load_catalog()

    def everything() -> dict[str, list[dict[str, object]]]:
        return {table: company.rows(f"select * from {table} order by 1, 2, 3") for table in TABLES}

    dbt("build", " ".join(MODELS), "--indirect-selection", "cautious")
    first = everything()
    assert all(first.values()), [table for table, rows in first.items() if not rows]
    dbt("run", " ".join(MODELS))
    assert everything() == first
    assert company.rows("select stale, catalog_version from invoices.draft_state") == [
        {"stale": False, "catalog_version": 1}
    ]
    for queue in QUEUES:
        assert company.rows(f"select * from {queue}") == []
