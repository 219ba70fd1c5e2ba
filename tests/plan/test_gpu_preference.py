"""Several GPUs in order of preference: each is planned, and the first one on offer is taken."""

import pytest
from pulumi_vllm.plan import ConfigError, Deployment, DoesNotFit, explain, plan, reasons
from pulumi_vllm.plan.offer import Offer
from pulumi_vllm.plan.offer_choice import OfferRequest, choose


def block(*gpus, **more):
    machine = {"gpu": list(gpus), "count": 2, "max_usd_per_hour": 9.0} | more
    return {"model": "mistral-small-4", "context": "32Ki", "storage": "300GB", "machine": machine}


def offer(gpu, usd, **changed):
    fields = {
        "provider": "spheron-es", "offer_id": gpu, "gpu_type": gpu, "gpu": gpu, "gpu_count": 2, "gpu_memory_gb": None,
        "usd_per_hour": usd, "billing": "on-demand", "regions": ("EU",), "operating_systems": ("Ubuntu",),
        "supports_cloud_init": False, "mount_kind": "virtiofs", "name": "n", "maintenance": False,
        "minimum_runtime_min": 20,
    }  # fmt: skip
    return Offer(**{**fields, **changed})


@pytest.mark.parametrize(
    ("offers", "taken"),
    [
        (None, "H200"),
        ([offer("H100", 5), offer("H200", 8)], "H200"),
        ([offer("H100", 5)], "H100"),
        ([offer("H100", 5), offer("H200", 20)], "H100"),  # above the ceiling
        ([offer("H100", 5), offer("H200", 8, maintenance=True)], "H100"),
        ([offer("H100 PCIe", 3)], "H200"),  # not in the list, so nothing on offer is
    ],
)
def test_the_plan_is_that_of_the_first_gpu_on_offer(offers, taken):
    decided = plan(Deployment.parse(block("H200", "H100")), offers)
    assert decided.deployment.machine.gpu == taken
    assert explain.summary(decided)["machine"] == f"2x {taken}"
    assert decided.preferred == ("H200", "H100")
    (other,) = decided.others
    assert {taken, other.deployment.machine.gpu} == {"H200", "H100"}
    said = " ".join(reasons.because(decided))
    assert f"prefers H200, then H100. This is the plan of 2x {taken}." in said
    assert f"With 2x {other.deployment.machine.gpu}: {other.memory.kv_tokens:,} KV tokens" in said


def test_a_gpu_that_is_not_known_may_be_described_in_a_file():
    with pytest.raises(ConfigError) as refusal:
        Deployment.parse(block("RTX_3090"))
    (message,) = refusal.value.errors
    assert (
        "did you mean RTX 5090? Describe another GPU in gpus/RTX 3090.yaml: `pulumi-vllm schema --gpu`"
        in message
    )


def test_every_gpu_of_the_list_must_be_able_to_serve():
    with pytest.raises(DoesNotFit) as refusal:
        plan(Deployment.parse(block("H200", "L40S", "L4")))
    assert len(refusal.value.errors) == 2
    assert refusal.value.errors[0].endswith(", or leave L40S out of server.machine.gpu")
    assert "does not fit 2x L4: " in refusal.value.errors[1]


def test_what_is_wrong_with_every_gpu_is_said_once():
    with pytest.raises(DoesNotFit) as refusal:
        plan(Deployment.parse(block("H200", "H100") | {"storage": "60GB"}))
    (sentence,) = refusal.value.errors
    assert sentence.startswith("server.storage: ")
    assert "machine.gpu" not in sentence


def test_a_card_is_taken_for_a_module_only_where_the_list_names_it():
    offers = [offer("H100 PCIe", 3), offer("H100", 5)]
    for gpus, expected in (
        (("H100",), ["H100"]),
        (("H100", "H100 PCIe"), ["H100", "H100 PCIe"]),
        (("H100 PCIe", "H100"), ["H100 PCIe", "H100"]),
    ):
        found = choose(offers, OfferRequest(gpus, 2, ("on-demand",)))
        assert [one.gpu for one in found] == expected


def test_the_preferred_billing_comes_before_the_preferred_gpu():
    offers = [offer("H200", 8), offer("H100", 2, billing="spot")]
    wanted = block("H200", "H100", billing="spot", fallback="on-demand")
    assert plan(Deployment.parse(wanted), offers).deployment.machine.gpu == "H100"


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"gpu": []}, "server.machine.gpu: is an empty list; write a GPU"),
        ({"gpu": ["H200", "H200"]}, "server.machine.gpu: H200 appears twice; write each GPU once"),
        ({"gpu": ["H200", "CPU"]}, "server.machine.gpu: CPU is one of several; write it alone"),
        (
            {"gpu": ["H200", "H1000"]},
            "server.machine.gpu: 'H1000' is not in the catalogue; did you mean H100?",
        ),
        (
            {"gpu": "A100"},
            "server.machine.gpu: 'A100' is not in the catalogue; write A100 80GB or A100 80GB PCIe or ",
        ),
        ({"gpu": "H100_PCIE"}, "server.machine.gpu: 'H100_PCIE' is not in the catalogue; write H100 PCIe"),
        ({"gpu": "RTX 6090"}, "server.machine.gpu: 'RTX 6090' is not in the catalogue; did you mean RTX"),
        ({"gpu": ["H200", "H100"], "replace": "overlap"}, "server.machine.replace: overlap needs one GPU"),
        (
            {"cloud": "none", "gpu": ["H200", "H100"], "usd_per_hour": 1, "max_usd_per_hour": None},
            "server.machine.gpu: names several, and the machine exists",
        ),
    ],
)
def test_a_wrong_list_is_refused(machine, message):
    with pytest.raises(ConfigError) as refusal:
        Deployment.parse(block("H200", **machine))
    assert any(error.startswith(message) for error in refusal.value.errors), refusal.value.errors
