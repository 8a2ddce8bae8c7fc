"""What a document comes to: coupons, taxes and credits, against an oracle in plain integers."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_pipeline.invoices.amounts import (
    Coupon,
    Credit,
    Line,
    allocate,
    reckon,
    rounded,
    use_credits,
)

D = Decimal


def lines(
    *amounts: str, component: str = "usage", taxes: tuple[tuple[str, D], ...] = ()
) -> list[Line]:
    return [
        Line(number, f"charge-{number}", component, None, D(amount), taxes)
        for number, amount in enumerate(amounts, start=1)
    ]  # fmt: skip


def units(amount: D, digits: int) -> int:
    whole = Fraction(amount) * 10**digits
    assert whole.denominator == 1
    return int(whole)


def half_away(exact: Fraction) -> int:
    sign = -1 if exact < 0 else 1
    return sign * int(abs(exact) + Fraction(1, 2))


@pytest.mark.parametrize(
    ("amount", "weights", "digits", "parts"),
    [
        ("6.00", ["10", "5"], 2, ["4.00", "2.00"]),
        ("5", ["1", "1", "1"], 0, ["2", "2", "1"]),
        ("0.01", ["100", "1"], 2, ["0.01", "0.00"]),
        ("1.00", ["0.001", "0.002"], 2, ["0.33", "0.67"]),
        ("0.12", ["2.00", "1.00"], 2, ["0.08", "0.04"]),
        ("0.10", ["1.00", "-0.50"], 2, ["0.20", "-0.10"]),
    ],
)
def test_an_amount_is_spread_by_largest_remainder(
    amount: str, weights: list[str], digits: int, parts: list[str]
) -> None:
    assert [str(each) for each in allocate(D(amount), list(map(D, weights)), digits)] == parts


def test_what_cannot_be_spread_is_an_error() -> None:
    for amount, weights in (("1.00", ["1", "-1"]), ("0.001", ["1"])):
        with pytest.raises(ValueError, match="cannot be spread"):
            allocate(D(amount), list(map(D, weights)), 2)


@pytest.mark.parametrize(
    ("coupon", "reduction"),
    [
        (Coupon("c", "", amount_left=D("0.12")), "0.12"),
        (Coupon("c", "", percent=D(20)), "0.60"),
        (Coupon("c", "", percent=D(150)), "3.00"),
        (Coupon("c", "", percent=D("0.5")), "0.02"),
        (Coupon("c", "", amount_left=D(5)), "3.00"),
        (Coupon("c", "", amount_left=D("0.009")), "0.00"),
        (Coupon("c", "", percent=D(20), documents_left=0), "0.00"),
    ],
)
def test_a_coupon_takes_no_more_than_the_amount(coupon: Coupon, reduction: str) -> None:
    amounts = reckon(lines("2.00", "1.00"), [coupon], [], 2)
    assert str(amounts.coupon_amount) == reduction
    assert amounts.amount_due == D("3.00") - D(reduction)


def test_an_amount_is_used_up_over_documents() -> None:
    coupon = Coupon("c", "", amount_left=D("4.00"), documents_left=3)
    taken = [
        str(reckon(lines(amount), [coupon], [], 2).coupon_amount)
        for amount in ("3.00", "0.00", "-5.00", "2.50", "1.00")
    ]
    assert taken == ["3.00", "0.00", "0.00", "1.00", "0.00"]
    assert (coupon.amount_left, coupon.documents_left) == (D(0), 1)


@pytest.mark.parametrize(
    ("amount", "rate", "tax", "due"),
    [
        ("154.67", "25", "38.67", "193.34"),
        ("38.71", "20", "7.74", "46.45"),
        ("-3.55", "20", "-0.71", "-4.26"),
        ("0.10", "25", "0.03", "0.13"),
        ("-0.10", "25", "-0.03", "-0.13"),
    ],
)
def test_each_line_is_taxed_on_its_own(amount: str, rate: str, tax: str, due: str) -> None:
    amounts = reckon(lines(amount, taxes=(("vat", D(rate)),)), [], [], 2)
    assert (str(amounts.tax_amount), str(amounts.amount_due)) == (tax, due)


def test_two_lines_round_their_taxes_apart() -> None:
    amounts = reckon(lines("0.02", "0.02", taxes=(("vat", D(25)), ("city", D(10)))), [], [], 2)
    assert [str(each.tax_amount) for each in amounts.taxes] == ["0.01", "0.00", "0.01", "0.00"]


def test_what_lowers_a_line_is_taxed_with_it() -> None:
    """0.11 at 20 % is 0.02; apart, 0.13 and -0.02 would make 0.03."""
    vat = (("vat", D(20)),)
    document = [
        Line(1, "c", "discount", None, D("-0.02"), vat),
        Line(2, "c", "minimum", None, D("1.00"), vat),
        Line(3, "c", "usage", None, D("0.13"), vat),
    ]
    taxes = {each.line_number: each for each in reckon(document, [], [], 2).taxes}
    assert {number: str(each.tax_amount) for number, each in taxes.items()} == {
        2: "0.20",
        3: "0.02",
    }
    assert taxes[3].taxable_amount == D("0.11")
    (alone,) = reckon(document[:1], [], [], 2).taxes
    assert (alone.line_number, str(alone.tax_amount)) == (1, "0.00")


@pytest.mark.parametrize(
    ("due", "credits", "used"),
    [
        ({"usage": "15"}, [("a", "10", None), ("b", "10", {"usage"}), ("c", "10", None)],
         [("a", "10"), ("b", "5")]),
        ({"usage": "50"}, [], []),
        ({"usage": "50"}, [("a", "100", None)], [("a", "50")]),
        ({"usage": "1"}, [("a", "0.004", None), ("b", "1.009", None)], [("b", "1.00")]),
        ({"usage": "2"}, [("a", "0.509", None)], [("a", "0.50")]),
        ({"usage": "5", "flat": "10"}, [("a", "9", {"usage"}), ("b", "9", {"usage"}), ("c", "9", {"flat"})],
         [("a", "5"), ("c", "9")]),
        ({"usage": "5", "flat": "-4"}, [("a", "9", {"usage"})], [("a", "1")]),
        ({"usage": "-5"}, [("a", "9", None)], []),
    ],
)  # fmt: skip
def test_credits_pay_in_their_order_what_they_may(
    due: dict[str, str], credits: list[tuple[str, str, set[str] | None]], used: list[tuple[str, str]]
) -> None:  # fmt: skip
    known = [
        Credit(name, D(balance), frozenset(components) if components else None)
        for name, balance, components in credits
    ]
    paid = use_credits({name: D(amount) for name, amount in due.items()}, known, 2)
    assert paid == [(name, D(amount)) for name, amount in used]
    left = {name: D(balance) for name, balance, _ in credits}
    for name, amount in paid:
        left[name] -= amount
    assert {each.credit_id: each.balance for each in known} == left


money = st.integers(-10_000, 10_000)
rates = st.sampled_from([D(0), D("7.7"), D(19), D("8.875"), D(100)])
COMPONENTS = ("usage", "flat", "discount", "maximum", "minimum", "commitment")


@st.composite
def documents(draw: st.DrawFn) -> tuple[int, list[Line], list[Coupon], list[Credit]]:
    digits = draw(st.sampled_from([0, 2, 3]))
    unit = D(1).scaleb(-digits)
    count = draw(st.integers(1, 6))
    known = [
        Line(
            number,
            draw(st.sampled_from("ab")),
            draw(st.sampled_from(COMPONENTS)),
            draw(st.integers(0, 1)),
            draw(money) * unit,
            tuple((code, draw(rates)) for code in draw(st.sampled_from([(), ("vat",), ("city", "vat")]))),
        )
        for number in range(1, count + 1)
    ]  # fmt: skip
    coupons = [
        Coupon(str(number), "", percent=draw(st.sampled_from([D("33.3"), D(150)])))
        if draw(st.booleans())
        else Coupon(str(number), "", amount_left=draw(st.integers(0, 20_000)) * unit)
        for number in range(draw(st.integers(0, 3)))
    ]
    credits = [
        Credit(
            str(number),
            draw(st.integers(0, 90_000)) * unit / 7 if draw(st.booleans()) else draw(st.integers(0, 9_000)) * unit,
            draw(st.sampled_from([None, frozenset({"usage"}), frozenset({"flat", "minimum"})])),
        )
        for number in range(draw(st.integers(0, 3)))
    ]  # fmt: skip
    return digits, known, coupons, credits


@given(documents())
def test_everything_adds_up(given: tuple[int, list[Line], list[Coupon], list[Credit]]) -> None:
    digits, known, coupons, credits = given
    before = {each.credit_id: each.balance for each in credits}
    amounts = reckon(known, [replace(each) for each in coupons], credits, digits)
    total = sum(units(line.amount, digits) for line in known)
    coupon = units(amounts.coupon_amount, digits)
    credit = units(amounts.credit_amount, digits)
    assert coupon == sum(units(each.amount, digits) for each in amounts.coupons)
    assert 0 <= coupon <= max(total, 0)
    assert units(amounts.tax_amount, digits) == sum(
        half_away(Fraction(each.taxable_amount) * Fraction(each.rate) / 100 * 10**digits)
        for each in amounts.taxes
    )
    due = total - coupon + units(amounts.tax_amount, digits)
    assert 0 <= credit <= max(due, 0)
    assert units(amounts.amount_due, digits) == due - credit
    for each in credits:
        paid = sum(amount for name, amount in amounts.credits if name == each.credit_id)
        assert each.balance == before[each.credit_id] - paid
        assert each.balance >= 0
    if all(line.taxes and line.taxes[-1][0] == "vat" for line in known):
        # every line is in what exactly one "vat" is of
        taxed = [each.taxable_amount for each in amounts.taxes if each.tax_code == "vat"]
        assert sum(units(each, digits) for each in taxed) == total - coupon


@given(st.integers(-10_000, 10_000), st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_parts_are_within_a_unit_of_their_share(amount: int, weights: list[int]) -> None:
    if sum(weights) == 0:
        return
    parts = allocate(D(amount), list(map(D, weights)), 0)
    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Fraction(part) - Fraction(amount * weight, sum(weights))) < 1


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30
    )
)
def test_rounding_is_half_away_from_zero(amount: D) -> None:  # fmt: skip
    assert units(rounded(amount, 2), 2) == half_away(Fraction(amount) * 100)
