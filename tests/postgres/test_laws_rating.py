"""The independent rating against amounts worked out by hand."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from metering_pipeline.reconciliation.independent_calendar import Calendar, starts_a_slice
from metering_pipeline.reconciliation.independent_rating import (
    ContradictionError,
    Terms,
    Tier,
    TierSlice,
    UnknownChargeModelError,
    above_maximum,
    discount,
    flat_amount,
    rounded,
    up_to_minimum,
    usage_amount,
)

TIERS = [
    Tier(Decimal("10"), Decimal("0.5"), Decimal("1")),
    Tier(Decimal("20"), Decimal("0.25"), Decimal("2")),
    Tier(None, Decimal("0.1"), Decimal(0)),
]


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("0", "1"),
        ("10", "6"),
        ("10.000000000000000001", "8.00000000000000000025"),
        ("20", "10.5"),
        ("25", "11"),
        ("-4", "1"),
    ],
)
def test_tiers_are_cumulative_and_inclusive(quantity: str, amount: str) -> None:
    assert usage_amount("graduated", TIERS, Decimal(quantity)) == Fraction(amount)


def test_per_unit_is_exact() -> None:
    price = [Tier(None, Decimal("0.0000006"), Decimal(0))]
    quantity = Decimal("12345678901234567890.123456789012345678")
    assert usage_amount("per_unit", price, quantity) == Fraction(quantity) * Fraction("0.0000006")


def test_the_other_models_by_hand() -> None:
    volume, package = usage_amount("volume", TIERS, Decimal("10.5")), [_flat("15")]
    assert volume == Fraction("10.5") / 4 + 2
    sized = Terms(package_size=Decimal(10), included_quantity=Decimal(5))
    assert usage_amount("package", package, Decimal("15.1"), sized) == 30
    assert usage_amount("package", package, Decimal(5), sized) == 0
    unlimited = Terms(included_quantity=Decimal("Infinity"))
    assert usage_amount("per_unit", [_unit("3")], Decimal(500), unlimited) == 0
    seconds = Terms(conversion_operation="divide", conversion_factor=Decimal(3600))
    assert usage_amount("per_unit", [_unit("18")], Decimal(1), seconds) == Fraction("0.005")
    tens = Terms(quantity_rounding="ceiling", quantity_digits=-1)
    assert usage_amount("dynamic", [], Decimal("0.1"), tens) == 10
    rate = [Tier(None, Decimal(0), Decimal(0), Decimal("1.3"))]
    fixed = Terms(amount_per_event=Decimal(2))
    assert usage_amount("percentage", rate, Decimal(800), fixed, 4) == Fraction("18.4")


def test_what_the_quantity_does_not_tell_must_agree_with_the_frozen_slices() -> None:
    rows = [_unit("2"), _unit("0.5")]
    good = [TierSlice(1, Decimal(3), Decimal(6)), TierSlice(2, Decimal(4), Decimal(2))]
    assert usage_amount("matrix", rows, Decimal(7), slices=good) == 8
    with pytest.raises(ContradictionError, match="hold"):
        usage_amount("matrix", rows, Decimal(8), slices=good)
    with pytest.raises(ContradictionError, match="slice 1"):
        usage_amount("matrix", rows, Decimal(3), slices=[TierSlice(1, Decimal(3), Decimal(7))])
    rate = [Tier(None, Decimal(0), Decimal(0), Decimal("1.3"))]
    free = Terms(amount_per_event=Decimal(2), reads_events=True)
    paid = [TierSlice(1, Decimal(550), Decimal("7.15")), TierSlice(2, Decimal(2), Decimal(4))]
    assert usage_amount("percentage", rate, Decimal(800), free, 4, paid) == Fraction("11.15")
    with pytest.raises(ContradictionError, match="events"):
        usage_amount("percentage", rate, Decimal(800), free, 1, paid)


def test_what_comes_beside_a_line() -> None:
    terms = Terms(
        discount_percent=Decimal("33.3"), discount_amount=Decimal("0.5"),
        maximum_amount=Decimal("5.001"), minimum_amount=Decimal(100),
    )  # fmt: skip
    assert discount(terms, Decimal("10.00"), 2) == Decimal("-3.83")
    assert discount(Terms(discount_percent=Decimal(150)), Decimal("3.00"), 2) == Decimal("-3.00")
    assert discount(terms, Decimal("-10.00"), 2) == 0
    assert above_maximum(terms, Decimal("6.17"), 2) == Decimal("-1.17")
    assert above_maximum(terms, Decimal("5.00"), 2) == 0
    assert up_to_minimum(terms, Decimal("70.00"), Fraction(25, 28), 2) == Decimal("19.29")
    assert up_to_minimum(terms, Decimal("70.00"), Fraction(1, 2), 2) == 0


def _unit(amount: str) -> Tier:
    return Tier(None, Decimal(amount), Decimal(0))


def _flat(amount: str) -> Tier:
    return Tier(None, Decimal(0), Decimal(amount))


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(UnknownChargeModelError, match="auction"):
        usage_amount("auction", TIERS, Decimal(1))


@pytest.mark.parametrize(
    ("exact", "digits", "amount"),
    [("2.005", 2, "2.01"), ("-2.005", 2, "-2.01"), ("2.0049999", 2, "2.00"), ("0.5", 0, "1"),
     ("1234.0005", 3, "1234.001"), ("0", 2, "0.00")],
)  # fmt: skip
def test_half_is_rounded_away_from_zero(exact: str, digits: int, amount: str) -> None:
    assert str(rounded(Fraction(exact), digits)) == amount


def _fee(start: datetime, end: datetime, zone: str, anchor: datetime) -> Fraction:
    fee = [Tier(None, Decimal(0), Decimal(31))]
    return flat_amount(fee, Calendar(zone, anchor, "month", 1).share(start, end))


def test_a_fee_goes_by_local_days_of_the_full_period() -> None:
    anchor = datetime(2026, 1, 1)  # noqa: DTZ001 - wall time
    new_york = "America/New_York"
    whole = _fee(
        datetime(2026, 3, 1, 5, tzinfo=UTC), datetime(2026, 4, 1, 4, tzinfo=UTC), new_york, anchor
    )
    assert whole == 31  # though the month has an hour less
    part = _fee(
        datetime(2026, 3, 11, 4, tzinfo=UTC), datetime(2026, 4, 1, 4, tzinfo=UTC), new_york, anchor
    )
    assert part == 21


def test_boundaries_are_clamped_from_the_anchor() -> None:
    anchor = datetime(2026, 1, 31)  # noqa: DTZ001 - wall time
    started = datetime(2026, 1, 31, tzinfo=UTC)
    calendar = Calendar("UTC", anchor, "month", 1)
    for month, day, is_boundary in ((2, 28, True), (3, 28, False), (3, 31, True), (4, 30, True)):
        boundary = datetime(2026, month, day, tzinfo=UTC)
        assert starts_a_slice(boundary, calendar, started) is is_boundary
    assert not starts_a_slice(datetime(2025, 12, 31, tzinfo=UTC), calendar, started)
    february = _fee(
        datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC), "UTC", anchor
    )
    assert february == 31
