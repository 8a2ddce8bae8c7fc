"""What is watched, in Dagster: the tables beside the lineage, and the check that shows what is wrong."""

from collections.abc import Sequence
from datetime import UTC

import dagster as dg

from metering_pipeline import settings
from metering_pipeline.postgres import open_database
from metering_pipeline.watch.figures import read_figures, reading
from metering_pipeline.watch.looking import CHECK, KEY
from metering_pipeline.watch.troubles import KINDS, Trouble, grave

STEP_COSTS = dg.AssetKey(["reconciliation", "step_costs"])
FIGURES = dg.AssetKey(["reconciliation", "figures"])


def _table(key: dg.AssetKey, description: str, *deps: dg.AssetKey) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=key,
        deps=deps,
        group_name="reconciliation",
        kinds={"postgres", "table"},
        owners=["team:metering"],
        description=description,
    )


watched = [
    _table(
        STEP_COSTS,
        "What each step of a run took, one row a step: wall time, CPU time, records. Rows are only ever added.",
    ),
    _table(
        FIGURES,
        "The figures by which the pipeline is watched: what landed, how late, how far behind, queues, laws, cost a stage. "
        "metering status, metering metrics and Prometheus show the same.",
        STEP_COSTS,
        dg.AssetKey(["landing", "hours"]),
        dg.AssetKey(["reconciliation", "law_results"]),
    ),
    _table(
        KEY,
        "What is wrong with the operation, one row a trouble from when it was seen to its end. The sensor watch looks "
        "every two minutes; its newest finding is the check.",
        FIGURES,
    ),
]


@dg.asset_check(
    asset=KEY,
    name=CHECK,
    description="No grave trouble stands: runs, sensors, disks, queues, laws. The sensor watch reports each change.",
)
def nothing_is_wrong() -> dg.AssetCheckResult:
    configured = settings.load()
    with reading(open_database(configured), configured) as connection:
        figures = read_figures(connection, configured)
        troubles = grave(connection, figures, configured, configured.now())
    return dg.AssetCheckResult(
        passed=not troubles,
        severity=dg.AssetCheckSeverity.ERROR,
        description=described(troubles),
        metadata=shown(troubles),
    )


def evaluation(troubles: Sequence[Trouble]) -> dg.AssetCheckEvaluation:
    """The same, as an event that the sensor reports without a run."""
    return dg.AssetCheckEvaluation(
        asset_key=KEY,
        check_name=CHECK,
        passed=not troubles,
        severity=dg.AssetCheckSeverity.ERROR,
        description=described(troubles),
        metadata=shown(troubles),
    )


def described(troubles: Sequence[Trouble]) -> str:
    """The troubles in a line."""
    if not troubles:
        return "Nothing is wrong."
    return "; ".join(map(str, troubles))


def shown(troubles: Sequence[Trouble]) -> dict[str, dg.MetadataValue]:
    """The troubles as a table, with what each means and where it says what to do."""
    if not troubles:
        return {}
    return {
        "troubles": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "what": f"{each.kind} {each.subject}",
                        "detail": f"{KINDS[each.kind].says}: {each.detail}",
                        "since": f"{each.seen_since.astimezone(UTC):%Y-%m-%dT%H:%M}Z",
                        "what to do": KINDS[each.kind].page,
                    }
                )
                for each in troubles
            ]
        )
    }
