"""Alternatives are plans of the same stack file on another machine."""

import pytest
from pulumi_vllm.plan import Deployment, Offer, explain, plan, reasons
from pulumi_vllm.plan.alternatives import alternatives, cheaper_alternative
from pulumi_vllm.plan.errors import PlanError


def block(gpu, count, **changed):
    return {
        "model": "mistral-small-4",
        "precision": "fp8",
        "context": "256Ki",
        "concurrency": 32,
        "machine": {"gpu": gpu, "count": count, "billing": "spot", "max_usd_per_hour": 100},
        "storage": "300GB",
        "access": {"allow": ["9.9.9.0/24"]},
        **changed,
    }


@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"flags": {"max-num-batched-tokens": 131072, "language-model-only": True}},
        {"flags": {"tensor-parallel-size": 1}},
        {"version": "0.26.0", "flags": {"gpu-memory-utilization": 0.98, "language-model-only": True}},
        {"version": "0.26.0"},
    ],
)
def test_every_alternative_is_a_plan(engine):
    decided = plan(Deployment.parse(block("H200", 1, engine=engine)))
    others = alternatives(decided)
    for gpu, count in others:
        flags = {name: value for name, value in engine.get("flags", {}).items() if name[:6] != "tensor"}
        other = plan(Deployment.parse(block(gpu, count, engine={**engine, "flags": flags})))
        assert min(32, other.memory.full_requests) >= min(32, decided.memory.full_requests)
    assert ("H200", 2) in others or engine.get("flags", {}).get("gpu-memory-utilization")


def test_the_users_own_flags_count_on_the_other_machine_too():
    large = {"flags": {"max-num-batched-tokens": 131072, "language-model-only": True}}
    with pytest.raises(PlanError):
        plan(Deployment.parse(block("H100", 2, engine=large)))
    decided = plan(Deployment.parse(block("H200", 1, engine=large)))
    assert ("H100", 2) not in alternatives(decided)
    assert "2x H100" not in (cheaper_alternative(decided) or "")


def offer(gpu, count, usd, billing="on-demand", region="Finland 3"):
    return Offer("p", "o", gpu, gpu, count, 80, usd, billing, (region,), (), False, "block", "n", False, None)


def test_only_machines_in_the_stacks_region_count_as_cheaper_alternative():
    machine = {"gpu": "H100", "count": 4, "max_usd_per_hour": 100, "region": "finland 3"}
    asked = Deployment.parse(block("H100", 4, machine=machine))
    here = [offer("H100", 4, 10.0), offer("H200", 2, 7.0, region="Iceland")]
    decided = plan(asked, here)
    assert decided.usd_per_hour == 10.0
    assert cheaper_alternative(decided, here) is None
    here.append(offer("H200", 2, 8.0, region="p0:Finland 3"))
    message = "2x H200 has the same capacity for $8.00/h (today's cheapest offer, p, p0:Finland 3)"
    assert message in cheaper_alternative(decided, here)
    # The dated price list has no regions, and says so.
    assert "for any region, not today's offers" in cheaper_alternative(plan(asked))


def test_without_a_spot_offer_the_price_is_that_of_the_fallback():
    machine = {"gpu": "H200", "count": 1, "billing": "spot", "fallback": "on-demand", "max_usd_per_hour": 100}
    asked = Deployment.parse(block("H200", 1, machine=machine))
    offers = [offer("H200", 1, 4.0), offer("H200", 1, 3.0, region="Iceland")]
    found = plan(asked, offers)
    assert found.usd_per_hour == 3.0
    source = "no spot offer of 1x H200 today; the fallback, on-demand: today's cheapest offer, p, Iceland"
    assert found.price.source == source
    assert explain.labels(found)["usd_per_hour"] == f"computed: {source}"
    # An on-demand machine is not taken back, so its starts do not count: the price is the same as without spot.
    on_demand = plan(
        Deployment.parse(block("H200", 1, machine={**machine, "billing": "on-demand", "fallback": None})),
        offers,
    )
    assert found.usd_per_million_output_tokens == on_demand.usd_per_million_output_tokens
    assert not any(one.startswith("Spot:") for one in reasons.because(found))
    assert plan(asked, [*offers, offer("H200", 1, 3.5, "spot")]).usd_per_hour == 3.5
    nothing = plan(asked, [])
    assert nothing.usd_per_hour is None
    assert nothing.price.source == "no spot offer of 1x H200 today and no on-demand offer of 1x H200 today"
