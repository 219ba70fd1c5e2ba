"""Which billing is tried first for a machine that may be rented both ways."""

from pulumi_vllm.provider.lifecycle.machine_offers import find_offers

SPOT = {"gpu": "CPU", "count": 0, "billing": "spot", "fallback": "on-demand", "provider": "data-crunch"}


async def billings(call, inputs):
    found = [offer.billing for offer in await find_offers(call[0], inputs, with_volume=True)]
    return list(dict.fromkeys(found))


async def test_spot_is_tried_first_unless_reconcile_prefers_the_fallback_for_this_machine(call, monkeypatch):
    assert await billings(call, SPOT) == ["spot", "on-demand"]
    monkeypatch.setenv("PULUMI_VLLM_ON_DEMAND_FIRST", "urn:pulumi:s::p::vllm:spheron:Instance::another")
    assert await billings(call, SPOT) == ["spot", "on-demand"]
    monkeypatch.setenv("PULUMI_VLLM_ON_DEMAND_FIRST", call[0].urn)
    assert await billings(call, SPOT) == ["on-demand", "spot"]


async def test_no_preference_admits_what_the_stack_file_does_not(call, monkeypatch):
    monkeypatch.setenv("PULUMI_VLLM_ON_DEMAND_FIRST", call[0].urn)
    assert await billings(call, {**SPOT, "fallback": None}) == ["spot"]
    assert await billings(call, {**SPOT, "billing": "on-demand", "fallback": None}) == ["on-demand"]
