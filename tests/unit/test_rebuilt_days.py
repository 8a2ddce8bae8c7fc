"""Which days a week rebuilds: decided by the week, the newest preferred, every day in its turn."""

from datetime import UTC, date, datetime, timedelta

from metering_pipeline.reconciliation.rebuilt_days import RECENT_DAYS, sample_days, week_of

FIRST = date(2026, 1, 1)
MONDAY = date(2026, 6, 1)


def days(count: int) -> list[date]:
    return [FIRST + timedelta(days=number) for number in range(count)]


def test_a_week_begins_on_monday_in_utc() -> None:
    assert week_of(datetime(2026, 6, 7, 23, 59, tzinfo=UTC)) == MONDAY
    assert week_of(datetime(2026, 6, 8, tzinfo=UTC)) == MONDAY + timedelta(days=7)


def test_the_same_week_draws_the_same_days_and_another_one_others() -> None:
    known = days(100)
    drawn = sample_days(known, {}, [], MONDAY, 7)
    assert drawn == sample_days(known[::-1], {}, [], MONDAY, 7)
    assert drawn == sorted(set(drawn), reverse=True)
    assert len(drawn) == 7
    assert drawn != sample_days(known, {}, [], MONDAY + timedelta(days=7), 7)


def test_half_of_them_are_recent_and_every_day_comes_in_its_turn() -> None:
    known, proven = days(100), dict[date, date]()
    for number in range(30):
        week = MONDAY + timedelta(days=7 * number)
        drawn = sample_days(known, proven, [], week, 8)
        assert len(set(drawn) & set(known[-RECENT_DAYS:])) >= 4
        proven |= dict.fromkeys(drawn, week)
    assert set(proven) == set(known)


def test_a_day_that_differed_is_rebuilt_until_it_is_well() -> None:
    known = days(60)
    proven = {known[5]: MONDAY - timedelta(days=7)}
    drawn = [
        sample_days(known, proven, red, MONDAY, 3) for red in ([known[5]], [date(1999, 1, 1)], [])
    ]
    assert [known[5] in each for each in drawn] == [True, False, False]


def test_few_days_are_all_of_them_and_none_is_none() -> None:
    assert sample_days(days(3), {}, [], MONDAY, 7) == days(3)[::-1]
    assert sample_days(days(3), {}, [], MONDAY, 0) == []
