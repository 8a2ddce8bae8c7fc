"""What a step of a run costs, kept as a row of reconciliation.step_costs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import dagster as dg
import psycopg

from metering_pipeline import settings
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, DatabaseError
from metering_pipeline.settings import HOUR


class Cost:
    """What a step has to add to its cost: the records that it went through."""

    records: int | None = None


@contextmanager
def measured(
    context: dg.AssetExecutionContext, database: Database, stage: str, window: Window | None = None
) -> Iterator[Cost]:
    """Measure what happens inside: wall time, and CPU time of this process (not of the server, and with
    METERING_DBT_MODE=cli not of dbt's own process). Kept in a transaction of its own at the end; a step that
    fails is kept too, one that is killed is not.
    """
    cost = Cost()
    started = settings.load().now(), time.monotonic(), time.process_time()
    try:
        yield cost
    except BaseException:
        with suppress(psycopg.Error, DatabaseError):  # what went wrong in the step is what to say
            _keep(context, database, stage, window, started, cost, succeeded=False)
        raise
    _keep(context, database, stage, window, started, cost, succeeded=True)


def _keep(
    context: dg.AssetExecutionContext,
    database: Database,
    stage: str,
    window: Window | None,
    started: tuple[datetime, float, float],
    cost: Cost,
    succeeded: bool,
) -> None:
    started_at, wall, cpu = started
    with database.connect() as connection:
        connection.execute(
            """
            insert into reconciliation.step_costs (
                stage, step, run_id, first_hour, last_hour, started_at, seconds, cpu_seconds, record_count, succeeded
            )
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            (
                stage,
                context.op_def.name.replace("__", "/"),
                context.run.run_id,
                window and window.start,
                window and window.end - HOUR,
                started_at,
                time.monotonic() - wall,
                time.process_time() - cpu,
                cost.records,
                succeeded,
            ),
        )
