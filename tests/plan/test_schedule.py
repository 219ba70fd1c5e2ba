"""Cron expressions, and the hours of a month between going up and going down."""

from datetime import UTC, date, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pulumi_vllm.plan import schedule

HOURS_PER_MONTH = 730


def expressions():
    """Expressions that fire at most once an hour, with the values that they stand for."""
    hours = st.sets(st.integers(0, 23), min_size=1, max_size=4)
    weekdays = st.sets(st.integers(0, 6), min_size=1)
    listed = lambda numbers: ",".join(map(str, sorted(numbers)))  # noqa: E731
    return st.builds(
        lambda minute, hours, days: f"{minute} {listed(hours)} * * {listed(days)}",
        st.integers(0, 59), hours, weekdays,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("up", "down", "hours"),
    [
        ("0 7 * * 1-5", "0 20 * * 1-5", 261 * 13 / 12),  # 2027 has 261 working days
        ("0 7 * * mon-fri", "0 20 * * MON-FRI", 261 * 13 / 12),
        ("0 22 * * *", "0 6 * * *", 365 * 8 / 12),  # over midnight
        ("30 6 * * 1", "0 18 * * 5", 52 * 107.5 / 12),  # a whole week of work
        ("0 0 1 * *", "0 12 1 * *", 12),
        ("0 */6 * * *", "0 3-21/6 * * *", 4 * 3 * 365 / 12),
    ],
)
def test_hours_of_known_schedules(up, down, hours):
    assert schedule.hours_per_month(schedule.parse(up), schedule.parse(down)) == pytest.approx(
        hours, rel=0.01
    )


@given(expressions(), expressions())
def test_hours_are_those_of_a_machine_that_is_stepped_through_the_year(up, down):
    going_up, going_down = schedule.parse(up), schedule.parse(down)
    if going_up == going_down:
        return
    start, second, end = (datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2027, 2028))
    events = sorted(
        (start + timedelta(days=day, minutes=minute), is_up)
        for cron, is_up in ((going_down, False), (going_up, True))
        for day in range(2 * 365)
        if cron.is_on((start + timedelta(days=day)).date())
        for minute in cron.times()
    )
    # 2027 begins with the machine as 2026 left it.
    is_up, counted = False, timedelta(0)
    last = start
    for moment, becomes in [*events, (end, False)]:
        if is_up and moment > second:
            counted += moment - max(last, second)
        last, is_up = moment, becomes
    expected = counted.total_seconds() / 3600 / 12
    assert schedule.hours_per_month(going_up, going_down) == pytest.approx(expected)
    assert 0 <= expected <= HOURS_PER_MONTH


def test_either_day_suffices_where_both_are_restricted():
    cron = schedule.parse("0 7 1 * 1")
    assert cron.is_on(date(2027, 3, 1))  # the first, and a Monday
    assert cron.is_on(date(2027, 3, 8))  # a Monday
    assert cron.is_on(date(2027, 4, 1))  # a first, and a Thursday
    assert not cron.is_on(date(2027, 3, 2))
    assert schedule.parse("0 0 * * 7") == schedule.parse("0 0 * * sun")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 7 * *", "has 4 fields; write five"),
        ("61 7 * * *", "minute '61' is not between 0 and 59"),
        ("0 7 * * fry", "day of the week 'fry' is not between 0 and 7"),
        ("0 20-7 * * *", "hour '20-7' matches nothing"),
        ("0 */0 * * *", "hour '*/0' matches nothing"),
        ("0 7,, * * *", "hour '' is neither a number"),
        ("@daily", "has 1 fields"),
        ("*/5 * * * *", "fires 288 times a day; at most 24"),
        ("0 0 30 2 *", "never fires"),
    ],
)
def test_an_expression_that_is_wrong_says_where(text, message):
    with pytest.raises(ValueError, match=message.replace("*", "[*]")):
        schedule.parse(text)


def test_the_leap_day_fires():
    assert schedule.parse("0 0 29 2 *").is_on(date(2028, 2, 29))


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text):
    try:
        found = schedule.parse(text)
    except ValueError:
        return
    assert found.times()
