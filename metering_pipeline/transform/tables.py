"""The tables as dbt documents them: those that an asset writes beside itself are shown in the lineage."""

from collections.abc import Iterable
from functools import cache

import dagster as dg

from metering_pipeline.transform.assets import manifest
from metering_pipeline.transform.lineage import Tables, described, tables_of

Assets = Iterable[dg.AssetsDefinition | dg.AssetSpec]

WRITTEN_BY = {
    "landing": ["landing", "usage_events"],
    "ledger": ["ledger", "usage_events"],
    "rollups": ["rollups", "usage_contributions"],
    "rating/charge_slices": ["rating", "billing_periods"],
    "rating/edge_usage": ["rating", "period_usage_daily"],
    "rating/unrated_usage": ["rating", "period_usage_daily"],
    "rating/carried_usage": ["rating", "rated_lines"],
    "rating/line_usage": ["rating", "rated_lines"],
    "rating/tier_slices": ["rating", "rated_lines"],
    "invoices/draft_invoice_lines": ["invoices", "draft_invoices"],
    "invoices": ["invoices", "issued_invoices"],
    "catalog": ["catalog", "catalog_versions"],
    "reconciliation/provider_fetches": ["reconciliation", "provider_usage"],
    "reconciliation/current_rebuilt_days": ["reconciliation", "rebuilt_days"],
    "reconciliation": ["reconciliation", "law_results"],
}
"""Which asset writes a table that is no asset itself: by the table, else by its schema."""

INTERNAL = {
    ("rollups", "touched_buckets"),
    ("rollups", "touched_days"),
    ("rating", "touched"),
    ("rating", "touched_slices"),
    ("rating", "changed_ranges"),
    ("rating", "built_from"),
    ("rating", "built_subscriptions"),
    ("invoices", "draft_state"),
    ("invoices", "touched_subscriptions"),
    ("invoices", "unchecked_subscriptions"),
    ("invoices", "drafted_from"),
    ("invoices", "issuing_switch"),
    ("invoices", "external_taxes"),
    ("invoices", "draft_digests"),
    ("catalog", "tenant_logins"),
    ("catalog", "loose_archive_files"),
    ("reconciliation", "watch"),
}
"""Queues and memory of the models, and who may read: not data to look at: they would hide the lineage."""

STEP = {"metering/step": ""}
"""The tag of the assets that do the pipeline's work: of the lineage, what one wants to see first."""


def with_tables(assets: Assets) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets, with their columns as documented, and the tables that they write beside themselves."""
    described = [*dg.map_asset_specs(_with_columns, dg.map_asset_specs(_as_step, assets))]
    keys = {spec.key for each in described for spec in _specs(each)}
    return [*described, *(spec for spec in _documented_tables() if spec.key not in keys)]


def _as_step(spec: dg.AssetSpec) -> dg.AssetSpec:
    """With the tag, if it does a part of the pipeline's work: seeds, views and functions do none."""
    works = spec.key.path[0] != "staging" and not {"view", "function"} & spec.kinds
    return spec.merge_attributes(tags=STEP if works else {})


def _specs(asset: dg.AssetsDefinition | dg.AssetSpec) -> Iterable[dg.AssetSpec]:
    return [asset] if isinstance(asset, dg.AssetSpec) else asset.specs


def _documented_tables() -> list[dg.AssetSpec]:
    return [
        _with_columns(
            dg.AssetSpec(
                key=[source["schema"], source["name"]],
                group_name=source["schema"],
                kinds={"postgres", "table"},
                owners=["team:metering"],
                deps=[_writer(source["schema"], source["name"])],
                description=source["description"],
            )
        )
        for source in manifest()["sources"].values()
        if (source["schema"], source["name"]) not in INTERNAL
    ]


def _writer(schema: str, table: str) -> list[str]:
    return WRITTEN_BY.get(f"{schema}/{table}") or WRITTEN_BY[schema]


def _with_columns(spec: dg.AssetSpec) -> dg.AssetSpec:
    key = tuple(spec.key.path)
    if key not in _tables():
        return spec
    columns = [
        dg.TableColumn(name, _tables()[key]["columns"][name]["data_type"] or "?", description)
        for name, description in described(_tables(), key).items()
    ]
    return spec.merge_attributes(
        metadata={"dagster/column_schema": dg.TableSchema(columns=columns)}
    )


@cache
def _tables() -> Tables:
    return tables_of(manifest())
