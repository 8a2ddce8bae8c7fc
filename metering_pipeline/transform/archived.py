"""Days of the ledger that are archived: put back where a model needs them, and left out where nothing does."""

import logging
from collections.abc import Sequence
from datetime import date

from metering_pipeline import settings
from metering_pipeline.landing.archives import Archives, Stage, needed_days
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.transform.dbt import DbtError, NodeResult, run_dbt

log = logging.getLogger(__name__)


def run_models(
    database: Database,
    models: Sequence[str],
    window: Window | None = None,
    command: str = "run",
) -> list[NodeResult]:
    """Run models as ``run_dbt`` does; where one needs archived days they are attached, and all is run again.

    Each model is one transaction and takes its work from a queue, so a second run does what is left. Raises DbtError,
    ArchiveError.
    """
    while True:
        try:
            return run_dbt(database, command, models, window)
        except DbtError as error:
            needed = needed_days(str(error))
            if not needed:
                raise
            configured = settings.load()
            archives = Archives(database, configured)
            archived = {(each.stage, each.day) for each in archives.in_force()}
            for stage in Stage:
                # a day that is not archived any more was attached by somebody else
                days = sorted({day for of, day in needed if of == stage and (of, day) in archived})
                if days:
                    log.info(
                        "%s of %s is archived, and attached again", stage, ", ".join(map(str, days))
                    )
                    archives.attach(days, configured.now(), stage)


def half_archived(database: Database) -> dict[date, set[date]]:
    """The UTC days of landing of which events are archived in the ledger, with the days on which these occurred."""
    days: dict[date, set[date]] = {}
    with database.connect() as connection:
        for day, landed_days in connection.execute(
            "select day, landed_days from ledger.archived_days order by day"
        ):
            for landed in landed_days:
                days.setdefault(landed, set()).add(day)
    return days
