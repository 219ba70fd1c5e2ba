"""Spot arithmetic and the comparison with separate servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan import price_comparison, price_spot


@given(st.floats(0, 50), st.floats(0.1, 120), st.floats(0.01, 100))
def test_interruptions_and_longer_starts_never_make_spot_cheaper(per_day, minutes, usd):
    base = price_spot.expect(None, per_day, minutes)
    assert 0 <= base.availability <= 1
    assert base.effective(usd) >= usd if base.availability else True
    worse = price_spot.expect(None, per_day + 1, minutes), price_spot.expect(None, per_day, minutes * 2)
    assert all(one.availability <= base.availability for one in worse)


def test_the_separate_servers_of_the_tutorial():
    on_demand, spot = price_comparison.separate(None)
    assert (on_demand.usd_per_hour, spot.usd_per_hour) == (10.16, 3.20)
    assert on_demand.usd_per_month == pytest.approx(7416.80)
    assert spot.usd_per_month == pytest.approx(2336.0)
    assert on_demand.saved(2.54) == pytest.approx(0.75)
    assert "costs more by 21%" in spot.sentence(3.87)
