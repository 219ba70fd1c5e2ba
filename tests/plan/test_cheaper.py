"""What is called as good is what the plan takes: the same stack file with another machine."""

import pytest
from pulumi_vllm.plan import Deployment, plan
from pulumi_vllm.plan.cheaper import alternatives, cheaper
from pulumi_vllm.plan.errors import PlanError


def block(gpu, count, **changed):
    return {
        "model": "mistral-small-4",
        "precision": "fp8",
        "context": "256Ki",
        "concurrency": 32,
        "machine": {"gpu": gpu, "count": count, "billing": "spot", "max_usd_per_hour": 100},
        "storage": "300GB",
        "access": {"allow": ["203.0.113.0/24"]},
        **changed,
    }


@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"flags": {"max-num-batched-tokens": 131072}},
        {"flags": {"tensor-parallel-size": 1}},
        {"flags": {"gpu-memory-utilization": 0.98}},
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


def test_a_flag_of_ones_own_counts_on_the_other_machine_too():
    large = {"flags": {"max-num-batched-tokens": 131072}}
    with pytest.raises(PlanError):
        plan(Deployment.parse(block("H100", 2, engine=large)))
    decided = plan(Deployment.parse(block("H200", 1, engine=large)))
    assert ("H100", 2) not in alternatives(decided)
    assert "2x H100" not in (cheaper(decided) or "")
