"""What a stack has cost: records of the cloud, else time and price; the month; the forecast."""

from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pulumi_vllm.plan import schedule
from pulumi_vllm.plan.spend_report import Item, Report
from pulumi_vllm.plan.spending import month_of

HOUR = 3600.0
NOW = datetime(2026, 11, 16, tzinfo=UTC).timestamp()  # the middle of a month of 30 days
MONTH_START, MONTH_END = month_of(NOW)
MOMENTS = st.floats(NOW - 90 * 24 * HOUR, NOW)
USD = st.floats(0, 1000, allow_nan=False)


def machine(began, ended=None, price=2.0, charged=None, kind="machine"):
    return Item(kind, "id", "name", "running", began, ended, price, charged)


@st.composite
def items(draw):
    began = draw(MOMENTS)
    ended = draw(st.none() | st.floats(began, NOW))
    return machine(began, ended, draw(st.none() | USD), draw(st.none() | USD))


def test_a_charge_of_the_cloud_counts_and_else_time_and_price():
    day = 24 * HOUR
    report = Report(
        [
            machine(NOW - 2 * day, NOW - day, price=2.0, charged=50.0),
            machine(NOW - day, price=3.0),
            machine(NOW - 2 * day, price=0.05, kind="volume"),
        ],
        NOW,
    )
    assert report.usd == pytest.approx(50 + 72 + 48 * 0.05)
    assert report.computed_usd == pytest.approx(72 + 48 * 0.05)
    assert report.usd_this_month == report.usd
    assert report.usd_per_hour == pytest.approx(3.05)
    assert report.usd_forecast == pytest.approx(report.usd + 15 * 24 * 3.05)
    assert [one.source for one in report.items] == ["the cloud's record", *["computed: time x price"] * 2]


def test_a_charge_is_spread_over_the_months_of_its_rental():
    half = machine(MONTH_START - 10 * HOUR, MONTH_START + 10 * HOUR, charged=40.0)
    assert Report([half], NOW).usd_this_month == pytest.approx(20)
    never_started = machine(MONTH_START - HOUR, MONTH_START - HOUR, charged=0.7)
    assert (Report([never_started], NOW).usd, Report([never_started], NOW).usd_this_month) == (0.7, 0)


def test_by_the_schedule_a_machine_that_is_down_is_expected_to_come_back():
    always_at_noon = (schedule.parse("0 12 * * *"), schedule.parse("0 18 * * *"))
    kept = machine(NOW - HOUR, price=0.1, kind="volume")
    report = Report([machine(NOW - 10 * HOUR, NOW - 4 * HOUR), kept], NOW, always_at_noon)
    assert report.usd_forecast == pytest.approx(report.usd + 15 * 6 * 2.0 + 15 * 24 * 0.1)
    assert "server.schedule" in report.assumes


def test_without_anything_there_is_nothing():
    report = Report([], NOW)
    assert (report.since, report.usd, report.usd_forecast) == (None, 0, 0)


def test_a_price_that_the_cloud_does_not_show_is_not_hidden():
    assert machine(NOW - HOUR, price=None).source == "unknown: the cloud shows no price"


@given(st.lists(items(), max_size=5))
def test_the_parts_are_never_more_than_the_whole(found):
    report = Report(found, NOW)
    assert 0 <= report.usd_this_month <= report.usd * (1 + 1e-9)
    assert report.computed_usd <= report.usd * (1 + 1e-9)
    assert report.usd_forecast >= report.usd_this_month
    assert report.document()["items"] is not None


@given(items(), st.floats(NOW - 100 * 24 * HOUR, NOW))
def test_a_cost_is_the_sum_of_its_parts(item, cut):
    whole = item.usd(NOW - 200 * 24 * HOUR, NOW + HOUR, NOW)
    parts = item.usd(NOW - 200 * 24 * HOUR, cut, NOW) + item.usd(cut, NOW + HOUR, NOW)
    assert parts == pytest.approx(whole, abs=1e-6)
