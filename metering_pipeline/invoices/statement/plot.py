"""Usage by day as a small bar chart: an SVG that page and PDF share. All arithmetic is decimal."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from metering_pipeline.invoices.statement.writing import short, short_day

WIDTH, HEIGHT = 360, 132
LEFT, RIGHT, TOP, BOTTOM = 44, 356, 22, 108
"""The edges of the plotted area, in the SVG's units."""

STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))
INTERVALS = 3
DATE_COUNT = 4


@dataclass(frozen=True)
class Mark:
    """A label of an axis, and where it is."""

    position: Decimal
    text: str


@dataclass(frozen=True)
class Bar:
    """The upper left corner of a bar, and its height."""

    x: Decimal
    y: Decimal
    height: Decimal


@dataclass(frozen=True)
class Plot:
    """A chart ready to be drawn; ``base`` is where zero is."""

    bars: list[Bar]
    bar_width: Decimal
    base: Decimal
    heights: list[Mark]
    dates: list[Mark]


def draw(values: Mapping[date, Decimal], first: date, last: date) -> Plot:
    """Lay out a bar a day, from the first to the last day; a day without a value has none."""
    with localcontext(prec=60):
        days = [first + timedelta(days=place) for place in range((last - first).days + 1)]
        slot = Decimal(RIGHT - LEFT) / len(days)
        heights_to_show = [Decimal(0), *values.values()]
        ticks = _ticks(min(heights_to_show), max(heights_to_show))
        scale = Decimal(BOTTOM - TOP) / (ticks[-1] - ticks[0])

        def height(value: Decimal) -> Decimal:
            return _rounded(BOTTOM - (value - ticks[0]) * scale)

        base = height(Decimal(0))
        bars = []
        for place, day in enumerate(days):
            value = values.get(day, Decimal(0))
            if value:
                x = _rounded(LEFT + slot * place + slot / 10)
                bars.append(Bar(x, min(height(value), base), abs(height(value) - base)))
        dates = [
            Mark(_rounded(LEFT + slot * place + slot / 2), short_day(days[place]))
            for place in range(0, len(days), -(-len(days) // DATE_COUNT))
        ]
        largest = max(map(abs, ticks))
        heights = [Mark(height(tick), short(tick, largest)) for tick in ticks]
        return Plot(bars, _rounded(slot * 8 / 10), base, heights, dates)


def _ticks(low: Decimal, high: Decimal) -> list[Decimal]:
    """Round numbers at even distances from at most ``low`` to at least ``high``."""
    if low == high:  # nothing but zeros
        high = Decimal(1)
    rough = (high - low) / INTERVALS
    unit = Decimal(1).scaleb(rough.adjusted())
    step = next(unit * each for each in STEPS if unit * each >= rough)
    bottom = int((low / step).to_integral_value(ROUND_FLOOR))
    top = int((high / step).to_integral_value(ROUND_CEILING))
    return [step * each for each in range(bottom, top + 1)]


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.01"))
