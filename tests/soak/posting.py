"""The posting models without dbt around them: what dbt sends to PostgreSQL, recorded once and sent again.

A call of dbt costs a fifth of a second, a posting of a few rows a tenth of that. So dbt runs the
models once, from the project as it stands, for a window without rows; every statement that it sends
is kept, hooks, lock and commit included, and of these texts only the window and the time of the run
are replaced. A few histories go through dbt itself, so that the two are known to agree.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any

from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database
from metering_pipeline.settings import HOUR
from metering_pipeline.transform import dbt
from metering_pipeline.transform.posting import RATING

LEDGER = "usage_events"
ROLLUPS = ("usage_contributions", "usage_hourly")
DAILY = "usage_daily"
SUSPECTS = "suspects"
CATALOG = "catalog_versions"
MODELS = (LEDGER, *ROLLUPS, DAILY, SUSPECTS, CATALOG, *RATING)

SELECTED = {LEDGER: "metering.ledger.usage_events"}
"""Models whose name alone would also select a source."""

Poster = Callable[[Sequence[str], Window], None]
"""Runs posting models, in order, for a window of landing hours."""

_SAMPLES = {
    one_hour: Window(datetime(1901, 1, 1, 11, tzinfo=UTC), datetime(*end, tzinfo=UTC))
    for one_hour, end in ((True, (1901, 1, 1, 12)), (False, (1902, 2, 2, 22)))
}
"""Models may be written otherwise for a window of one hour."""
_STARTED_AT = re.compile(r"'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00:00'::timestamptz")


class RecordedModels:
    """The posting models as dbt sends them, on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connect(autocommit=True)
        self._statements = {
            one_hour: _record(database, MODELS, sample) for one_hour, sample in _SAMPLES.items()
        }

    def another(self, database: Database | None = None) -> "RecordedModels":
        """The same on a connection of its own: for another thread, or a database of the same name."""
        other = copy(self)
        other._database = database or self._database
        other._connection = other._database.connect(autocommit=True)
        return other

    def close(self) -> None:
        self._connection.close()

    def __call__(self, models: Sequence[str], window: Window) -> None:
        one_hour = window.end - window.start == HOUR
        for model in models:
            self._connection.execute("begin")  # dbt's driver sends it unasked
            for statement in self._statements[one_hour][model]:
                self._connection.execute(_filled_in(statement, _SAMPLES[one_hour], window))


def through_dbt(database: Database) -> Poster:
    """The same by dbt itself, as the Dagster assets call it."""

    def post(models: Sequence[str], window: Window) -> None:
        dbt.run_dbt(database, "run", [SELECTED.get(model, model) for model in models], window)

    return post


def _record(database: Database, models: Sequence[str], sample: Window) -> dict[str, list[str]]:
    from dbt.cli.main import dbtRunner

    statements: dict[str, list[str]] = defaultdict(list)

    def note(event: Any) -> None:
        if event.info.name == "SQLQuery" and event.data.node_info.node_name in models:
            statements[event.data.node_info.node_name].append(event.data.sql)

    target = str(dbt.target_folder())
    with dbt._environment({**dbt.OFFLINE, **database.dbt_environment()}):
        manifest = dbt._parse(database.dbt_environment()["DBT_POSTGRES_NAME"])
        outcome = dbtRunner(manifest=manifest, callbacks=[note]).invoke([
            "--quiet", "run", "--select", *(SELECTED.get(model, model) for model in models),
            "--event-time-start", f"{sample.start:%Y-%m-%dT%H:%M:%S}",
            "--event-time-end", f"{sample.end:%Y-%m-%dT%H:%M:%S}",
            "--project-dir", str(dbt.PROJECT_FOLDER), "--profiles-dir", str(dbt.PROJECT_FOLDER),
            "--target-path", target, "--log-path", target, "--no-write-json", "--log-level-file", "none",
        ])  # fmt: skip
    assert outcome.success, outcome.exception
    for model in models:
        assert "pg_advisory_xact_lock" in "".join(statements[model]), model
        assert statements[model][-1] == "COMMIT", model
    return statements


def _filled_in(statement: str, sample: Window, window: Window) -> bytes:
    for recorded, instant in ((sample.start, window.start), (sample.end, window.end)):
        text = f"{recorded:%Y-%m-%d %H:%M:%S}"
        statement = statement.replace(text, f"{instant:%Y-%m-%d %H:%M:%S}")
    assert f"'{sample.start.year}-" not in statement
    assert f"'{sample.end.year}-" not in statement
    return _STARTED_AT.sub(f"'{datetime.now(UTC)}'::timestamptz", statement).encode()
