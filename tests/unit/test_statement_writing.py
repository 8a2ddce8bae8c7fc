"""Figures and times as a customer reads them, and where the bars of a plot stand."""

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_pipeline.invoices.statement.plot import BOTTOM, LEFT, RIGHT, TOP, draw
from metering_pipeline.invoices.statement.writing import moment, number, period, short

KATHMANDU, BERLIN = ZoneInfo("Asia/Kathmandu"), ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        ("1234567", 0, "1,234,567"),
        ("1234.5", 2, "1,234.50"),
        ("20000", 0, "20,000"),
        ("20000.00", 0, "20,000"),
        ("2963.963", 3, "2,963.963"),
        ("6E-7", 2, "0.0000006"),
        ("1E+3", 0, "1,000"),
        ("-0.00", 2, "0.00"),
        ("-1234.5", 2, "\N{MINUS SIGN}1,234.50"),
        ("0.1234567890123456789012345678901234567890", 2, "0.123456789012345678901234567890123456789"),
        ("123456789012345678901234567890.5", 2, "123,456,789,012,345,678,901,234,567,890.50"),
    ],
)  # fmt: skip
def test_numbers_keep_every_digit(value: str, digits: int, written: str) -> None:
    assert number(Decimal(value), digits) == written


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9), st.integers(0, 4))
def test_what_is_written_is_the_number(value: Decimal, digits: int) -> None:
    written = number(value, digits)
    assert Decimal(written.replace(",", "").replace("\N{MINUS SIGN}", "-")) == value
    assert len(written.partition(".")[2]) >= digits


@pytest.mark.parametrize(
    ("ticks", "written"),
    [
        (["0", "2500", "5000"], ["0", "2,500", "5,000"]),
        (["0", "5000", "10000"], ["0", "5k", "10k"]),
        (["-20000", "0"], ["\N{MINUS SIGN}20k", "0"]),
        (["0", "7.5E+6", "1.5E+7"], ["0", "7.5M", "15M"]),
        (["0", "2E+9"], ["0", "2bn"]),
        (["0", "5E+13"], ["0", "50tn"]),
        (["0", "0.0005"], ["0", "0.0005"]),
    ],
)
def test_ticks_are_short(ticks: list[str], written: list[str]) -> None:
    largest = max(abs(Decimal(each)) for each in ticks)
    assert [short(Decimal(each), largest) for each in ticks] == written


@pytest.mark.parametrize(
    ("start", "end", "zone", "written"),
    [
        ("2026-01-01T00:00+01:00", "2026-02-01T00:00+01:00", BERLIN, "1 Jan to 31 Jan 2026"),
        ("2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00", BERLIN, "1 Mar to 31 Mar 2026"),
        ("2025-12-15T00:00+01:00", "2026-01-15T00:00+01:00", BERLIN, "15 Dec 2025 to 14 Jan 2026"),
        ("2026-01-31T00:00+01:00", "2026-02-01T00:00+01:00", BERLIN, "31 Jan 2026"),
        ("2026-01-01T00:00+05:45", "2026-01-20T10:37+05:45", KATHMANDU,
         "1 Jan 2026 00:00 +05:45 to 20 Jan 2026 10:37 +05:45"),
        ("2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", BERLIN,
         "25 Oct 2026 02:30 +02:00 to 25 Oct 2026 02:30 +01:00"),
        ("2026-01-12T10:20:30Z", "2026-02-01T00:00Z", ZoneInfo("UTC"),
         "12 Jan 2026 10:20:30 UTC to 1 Feb 2026 00:00 UTC"),
    ],
)  # fmt: skip
def test_periods(start: str, end: str, zone: ZoneInfo, written: str) -> None:
    assert period(at(start), at(end), zone) == written


def test_a_moment_is_as_fine_as_it_must_be() -> None:
    assert moment(at("2026-01-20T10:37:00.25Z"), KATHMANDU) == "20 Jan 2026 16:22:00.250000 +05:45"
    assert (
        moment(at("2026-01-20T10:37Z"), ZoneInfo("America/New_York"))
        == "20 Jan 2026 05:37 \N{MINUS SIGN}05:00"
    )


def test_bars_are_as_high_as_their_days() -> None:
    plot = draw({date(2026, 1, 2): Decimal(50), date(2026, 1, 4): Decimal(100)}, date(2026, 1, 1), date(2026, 1, 4))  # fmt: skip
    assert [mark.text for mark in plot.heights] == ["0", "50", "100"]
    assert [bar.height for bar in plot.bars] == [(BOTTOM - TOP) / Decimal(2), BOTTOM - TOP]
    quarter = Decimal(RIGHT - LEFT) / 4
    assert [(bar.x - LEFT) // quarter for bar in plot.bars] == [1, 3]
    assert [mark.text for mark in plot.dates] == ["1 Jan", "2 Jan", "3 Jan", "4 Jan"]


@given(
    st.dictionaries(
        st.dates(date(2026, 1, 1), date(2026, 12, 31)),
        st.decimals(Decimal("-1E+20"), Decimal("1E+20"), places=6),
        min_size=1,
    )
)
def test_every_bar_is_within_the_plot(values: dict[date, Decimal]) -> None:
    plot = draw(values, min(values), max(values))
    assert len(plot.bars) == sum(1 for value in values.values() if value)
    for bar in plot.bars:
        assert LEFT <= bar.x <= RIGHT
        assert TOP <= bar.y <= bar.y + bar.height <= BOTTOM
    assert 2 <= len(plot.heights) <= 6
