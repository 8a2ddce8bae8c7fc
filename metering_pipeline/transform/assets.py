"""The dbt models as Dagster assets, one definition a stage group, so that checks between them block."""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from graphlib import TopologicalSorter
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject, dbt_assets
from dagster_dbt.asset_utils import get_asset_check_key_for_test

from metering_pipeline import STAGES, settings
from metering_pipeline.costs import measured
from metering_pipeline.partitions import (
    HOUR_FORMAT,
    Window,
    hourly_freshness,
    landing_hours,
    run_window,
)
from metering_pipeline.postgres import Database, open_database
from metering_pipeline.settings import END_OF_TIME
from metering_pipeline.transform.archived import run_models
from metering_pipeline.transform.dbt import NodeResult, dbt_project, run_dbt, seeds_digest
from metering_pipeline.transform.figures import (
    ByHour,
    Figures,
    catalog_figures,
    draft_figures,
    ledger_figures,
    rollup_figures,
)
from metering_pipeline.transform.standing import all_stand, remember_all

FRESH = (["rollups", "usage_hourly"], ["invoices", "draft_invoices"])
"""What readers expect to be of this hour."""

RELATION_KINDS = {"view": "view", "table_function": "function"}
"""What a model is in the database by its materialization; else a table."""
RECORDS_A_PART = 500_000
"""Records that one transaction of a long backfill posts at most, unless a single hour holds more. So many stay in the
memory that temporary tables have (temp_buffers, 256 MB); of twice as many a posting writes half to disk and sorts outside."""

log = logging.getLogger(__name__)


class StageTranslator(DagsterDbtTranslator):
    """A model belongs to the stage of its folder; seeds and staging to the catalog."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        folder = str(dbt_resource_props["fqn"][1])
        return folder if folder in STAGES else "catalog"

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """With what it is in the database as a kind, by which the lineage can be filtered; some are to be fresh."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = manifest["nodes"].get(unique_id, {"config": {}})  # a source is none of these
        materialized = node["config"].get("materialized")
        return spec.replace_attributes(
            kinds={*spec.kinds, RELATION_KINDS.get(materialized, "table")},
            freshness_policy=hourly_freshness if spec.key.path in FRESH else None,
        )

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str]:
        return ["team:metering"]

    def get_asset_check_spec(
        self,
        asset_spec: dg.AssetSpec,
        manifest: Mapping[str, Any],
        unique_id: str,
        project: DbtProject | None,
    ) -> dg.AssetCheckSpec | None:
        """The test as a check that says what its failure means: the test's description or first comment."""
        spec = super().get_asset_check_spec(asset_spec, manifest, unique_id, project)
        if spec is None:
            return None
        test = manifest["nodes"][unique_id]
        return dg.AssetCheckSpec(
            spec.name,
            asset=spec.asset_key,
            description=test["description"] or _first_comment(test["raw_code"]),
            additional_deps=spec.additional_deps,
            blocking=spec.blocking,
            metadata=spec.metadata,
        )


def _first_comment(sql: str) -> str:
    lines = itertools.dropwhile(lambda line: not line.startswith("--"), sql.splitlines())
    comment = itertools.takewhile(lambda line: line.startswith("--"), lines)
    return " ".join(line.removeprefix("--").strip() for line in comment)


translator = StageTranslator(
    settings=DagsterDbtTranslatorSettings(
        enable_asset_checks=True,
        enable_source_tests_as_checks=False,
        enable_code_references=False,
    )
)
project = dbt_project()


@cache
def manifest() -> Mapping[str, Any]:
    parsed: Mapping[str, Any] = json.loads(project.manifest_path.read_bytes())
    return parsed


