"""Waivers: somebody lets a source's hour count as complete although its control totals say otherwise."""

from dataclasses import dataclass
from datetime import datetime

from metering_pipeline.errors import MeteringError, require_texts
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.statements import rows

PACKAGE = "metering_pipeline.reconciliation"


class NothingToWaiveError(MeteringError):
    """The source has no problem in these hours that holds invoices."""


@dataclass(frozen=True)
class Waived:
    """A problem that no longer holds an invoice, as long as it is this one."""

    landed_hour: datetime
    reason: str
    detail: str


def waive(
    database: Database, source: str, first: datetime, last: datetime, by: str, why: str, now: datetime
) -> list[Waived]:  # fmt: skip
    """Waive what is wrong with the source's manifests in the landing hours from first to last (inclusive).

    Good for what is wrong now: other figures, another file, are not waived. Kept for good in
    reconciliation.waivers. Raises NothingToWaiveError, ValueError for an empty text.
    """
    require_texts(by=by, why=why)
    parameters = {"source": source, "first": first, "last": last, "by": by, "why": why, "now": now}
    with database.locked() as connection:
        waived = [
            Waived(row.landed_hour, row.reason, row.detail)
            for row in rows(connection, PACKAGE, "waive_problems", parameters)
        ]
    if not waived:
        raise NothingToWaiveError(
            f"Nothing of {source!r} holds invoices in these hours. See reconciliation.manifest_problems"
            " for what is wrong, and catalog.sources for the declared sources."
        )
    return waived
