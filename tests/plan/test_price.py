"""Spot arithmetic, rates, and the comparison with separate servers."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi_vllm.plan import (
    Deployment,
    Offer,
    catalogue,
    explain,
    plan,
    price_comparison,
    pricing,
    spot_pricing,
)
from pulumi_vllm.plan.recommendation import Wish, recommend

BLOCK = {
    "model": "mistral-small-4",
    "context": "32Ki",
    "machine": {"gpu": "H200", "count": 2, "max_usd_per_hour": 9},
    "storage": "300GB",
}


def test_a_spot_machine_starts_with_warm_caches_if_that_was_measured():
    """A replacement machine gets the same volume. Without a measured start of that kind, the start is assumed."""
    known = catalogue.load().measured
    both = next(
        one for one in known if catalogue.WARM_REPLACEMENT in one.ready_s and "fresh host" in one.ready_s
    )
    warm, fresh = both.ready_s[catalogue.WARM_REPLACEMENT], both.ready_s["fresh host"]
    assert warm < fresh
    found = spot_pricing.expected(both)
    assert f"engine {warm} s measured" in found.because
    slower = spot_pricing.expected(dataclasses.replace(both, ready_s={"fresh host": fresh}))
    assert slower.cold_start_s - found.cold_start_s == fresh - warm
    assert spot_pricing.expected(
        dataclasses.replace(both, ready_s={"warm host": 1})
    ) == spot_pricing.expected(None)


@given(st.floats(0, 50), st.floats(0.1, 120), st.floats(0.01, 100))
def test_interruptions_and_longer_starts_never_make_spot_cheaper(per_day, minutes, usd):
    base = spot_pricing.expected(None, per_day, minutes)
    assert 0 <= base.availability <= 1
    assert base.effective(usd) >= usd if base.availability else True
    worse = (
        spot_pricing.expected(None, per_day + 1, minutes),
        spot_pricing.expected(None, per_day, minutes * 2),
    )
    assert all(one.availability <= base.availability for one in worse)


def test_the_separate_servers_of_the_tutorial():
    on_demand, spot = price_comparison.separate(None)
    assert (on_demand.usd_per_hour, spot.usd_per_hour) == (10.16, 3.20)
    assert on_demand.usd_per_month == pytest.approx(7416.80)
    assert spot.usd_per_month == pytest.approx(2336.0)
    assert on_demand.saved(2.54) == pytest.approx(0.75)
    assert "costs more by 21%" in spot.sentence(3.87)


def test_the_separate_servers_at_todays_offers():
    def offer(usd, count=1, billing="on-demand"):
        return Offer(
            "p", "o", "H100_SXM5", "H100", count, 80, usd, billing, ("EU",), (), False, "block", "n", False, None
        )  # fmt: skip

    rows = price_comparison.separate([offer(2.2), offer(2.1), offer(1.0, count=2)])
    assert [(row.billing, row.usd_per_hour) for row in rows[2:]] == [("on-demand", 8.4), ("spot", None)]
    assert "today's offers, p" in rows[2].sentence(2.1)
    assert "this machine at $2.10/h saves 75%" in rows[2].sentence(2.1)
    assert rows[3].sentence(2.1).endswith("no price (no 1x H100 on offer).")


def cheapest(context, concurrency):
    wish = Wish("mistral-small-4", context, concurrency, billings=("on-demand", "spot"), full_length=True)
    return min((row.usd_per_serving_hour for row in recommend(wish).fitting), default=float("inf"))


@settings(max_examples=15)
@given(st.integers(1024, 262_144), st.integers(1, 64), st.integers(0, 100_000), st.integers(0, 64))
def test_more_capacity_never_costs_less(context, concurrency, more_context, more_requests):
    longer = min(262_144, context + more_context)
    assert cheapest(longer, concurrency + more_requests) >= cheapest(context, concurrency)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(1, 1e5), st.floats(0, 1e5))
def test_a_dearer_or_slower_machine_never_makes_cheaper_tokens(usd, more, tokens_per_s, faster):
    slow, fast = (pricing.Rate(1, one, (1,)) for one in (tokens_per_s, tokens_per_s + faster))
    assert pricing.per_million(usd + more, slow) >= pricing.per_million(usd, slow)
    assert pricing.per_million(usd, fast) <= pricing.per_million(usd, slow)


def runs():
    return [one for one in catalogue.load().measured if one.tokens_per_s]


def test_a_rate_names_the_levels_it_is_derived_from():
    run = dataclasses.replace(runs()[0], tokens_per_s={1: 168, 32: 1330, 128: 2954})
    assert pricing.rate(run, 32) == pricing.Rate(32, 1330, (32,))
    assert pricing.rate(run, 80) == pricing.Rate(80, (1330 + 2954) / 2, (32, 128))
    assert pricing.rate(run, 500) == pricing.Rate(128, 2954, (128,))
    assert pricing.rate(dataclasses.replace(run, tokens_per_s={32: 1330}), 20) is None
    assert pricing.rate(None, 20) is None


def test_interpolation_never_exceeds_the_measured_rate():
    checked = 0
    for run in runs():
        for level, measured in list(run.tokens_per_s.items())[1:-1]:
            others = {other: rate for other, rate in run.tokens_per_s.items() if other != level}
            found = pricing.rate(dataclasses.replace(run, tokens_per_s=others), level)
            assert found.levels[0] < level < found.levels[1]
            assert found.tokens_per_s <= measured
            checked += 1
    assert checked > 10


@given(st.integers(1, 64_000), st.integers(0, 1000))
def test_a_larger_volume_never_costs_less(gigabytes, more):
    assert pricing.storage_per_month(gigabytes + more) >= pricing.storage_per_month(gigabytes) > 0


def test_a_schedule_is_priced_with_the_volume_that_is_kept():
    block = dict(BLOCK, schedule={"up": "0 7 * * 1-5", "down": "0 20 * * 1-5"})
    found = explain.summary(plan(Deployment.parse(block)))
    hours, storage = 261 * 13 / 12, found["storage_usd_per_month"]
    assert found["scheduled_hours_per_month"] == pytest.approx(hours, abs=0.1)
    assert found["scheduled_usd_per_month"] == pytest.approx(
        hours * found["usd_per_hour"] + storage, abs=0.02
    )
    assert found["labels"]["scheduled_usd_per_month"].endswith("hours by server.schedule, volume included")
    (line,) = [line for line in found["because"] if line.startswith("By the schedule")]
    assert f"${found['scheduled_usd_per_month']:,.2f} with the volume, which is kept" in line
    assert not [name for name in explain.summary(plan(Deployment.parse(BLOCK))) if "scheduled" in name]
