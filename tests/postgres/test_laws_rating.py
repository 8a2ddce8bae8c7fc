"""The independent rating against amounts worked out by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.independent_calendar import Calendar, starts_a_slice
from metering_pipeline.reconciliation.independent_rating import (
    ContradictionError,
    Terms,
    Tier,
    TierSlice,
    UnknownChargeModelError,
    Used,
    above_maximum,
    discount,
    flat_amount,
    rounded,
    up_to_minimum,
    usage_amount,
)
from metering_pipeline.reconciliation.zones import read_zones

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
    free = Terms(amount_per_event=Decimal(2), free_amount=Decimal(250))
    paid = [TierSlice(1, Decimal(550), Decimal("7.15")), TierSlice(2, Decimal(2), Decimal(4))]
    assert usage_amount("percentage", rate, Decimal(800), free, 4, paid) == Fraction("11.15")
    with pytest.raises(ContradictionError, match="events"):
        usage_amount("percentage", rate, Decimal(800), free, 1, paid)


def _used(*quantities: str, **dimensions: str) -> list[Used]:
    return [Used(dimensions, Decimal(each)) for each in quantities]


def test_usage_itself_says_what_the_quantity_does_not() -> None:
    """A matrix: the row that names most dimensions, the first among equals."""
    rows = [
        Tier(None, Decimal(2), Decimal(0), dimension_values={"model": "large"}),
        Tier(None, Decimal(3), Decimal(0), dimension_values={"model": "large", "zone": "eu"}),
        Tier(None, Decimal("0.5"), Decimal(0)),
    ]
    used = [
        *_used("1", model="large", zone="us"),
        *_used("10", model="large", zone="eu"),
        *_used("4", model="small", zone="eu"),
    ]
    frozen = [TierSlice(3, Decimal(15), Decimal("7.5"))]
    assert usage_amount("matrix", rows, Decimal(15), slices=frozen, used=used) == 2 + 30 + 2
    halves = Terms(conversion_operation="divide", conversion_factor=Decimal(2))
    half = [TierSlice(3, Decimal("7.5"), Decimal("3.75"))]
    assert usage_amount("matrix", rows, Decimal(15), halves, slices=half, used=used) == 17


@pytest.mark.parametrize(
    ("terms", "amount"),
    [
        ({"free_events": 2}, "6.5"),  # 200 and 300 at 1.3 %
        ({"free_amount": Decimal(250)}, "7.15"),  # 50 of the second, 200, 300
        ({"free_events": 1, "free_amount": Decimal(1000)}, "9.1"),  # 200, 200, 300
        ({"minimum_per_event": Decimal("1.5")}, "10.6"),  # 1.5 for the first, 2.6, 2.6, 3.9
        ({"maximum_per_event": Decimal(2)}, "7.3"),  # 1.3, 2, 2, 2
        ({"free_events": 3, "amount_per_event": Decimal(1), "maximum_per_event": Decimal(4)}, "4"),
    ],
)
def test_a_percentage_of_each_event(terms: dict[str, Any], amount: str) -> None:
    rate = [Tier(None, Decimal(0), Decimal(0), Decimal("1.3"))]
    events = _used("100", "200", "200", "300")
    exact = usage_amount("percentage", rate, Decimal(800), Terms(**terms), 4, [], events)
    assert exact == Fraction(amount)


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
    return flat_amount(fee, Calendar(ZoneInfo(zone), anchor, "month", 1).share(start, end))


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
    calendar = Calendar(UTC, anchor, "month", 1)
    for month, day, is_boundary in ((2, 28, True), (3, 28, False), (3, 31, True), (4, 30, True)):
        boundary = datetime(2026, month, day, tzinfo=UTC)
        assert starts_a_slice(boundary, calendar, started) is is_boundary
    assert not starts_a_slice(datetime(2025, 12, 31, tzinfo=UTC), calendar, started)
    february = _fee(
        datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC), "UTC", anchor
    )
    assert february == 31


def test_zones_have_the_clock_rules_of_the_server(database: Database) -> None:
    """Python's own differ for some: Morocco's of 2026, or CET, which PostgreSQL has without summer time."""
    names = ["Africa/Casablanca", "America/New_York", "Australia/Lord_Howe", "CET", "Europe/Berlin"]
    with database.connect() as connection:
        zones = read_zones(connection, names)
        walls = connection.execute(
            """
            select name, instant, instant at time zone name
            from unnest(%s::text[]) as name
            cross join generate_series('2026-01-01Z'::timestamptz, '2027-12-31Z', '5 hours 30 minutes') as instant
            """,
            (names,),
        ).fetchall()
    for name, instant, wall in walls:
        local = instant.astimezone(zones[name])
        assert local.replace(tzinfo=None) == wall, (name, instant)
        assert local.astimezone(UTC) == instant, (name, instant)


@pytest.mark.parametrize("name", ["America/New_York", "Australia/Lord_Howe", "Asia/Beirut"])
def test_a_wall_time_that_comes_twice_or_never(database: Database, name: str) -> None:
    """Every quarter of an hour around the changes of the clock, both ways and by either fold."""
    with database.connect() as connection:
        zone = read_zones(connection, [name])[name]
    known = ZoneInfo(name)
    wall = datetime(2026, 1, 1)  # noqa: DTZ001 - wall time
    while wall.year < 2027:
        for fold in (0, 1):
            told, expected = (wall.replace(tzinfo=each, fold=fold) for each in (zone, known))
            assert told.utcoffset() == expected.utcoffset(), (wall, fold)
        instant = wall.replace(tzinfo=UTC)
        local, expected = instant.astimezone(zone), instant.astimezone(known)
        assert (local.replace(tzinfo=None), local.fold) == (
            expected.replace(tzinfo=None),
            expected.fold,
        )
        wall += timedelta(minutes=15)
