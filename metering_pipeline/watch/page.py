"""How the pipeline does on one HTML page: no script, nothing from elsewhere, readable aloud and on paper."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from io import BytesIO
from typing import Any

import psycopg
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from metering_pipeline import STAGES
from metering_pipeline.reconciliation.laws import LAWS, MEANINGS
from metering_pipeline.settings import HOUR, Settings, hour_of
from metering_pipeline.watch.figures import Figures, in_bytes, read_figures
from metering_pipeline.watch.troubles import KINDS, grave

DAYS = 7
"""Days of landing hours that the plots show."""

COLORS = ("#2563a8", "#5b9bd5", "#8fbf8f", "#d9a441", "#b5651d", "#7a6c9d")
"""Of the stages, in their order: told apart by the color-blind and in gray too."""


@dataclass(frozen=True)
class Cell:
    """A figure of the page: what it is, its value, and what it means."""

    name: str
    value: str
    says: str = ""


@dataclass(frozen=True)
class StageCost:
    """What the steps of a stage have cost: wall and CPU seconds, and records a second of both."""

    stage: str
    steps: int
    failed: int
    seconds: Decimal
    cpu_seconds: Decimal
    records: int

    @property
    def speed(self) -> str:
        """Records a second of wall time."""
        return f"{self.records / self.seconds:,.0f}" if self.records and self.seconds else ""


def html(connection: psycopg.Connection, settings: Settings, now: datetime) -> bytes:
    """The page, UTF-8. Every text of it is escaped."""
    figures = read_figures(connection, settings)
    content = {
        "at": _instant(now),
        "troubles": [
            (each, KINDS[each.kind]) for each in grave(connection, figures, settings, now)
        ],
        "since": _ago,
        "now": now,
        "lags": list(lags(figures, now)),
        "flow": list(flow(figures)),
        "queues": sorted(figures.labels("queue_rows").items()),
        "laws": list(laws(figures, now)),
        "costs": stage_costs(figures),
        "landed": Markup(svg(landed_plot(connection, now))),  # noqa: S704  (drawn here, of numbers)
        "spent": Markup(svg(cost_plot(connection, now))),  # noqa: S704
        "disks": list(disks(figures)),
    }
    return _environment().get_template("watch.html").render(content).encode()


def lags(figures: Figures, now: datetime) -> Iterator[Cell]:
    """How far behind the clock each thing is."""
    for figure, name, says in (
        (
            "run_until_timestamp_seconds",
            "Run until",
            "every closed landing hour was run up to here",
        ),
        (
            "sealed_until_timestamp_seconds",
            "Sealed until",
            "every landing hour is complete up to here",
        ),
        ("listed_timestamp_seconds", "Landing root listed", "files that came late are found by it"),
        ("looked_timestamp_seconds", "Watched", "the sensor watch looked last"),
    ):
        instant = figures.instant(figure)
        value = f"{_instant(instant)}, {_ago(instant, now)}" if instant else "never"
        yield Cell(name, value, says)


def flow(figures: Figures) -> Iterator[Cell]:
    """What came in, what of it was late or came twice, and what waits."""
    for figure, label, name, says in (
        (
            "landed_records_total",
            "accepted",
            "Records accepted",
            "since the beginning, every file version",
        ),
        (
            "landed_records_total",
            "rejected",
            "Records rejected",
            "landing.rejected_events says why",
        ),
        (
            "recent_events",
            "on_time",
            "Events on time",
            "last 24 landing hours, up to two hours late",
        ),
        ("recent_events", "late", "Events late", "last 24 landing hours, within the lookback"),
        ("recent_events", "beyond_lookback", "Events beyond the lookback", "last 24 landing hours"),
        ("recent_copies", "duplicate", "Duplicates", "last 24 landing hours"),
        ("recent_copies", "conflict", "Conflicts", "last 24 landing hours"),
        (
            "late_arrivals",
            "",
            "Late keys waiting",
            "for a run of their own, by the sensor late_arrivals",
        ),
        (
            "landing_partitions",
            "not_posted",
            "Hours not posted",
            "landed, and not in the ledger yet",
        ),
        ("draft_invoices", "", "Drafts", ""),
        ("held_invoices", "", "Drafts held", "metering issue --preview says why"),
        ("issued_invoices_total", "", "Documents issued", ""),
    ):
        yield Cell(name, f"{figures.whole(figure, label):,}", says)


def laws(figures: Figures, now: datetime) -> Iterator[tuple[str, str, int, str]]:
    """Each law, what it says, the windows in which it fails, and when it was evaluated."""
    for law in LAWS:
        evaluated = figures.instant("law_evaluated_timestamp_seconds", law)
        when = _ago(evaluated, now) if evaluated else "never"
        yield law, MEANINGS[law], figures.whole("failing_windows", law), when


def stage_costs(figures: Figures) -> list[StageCost]:
    """What each stage's steps have cost, the stages in their order."""
    return [
        StageCost(
            stage,
            figures.whole("steps_total", stage),
            figures.whole("failed_steps_total", stage),
            figures.get("step_seconds_total", stage) or Decimal(0),
            figures.get("step_cpu_seconds_total", stage) or Decimal(0),
            figures.whole("step_records_total", stage),
        )
        for stage in STAGES
    ]