@dbt_assets(
    manifest=project.manifest_path,
    project=project,
    name="publish_catalog",
    select="resource_type:seed path:models/staging path:models/catalog",
    dagster_dbt_translator=translator,
)
def catalog_models(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Loads the seeds, validates them and publishes the catalog, in one transaction."""
    database = open_database(settings.load())
    digest = seeds_digest()
    results = run_models(database, _selected_models(context), command="build")
    remember_seeds(database, digest)
    yield from _events(context, results, catalog_figures(database))


@dbt_assets(
    manifest=project.manifest_path,
    project=project,
    name="ledger",
    select="path:models/ledger/usage_events.sql",
    partitions_def=landing_hours,
    backfill_policy=dg.BackfillPolicy.single_run(),
    dagster_dbt_translator=translator,
)
def ledger_models(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Posts the landing hours of the window to the ledger, part by part."""
    database = open_database(settings.load())
    window = run_window(context)
    started = datetime.now(UTC)
    with measured(context, database, "ledger", window) as cost:
        results = _run_in_parts(context, window, parts(database, window))
        figures, hours = ledger_figures(database, window, started)
        cost.records = sum(sum(each.values()) for each in hours.values())
    yield from _events(context, results, {"usage_events": figures}, hours)


@dbt_assets(
    manifest=project.manifest_path,
    project=project,
    name="suspects",
    select="suspects",
    dagster_dbt_translator=translator,
)
def suspect_models(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Lists events that a producer seems to have stamped anew; unpartitioned, since it looks back."""
    database = open_database(settings.load())
    yield from _events(context, run_models(database, _selected_models(context)))


@dbt_assets(
    manifest=project.manifest_path,
    project=project,
    name="rollups",
    select="usage_contributions usage_hourly",
    partitions_def=landing_hours,
    backfill_policy=dg.BackfillPolicy.single_run(),
    dagster_dbt_translator=translator,
)
def rollup_models(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Rolls up what the ledger has changed, part by part of the window, then whatever is left."""
    database = open_database(settings.load())
    window = run_window(context)
    *first, last = parts(database, window)
    with measured(context, database, "rollups", window) as cost:
        results = _run_in_parts(context, window, [*first, Window(last.start, END_OF_TIME)])
        figures, hours = rollup_figures(database, window)
        cost.records = sum(each.get("contributions", 0) for each in hours.values())
    yield from _events(context, results, figures, hours)


@dbt_assets(
    manifest=project.manifest_path,
    project=project,
    name="rating",
    select="path:models/rollups path:models/rating path:models/invoices path:models/reconciliation",
    exclude="usage_contributions usage_hourly",
    dagster_dbt_translator=translator,
)
def rating_models(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Sums the touched days, rates what changed, draws up the drafts, and makes what usage is read by.

    The tests come after all models: what they find is shown, and the gate holds whom it concerns; it
    must not keep everybody else's invoices from being drawn up.
    """
    database = open_database(settings.load())
    models = _selected_models(context)
    with measured(context, database, "rating"):
        results = _run_where_not_standing(database, models)
        tests = run_dbt(database, "build --resource-type test", models)
    yield from _events(context, results + tests, draft_figures(database))


def _run_where_not_standing(database: Database, models: Sequence[str]) -> list[NodeResult]:
    """Run the models, but no view and no function while all stand as they are defined: most of them are such."""
    defined = _definitions()
    if all_stand(database):
        standing = [
            NodeResult(defined[each], "success", "stands", 0, None)
            for each in models
            if each in defined
        ]
        others = [each for each in models if each not in defined]
        run = run_models(database, others) if others else []
        return sorted([*standing, *run], key=lambda result: _flow().index(result.unique_id))
    results = run_models(database, models)
    if defined.keys() <= set(models):
        remember_all(database)
    return results


def remember_seeds(database: Database, digest: str) -> None:
    """Record which seeds the published catalog was made from."""
    with database.connect() as connection:
        connection.execute(
            """
            insert into catalog.settings (name, value) values ('seeds_sha256', %s)
            on conflict (name) do update set value = excluded.value
            """,
            (digest,),
        )


def parts(
    database: Database, window: Window, coming: Mapping[datetime, int] | None = None
) -> list[Window]:
    """The window in parts that commit one by one: landing hours, together up to RECORDS_A_PART.

    Coming: records by landing hour that the caller has landed and not committed.
    """
    with database.connect() as connection:
        rows = connection.execute(
            """
            select landed_hour, sum(accepted_count)
            from landing.files
            where landed_hour >= %s and landed_hour < %s and superseded_by is null
            group by landed_hour
            """,
            (window.start, window.end),
        ).fetchall()
    records = Counter({hour: int(accepted) for hour, accepted in rows})
    records.update(coming or {})
    together: list[Window] = []
    held = 0
    for hour in window.hours():
        size = records[hour.start]
        if together and held + size <= RECORDS_A_PART:
            together[-1] = Window(together[-1].start, hour.end)
            held += size
        else:
            together.append(hour)
            held = size
    return together


def _run_in_parts(
    context: dg.AssetExecutionContext, window: Window, windows: list[Window]
) -> list[NodeResult]:
    database = open_database(settings.load())
    models = _selected_models(context)
    results: list[NodeResult] = []
    for number, part in enumerate(windows, start=1):
        results = run_models(database, models, part)
        log.info("%s: part %s of %s done", context.op_def.name, number, len(windows))
    return results + run_dbt(database, "build --resource-type test", models, window)


def _selected_models(context: dg.AssetExecutionContext) -> list[str]:
    """The dbt names of the assets that this step shall materialize."""
    return [
        ".".join(node["fqn"])
        for node in _refables()
        if translator.get_asset_spec(manifest(), node["unique_id"], project).key
        in context.selected_asset_keys
    ]


def _definitions() -> dict[str, str]:
    """The views and functions of the stages, which the rating makes: unique ids by dbt name."""
    return {
        ".".join(node["fqn"]): node["unique_id"]
        for node in _refables()
        if node["config"]["materialized"] in RELATION_KINDS and node["fqn"][1] in STAGES
    }


@cache
def _flow() -> list[str]:
    """Everything in the order in which the data flows: Dagster wants it so."""
    return [*TopologicalSorter(manifest()["parent_map"]).static_order()]


def _refables() -> list[Mapping[str, Any]]:
    return [
        node for node in manifest()["nodes"].values() if node["resource_type"] in ("model", "seed")
    ]


def _events(
    context: dg.AssetExecutionContext,
    results: list[NodeResult],
    figures: Mapping[str, Figures] | None = None,
    hours: ByHour | None = None,
) -> Iterator[dg.Output[None] | dg.AssetCheckResult]:
    """dbt's results as Dagster's: a materialization for each model, a check result for each test."""
    for result in results:
        if result.is_test:
            yield from _check_result(context, result)
            continue
        key = translator.get_asset_spec(manifest(), result.unique_id, project).key
        metadata = {"seconds": round(result.seconds, 3), **(figures or {}).get(key.path[-1], {})}
        if context.assets_def.partitions_def is not None:
            for hour, own in (hours or {}).items():
                context.add_asset_metadata(own, key, hour.strftime(HOUR_FORMAT))
        yield dg.Output(None, output_name=key.to_python_identifier(), metadata=metadata)


def _check_result(
    context: dg.AssetExecutionContext, result: NodeResult
) -> Iterator[dg.AssetCheckResult]:
    key = get_asset_check_key_for_test(manifest(), translator, result.unique_id, project=project)
    if key is None or key not in context.selected_asset_check_keys:
        return
    yield dg.AssetCheckResult(
        passed=result.status == "pass",
        asset_key=key.asset_key,
        check_name=key.name,
        severity=dg.AssetCheckSeverity.WARN
        if result.status == "warn"
        else dg.AssetCheckSeverity.ERROR,
        metadata={"failing rows": result.failures or 0, "seconds": round(result.seconds, 3)},
        description=result.message or None,
    )
