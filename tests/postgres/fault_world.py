"""A small company's pipeline, whole: real files landed, posted, rolled up, rated, January issued, February drafted.

Everything goes the way that production goes. Each seeded fault works on a clone of its database.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from metering_pipeline.invoices import credits
from metering_pipeline.invoices.issuing import issue
from metering_pipeline.landing.listing import list_hours
from metering_pipeline.landing.store import land_hours
from metering_pipeline.partitions import Window
from metering_pipeline.reconciliation.differences import RELATIONS
from metering_pipeline.settings import HOUR, Settings
from metering_pipeline.transform.dbt import run_dbt
from tests.postgres.billing_world import CATALOG, FEBRUARY, JANUARY, MODELS, World, after, at, sell

FIRST_HOUR = datetime(2026, 1, 1, tzinfo=UTC)
NOW = after(FEBRUARY)
VIEWS = (*(each.name for each in RELATIONS), "ledger_to_hourly")


@dataclass
class FileWorld(World):
    """A world whose events come out of files."""

    settings: Settings

    @property
    def root(self) -> Path:
        return Path(self.settings.landing_root)

    def drop(self, hour: str, name: str, *records: dict[str, Any] | str) -> Path:
        """A file of events, or of lines as they are, in the folder of a landing hour."""
        path = self.root / f"landed_hour={hour}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def follow(self, hour: str, now: datetime) -> None:
        """Land an hour and list, then post, roll up, rate and draft."""
        landed_hour = at(f"{hour}:00")
        land_hours(self.database.url, self.settings, landed_hour, landed_hour, now)
        list_hours(self.database.url, self.settings, now)
        self.post(landed_hour)

    def post(self, landed_hour: datetime) -> None:
        run_dbt(self.database, "run", [*MODELS], Window(landed_hour, landed_hour + HOUR))


def request(tenant: str, occurred_at: str, number: int, **fields: Any) -> dict[str, Any]:
    """An event of the producer's, as JSON."""
    return {
        "tenant_id": tenant,
        "event_type": "api.request",
        "occurred_at": f"{occurred_at}:00Z",
        "correlation_id": f"{tenant}-{number}",
        "properties": {"model": "small", "tokens": 100},
        **fields,
    }


def live(world: FileWorld) -> None:
    """From the first file of January to the drafts of February."""
    sell(world.connection)
    run_dbt(world.database, "run", [*CATALOG, *VIEWS])
    _january(world)
    assert world.check() == set()
    credits.grant(
        world.database, "acme", Decimal(5), "USD", by="Ada", why="a start", now=at("2026-01-20")
    )
    report = issue(world.database, JANUARY, after(JANUARY))
    assert (report.held, len(report.issued)) == ([], 5)
    _february(world)
    assert world.check() == set()


def _january(world: FileWorld) -> None:
    world.drop("2026-01-12T10", "a.ndjson",
        request("acme", "2026-01-12T10:05", 1),
        request("acme", "2026-01-12T10:06", 2),
        request("acme", "2026-01-12T10:07", 3),
        request("acme", "2026-01-12T10:05", 1),
        request("birch", "2026-01-12T10:05", 1, properties={"model": "large", "tokens": 7.5}),
        request("birch", "2026-01-12T09:59", 2),
        request("cobalt", "2026-01-12T10:01", 1, quantity="1.5"),
        request("cobalt", "2026-01-12T10:02", 2, void=True),
    )  # fmt: skip
    world.drop("2026-01-12T11", "b.ndjson",
        request("acme", "2026-01-12T10:06", 2, quantity=2),
        request("acme", "2026-01-12T11:30", 4),
        request("birch", "2026-01-12T11:30", 3),
        request("birch", "2026-01-12T11:31", 4, properties={"model": "small", "tokens": 40}),
        request("cobalt", "2026-01-12T10:02", 2),
        request("cobalt", "2026-01-12T11:02", 3),
        request("cobalt", "2026-01-12T11:03", 4, void=True),
        request("cobalt", "2026-01-12T11:03", 4),
        request("cobalt", "2026-01-12T11:03", 4, void=True),
        "{",
    )  # fmt: skip
    world.drop("2026-01-14T00", "c.ndjson",
        request("acme", "2026-01-12T10:08", 5),
        request("birch", "2026-01-13T23:59", 5),
        request("acme", "2026-01-12T10:07", 3, void=True),
    )  # fmt: skip
    for hour in ("2026-01-12T10", "2026-01-12T11", "2026-01-14T00"):
        world.follow(hour, after(JANUARY) - timedelta(hours=12))


def _february(world: FileWorld) -> None:
    world.drop("2026-02-10T08", "d.ndjson",
        request("acme", "2026-02-10T07:10", 6),
        request("acme", "2026-02-10T07:20", 7),
        request("acme", "2026-02-10T08:20", 8),
        request("birch", "2026-02-10T07:30", 6, properties={"model": "small", "tokens": 30}),
        request("birch", "2026-02-10T07:31", 7, properties={"model": "small", "tokens": 31}),
        request("cobalt", "2026-02-10T08:00", 5, properties={"model": "small", "tokens": "many"}),
        request("cobalt", "2026-02-10T08:01", 6, event_type="chat.message"),
    )  # fmt: skip
    world.drop("2026-02-10T09", "e.ndjson",
        request("birch", "2026-02-10T08:59", 8),
        request("birch", "2026-02-10T09:01", 9),
    )  # fmt: skip
    for hour in ("2026-02-10T08", "2026-02-10T09"):
        world.follow(hour, NOW - timedelta(days=20))
    world.drop("2026-02-10T09", "e.ndjson", request("birch", "2026-02-10T08:59", 8))
    world.follow("2026-02-10T09", NOW)


def settings_for(settings: Settings, root: Path) -> Settings:
    return replace(settings, landing_url=str(root), first_hour=FIRST_HOUR, rebuild_days=20)