def disks(figures: Figures) -> Iterator[Cell]:
    """Free space, and the database's size."""
    for place, size in figures.labels("disk_size_bytes").items():
        free = figures.get("disk_free_bytes", place) or Decimal(0)
        yield Cell(f"Disk of {place}", f"{in_bytes(free)} of {in_bytes(size)} free")
    yield Cell("Database", in_bytes(figures.get("database_bytes") or Decimal(0)))


def landed_plot(connection: psycopg.Connection, now: datetime) -> Any:
    """Records of the last days' landing hours, accepted and rejected."""
    start = hour_of(now) - timedelta(days=DAYS)
    rows = connection.execute(
        """
        select landed_hour, sum(accepted_count), sum(rejected_count)
        from landing.files
        where landed_hour >= %s and superseded_by is null
        group by landed_hour
        """,
        (start,),
    ).fetchall()
    accepted = {hour: float(count) for hour, count, _ in rows}
    rejected = {hour: float(count) for hour, _, count in rows}
    return _bars(
        "Records by landing hour",
        "records",
        _hours(start, now),
        [("accepted", COLORS[0], accepted), ("rejected", "#c0392b", rejected)],
    )


def cost_plot(connection: psycopg.Connection, now: datetime) -> Any:
    """Wall time of the steps of the last days, by the hour in which they began and by stage."""
    start = hour_of(now) - timedelta(days=DAYS)
    rows = connection.execute(
        """
        select stage, date_bin('1 hour', started_at, '2000-01-01 00:00:00+00'), sum(seconds)
        from reconciliation.step_costs
        where started_at >= %s
        group by 1, 2
        """,
        (start,),
    ).fetchall()
    series = [
        (stage, color, {hour: seconds for each, hour, seconds in rows if each == stage})
        for stage, color in zip(STAGES, COLORS, strict=True)
    ]
    return _bars(
        "Seconds of the steps, by the hour they began", "seconds", _hours(start, now), series
    )


def _hours(start: datetime, now: datetime) -> list[datetime]:
    return [start + HOUR * number for number in range((now - start) // HOUR + 1)]


def _bars(
    title: str,
    unit: str,
    hours: Sequence[datetime],
    series: Sequence[tuple[str, str, dict[datetime, float]]],
) -> Any:
    """Stacked bars, one an hour."""
    from matplotlib.dates import ConciseDateFormatter  # takes a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    base = [0.0] * len(hours)
    for name, color, values in series:
        heights = [values.get(hour, 0.0) for hour in hours]
        if any(heights):
            axes.bar(hours, heights, bottom=base, width=HOUR, color=color, label=name)  # type: ignore[arg-type]
            base = [below + height for below, height in zip(base, heights, strict=True)]
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set(ylabel=unit, xlim=(hours[0], hours[-1] + HOUR))
    locator = axes.xaxis.get_major_locator()
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.spines[["top", "right"]].set_visible(False)
    if any(base):
        axes.legend(
            fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=6
        )
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing in these days", transform=axes.transAxes, ha="center")
    return figure


def svg(figure: Any) -> str:
    """A plot as an SVG element."""
    written = BytesIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue().decode()
    return text[text.index("<svg") :]


def _instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _ago(instant: datetime, now: datetime) -> str:
    minutes = max(int((now - instant).total_seconds()) // 60, 0)
    days, hours = minutes // 1440, minutes % 1440 // 60
    if days:
        return f"{days:,} d {hours} h ago"
    return f"{hours} h {minutes % 60:02} min ago" if hours else f"{minutes} min ago"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
