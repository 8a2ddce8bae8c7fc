"""The table of the page about periods is what the models make of it."""

import re
from collections.abc import Callable

from metering_pipeline.settings import PROJECT_ROOT
from tests.dbt.company import Company

PAGE = (PROJECT_ROOT / "docs" / "periods.md").read_text()


def test_the_periods_of_the_page(company: Company, rate: Callable[[], None]) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if re.match(r"\| \d", line)
    ]
    assert len(rows) == 6
    last = max(boundary for *_, boundaries in rows for boundary in boundaries.split(", "))
    company.land_until(last.replace("Z", ":01Z"))
    expected = {}
    for number, (interval, anchor, zone, start, boundaries) in enumerate(rows):
        count, unit = interval.split()
        plan = company.add_plan(f"plan-{number}")
        plan |= {"billing_interval": unit, "interval_count": count}
        company.add_fee(f"fee-{number}", f"plan-{number}", 1)
        tenant = f"tenant-{number}"
        company.subscribe(tenant, f"plan-{number}", start=start, zone=zone, anchor=anchor)
        expected[f"sub-{tenant}"] = boundaries.split(", ")
    rate()
    for subscription, boundaries in expected.items():
        starts = company.rows(
            'select to_char(period_start, \'YYYY-MM-DD"T"HH24:MI"Z"\') as start'
            " from rating.billing_periods where subscription_id = %s order by period_start limit %s",
            subscription,
            len(boundaries),
        )
        assert [row["start"] for row in starts] == boundaries, subscription
