"""How late usage lands, in a table and a plot: the figures from which the lookback is chosen."""

import base64
from io import BytesIO

import dagster as dg
import pandas as pd

from metering_pipeline import settings
from metering_pipeline.postgres import Database, open_database

LINES = 8
"""So many event types have a line of their own: those with the most events."""


def arrival_delays(database: Database) -> pd.DataFrame:
    """The view rollups.recent_delays: event_type, delay_hours, event_count."""
    return _table(
        database, "select event_type, delay_hours, event_count::bigint from rollups.recent_delays"
    )


def lateness_table(database: Database) -> pd.DataFrame:
    """The view rollups.lateness, the event type with the most events first."""
    return _table(database, "select * from rollups.lateness order by event_count desc, event_type")


def later_than(delays: pd.DataFrame) -> pd.DataFrame:
    """The share of an event type's events that came later than so many hours: a column a type, a row a
    delay. It begins at 1, an hour before the first came; a type's last share is 0, and stays so."""
    counts = delays.pivot_table(
        index="delay_hours", columns="event_type", values="event_count", aggfunc="sum", fill_value=0
    )
    counts.loc[counts.index.min() - 1] = 0
    counts = counts.sort_index()
    return (counts.sum() - counts.cumsum()) / counts.sum()


def plot(delays: pd.DataFrame, lookback_hours: int) -> bytes:
    """A PNG: for each event type the share that came later than so many hours, and the lookback."""
    from matplotlib.figure import Figure  # takes a second, which no other run shall wait for

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    largest = delays.groupby("event_type")["event_count"].sum().nlargest(LINES).index
    for event_type, shares in later_than(delays)[list(largest)].items():
        seen = shares[shares > 0]
        axes.step(seen.index, seen * 100, where="post", label=str(event_type))
    axes.axvline(
        lookback_hours, color="black", linestyle="--", label=f"lookback, {lookback_hours} h"
    )
    axes.set(
        xlabel="hours from the event's hour to the landing hour",
        ylabel="share of the events that came later",
        yscale="log",
        title="How late usage lands (last 30 days of landing hours)",
    )
    axes.yaxis.set_major_formatter(lambda percent, _: f"{percent:g} %")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    written = BytesIO()
    figure.savefig(written, format="png", dpi=110)
    return written.getvalue()


@dg.asset(
    key=["rollups", "lateness"],
    group_name="rollups",
    kinds={"python", "pandas", "postgres"},
    owners=["team:metering"],
    deps=[["rollups", "usage_contributions"]],
    description=(
        "How late usage lands, by event type, and the share that is later than the lookback: a table, and a "
        "plot of the share that comes later than so many hours. Choose METERING_LOOKBACK_HOURS by it."
    ),
)
def lateness() -> dg.MaterializeResult[None]:
    configured = settings.load()
    database = open_database(configured)
    table, delays = lateness_table(database), arrival_delays(database)
    events = int(table["event_count"].sum())
    beyond = int(table["beyond_lookback_count"].sum())
    metadata: dict[str, dg.MetadataValue | int | str] = {
        "events": events,
        "events later than the lookback": beyond,
        "share later than the lookback": f"{beyond / max(events, 1):.4%}",
        "by event type": dg.MetadataValue.md(_markdown(table)),
    }
    if events:
        image = base64.b64encode(plot(delays, configured.lookback_hours)).decode()
        metadata["how late usage lands"] = dg.MetadataValue.md(
            f"![share of events that came later](data:image/png;base64,{image})"
        )
    return dg.MaterializeResult(metadata=metadata)


def _table(database: Database, query: str) -> pd.DataFrame:
    with database.connect() as connection:
        cursor = connection.execute(query.encode())
        names = [column.name for column in cursor.description or []]
        return pd.DataFrame(cursor.fetchall(), columns=names)


def _markdown(table: pd.DataFrame) -> str:
    heads = [
        "event type",
        "events",
        "median h",
        "99 % h",
        "99.9 % h",
        "latest h",
        "beyond",
        "share beyond",
    ]
    rows = [heads, ["---"] * len(heads)]
    for row in table.itertuples(index=False):
        name = str(row.event_type).replace("|", "\\|")
        hours = [str(row.median_hours), str(row.p99_hours), str(row.p999_hours), str(row.max_hours)]
        share = f"{row.beyond_lookback_share:.4%}"
        rows.append([name, f"{row.event_count:,}", *hours, f"{row.beyond_lookback_count:,}", share])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
